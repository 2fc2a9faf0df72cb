// Package admin tests what the administrator does: mounting by every way there is, the commands, reloading, cleaning.
package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sessfs/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const (
	start = testkit.PHPStart
	write = testkit.PHPWrite
	read  = testkit.PHPRead
)

// mountsTable is /proc/mounts.
func mountsTable() string {
	b, _ := os.ReadFile("/proc/self/mounts")
	return string(b)
}

// background makes sure that a daemon in the background is gone at the end of the test, and returns its pid.
func background(t *testing.T, h *testkit.Host) int {
	t.Helper()
	var s struct{ PID int }
	status(t, h, &s)
	t.Cleanup(func() {
		syscall.Kill(s.PID, syscall.SIGTERM)
		testkit.Until(t, 15*time.Second, "the daemon ends", func() bool { return syscall.Kill(s.PID, 0) != nil })
	})
	return s.PID
}

func status(t *testing.T, h *testkit.Host, into any) {
	t.Helper()
	out, err := exec.Command(testkit.Binary(t), "status", "--json", h.Dir).Output()
	if err != nil {
		t.Fatalf("status: %v\n%s", err, out)
	}
	if err := json.Unmarshal(out, into); err != nil {
		t.Fatalf("status: %v\n%s", err, out)
	}
}

func TestMountInTheBackground(t *testing.T) {
	h := testkit.NewHost(t, testkit.Conf{Servers: []*testkit.Memcached{testkit.StartMemcached(t)}})
	if out := testkit.MustRun(t, testkit.Binary(t), "mount", "--config", h.Config); out != "" {
		t.Errorf("a mount without a problem prints %s", out)
	}
	pid := background(t, h)
	if line := h.Config + " " + h.Dir + " fuse.sessfs "; !strings.Contains(mountsTable(), line) {
		t.Errorf("/proc/mounts has no %q:\n%s", line, mountsTable())
	}
	testkit.Want(t, testkit.PHP(t, h, write, "bg", "x"), "ok")
	out, code := h.Sessfs("mount")
	if code != 5 || !strings.Contains(out, "mounted already") {
		t.Errorf("a second mount: exit %d: %s", code, out)
	}
	testkit.Want(t, testkit.PHP(t, h, read, "bg"), "x")
	testkit.MustRun(t, testkit.Binary(t), "umount", h.Dir)
	testkit.Until(t, 10*time.Second, "the daemon ends when it is unmounted", func() bool { return syscall.Kill(pid, 0) != nil })
}

// `sessfs mount DIR` alone: the embedded store.
func TestMountAlone(t *testing.T) {
	h := testkit.NewHost(t, testkit.Conf{})
	if _, err := os.Stat("/etc/sessfs"); err == nil { // this machine has a configuration: hide it
		testkit.MustRun(t, "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "/etc/sessfs")
		t.Cleanup(func() { testkit.MustRun(t, "umount", "/etc/sessfs") })
	}
	testkit.MustRun(t, testkit.Binary(t), "mount", h.Dir)
	background(t, h)
	testkit.Want(t, testkit.PHP(t, h, write, "alone", "x"), "ok")
	testkit.Want(t, testkit.PHP(t, h, read, "alone"), "x")
}

// An fstab line mounts with `mount DIR`, shows as fuse.sessfs, and unmounts with `umount DIR`.
func TestFstab(t *testing.T) {
	helper(t)
	h := testkit.NewHost(t, testkit.Conf{Servers: []*testkit.Memcached{testkit.StartMemcached(t)}})
	fstab := testkit.WriteFile(t, filepath.Join(filepath.Dir(h.Config), "fstab"), "%s %s sessfs _netdev,nofail,x-systemd.automount 0 0\n", h.Config, h.Dir)
	for _, args := range [][]string{{"-T", fstab, h.Dir}, {"-T", fstab, "-a"}, {"-T", fstab, "-a"}} {
		testkit.MustRun(t, "mount", args...)
		if strings.Count(mountsTable(), " "+h.Dir+" fuse.sessfs ") != 1 {
			t.Fatalf("after mount %v:\n%s", args, mountsTable())
		}
		if args[1] == fstab && args[2] == h.Dir {
			pid := background(t, h)
			testkit.Want(t, testkit.PHP(t, h, write, "fs", "x"), "ok")
			testkit.MustRun(t, "umount", h.Dir)
			testkit.Until(t, 10*time.Second, "the daemon ends", func() bool { return syscall.Kill(pid, 0) != nil })
		}
	}
	background(t, h)
	testkit.Want(t, testkit.PHP(t, h, read, "fs"), "x")
	testkit.MustRun(t, "umount", h.Dir)
}

// helper puts mount.sessfs where mount(8) looks for it.
func helper(t *testing.T) {
	t.Helper()
	const path = "/sbin/mount.sessfs"
	if installed, err := filepath.EvalSymlinks(path); err == nil { // the one under test covers it for a moment
		testkit.MustRun(t, "mount", "--bind", testkit.Binary(t), installed)
		t.Cleanup(func() { testkit.MustRun(t, "umount", installed) })
		return
	}
	if err := os.Symlink(testkit.Binary(t), path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(path) })
}

func TestExitCodes(t *testing.T) {
	h := testkit.NewHost(t, testkit.Conf{})
	bad := testkit.WriteFile(t, filepath.Join(filepath.Dir(h.Config), "bad.yaml"), "cache:\n  timout: 1s\n")
	stranger := testkit.WriteFile(t, filepath.Join(filepath.Dir(h.Config), "stranger.yaml"), "directory: {owner: nobody-here}\n")
	gone := filepath.Join(h.Dir, "not-there")
	file := testkit.WriteFile(t, filepath.Join(filepath.Dir(h.Config), "file"), "")
	for _, tc := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"version"}, 0, "sessfs "},
		{[]string{"--help"}, 0, "status"},
		{[]string{"completion", "bash"}, 0, "sessfs"},
		{[]string{"config", "check", h.Config}, 0, "ok"},
		{[]string{"config", "check", "../../config.yaml"}, 0, "ok"},
		{[]string{"config", "check", bad}, 3, `bad.yaml:2: cache.timout`},
		{[]string{"config", "check", stranger}, 3, `stranger.yaml: directory.owner: this host has no user "nobody-here"`},
		{[]string{"config", "check", gone}, 3, "no such file"},
		{[]string{"mount", "--config", bad}, 3, "did you mean"},
		{[]string{"mount", "--config", gone}, 3, "no such file"},
		{[]string{"mount", gone}, 5, "make the directory first"},
		{[]string{"mount", file}, 5, "no directory"},
		{[]string{"mount", "-o", "ro", h.Dir}, 2, "ro"},
		{[]string{"mount", "-o", "bogus", h.Dir}, 2, "bogus"},
		{[]string{"mount", "a", "b"}, 2, ""},
		{[]string{"mount", "--bogus"}, 2, "bogus"},
		{[]string{"bogus"}, 2, "bogus"},
		{[]string{"umount"}, 2, ""},
		{[]string{"umount", h.Dir}, 1, "not a mount of sessfs"},
		{[]string{"show", "x", "--config", h.Config}, 1, "no daemon answers"},
	} {
		out, code := testkit.Run(t, testkit.Binary(t), tc.args...)
		if code != tc.code || !strings.Contains(out, tc.says) {
			t.Errorf("sessfs %v: exit %d, not %d: %s", tc.args, code, tc.code, out)
		}
	}
}

// A mount whose daemon was killed is found and replaced.
func TestDeadMountIsReplaced(t *testing.T) {
	h := testkit.Mount(t, testkit.Conf{Servers: []*testkit.Memcached{testkit.StartMemcached(t)}})
	testkit.Want(t, testkit.PHP(t, h, write, "dead", "x"), "ok")
	h.Process().Kill()
	if _, err := os.ReadDir(h.Dir); err == nil {
		t.Fatal("the mount answers without its daemon")
	}
	h.Start()
	testkit.Until(t, 10*time.Second, "the new mount answers", func() bool {
		return testkit.PHP(t, h, read, "dead") == "x"
	})
	if n := strings.Count(mountsTable(), " "+h.Dir+" "); n != 1 {
		t.Errorf("%d mounts at %s", n, h.Dir)
	}
}

// SIGTERM unmounts after the running requests.
func TestSIGTERM(t *testing.T) {
	h := testkit.Mount(t, testkit.Conf{Servers: []*testkit.Memcached{testkit.StartMemcached(t)}})
	p := testkit.StartPHP(t, h, nil, start+`echo "open\n"; sleep(1); $_SESSION['v'] = 'finished'; session_write_close(); echo 'end';`, "term")
	testkit.Until(t, 10*time.Second, "it is open", func() bool { return strings.Contains(p.Output(), "open") })
	h.Stop()
	p.Wait(t, 10*time.Second)
	if p.Output() != "open\nend" {
		t.Errorf("the running request printed %s", p.Output())
	}
	h.Start()
	testkit.Want(t, testkit.PHP(t, h, read, "term"), "finished")
}

func TestLsShowRm(t *testing.T) {
	m := testkit.StartMemcached(t)
	h := testkit.Mount(t, testkit.Conf{Servers: []*testkit.Memcached{m}})
	testkit.Want(t, testkit.PHP(t, h, write, "one", "first"), "ok")
	testkit.Want(t, testkit.PHP(t, h, write, "two", "second"), "ok")
	out, code := h.Sessfs("ls")
	if code != 0 || !strings.Contains(out, "sess_one") || !strings.Contains(out, "sess_two") {
		t.Errorf("ls: exit %d\n%s", code, out)
	}
	out, code = h.Sessfs("show", "sess_one")
	if code != 0 || !strings.Contains(out, "14 bytes") || !strings.Contains(out, "free") {
		t.Errorf("show: exit %d\n%s", code, out)
	}
	out, _ = h.Sessfs("show", "--data", "sess_one")
	testkit.Want(t, out, `v|s:5:"first";`)
	p := testkit.StartPHP(t, h, nil, start+`echo "held\n"; sleep(60);`, "one")
	testkit.Until(t, 10*time.Second, "the lock is held", func() bool { return strings.Contains(p.Output(), "held") })
	if out, _ = h.Sessfs("show", "sess_one"); !strings.Contains(out, fmt.Sprintf("held by pid %d", p.PID())) {
		t.Errorf("show of a locked session:\n%s", out)
	}
	var s struct {
		Locks []struct {
			PID  int
			Kind string
		}
		Servers []struct{ Up bool }
	}
	status(t, h, &s)
	if len(s.Locks) != 1 || s.Locks[0].PID != p.PID() || len(s.Servers) != 1 || !s.Servers[0].Up {
		t.Errorf("status: %+v", s)
	}
	if out, code = h.Sessfs("rm", "sess_two", "sess_none"); code != 1 || !strings.Contains(out, "sess_none") {
		t.Errorf("rm: exit %d: %s", code, out)
	}
	if out, code = h.Sessfs("show", "sess_two"); code != 1 || !strings.Contains(out, "destroyed") {
		t.Errorf("show of a destroyed session: exit %d: %s", code, out)
	}
	testkit.Want(t, testkit.PHP(t, h, read, "two"), "-")
	// The socket is root's.
	cmd := exec.Command(testkit.Binary(t), "ls", "--config", h.Config)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 2001, Gid: 2001}}
	if b, err := cmd.CombinedOutput(); err == nil || !bytes.Contains(b, []byte("only root")) {
		t.Errorf("ls by another user: %v: %s", err, b)
	}
}

// A changed file takes effect without a remount where it can; what cannot is named; a bad file changes nothing.
func TestReload(t *testing.T) {
	m := testkit.StartMemcached(t)
	c := testkit.Conf{Servers: []*testkit.Memcached{m}}
	h := testkit.Mount(t, c)
	c.More = "session: {max_size: 100B}\ndepth: 1\n"
	h.Configure(c)
	logged(t, h, "keys=session.max_size")
	logged(t, h, "keys=depth")
	out := testkit.PHP(t, h, start+`$_SESSION['v'] = str_repeat('x', 200); session_write_close();`, "big")
	if !strings.Contains(out, "rite") {
		t.Errorf("max_size did not change: %s", out)
	}
	c.More = "session: {max_size: lots}\n"
	h.Configure(c)
	logged(t, h, "the old one goes on")
	testkit.Want(t, testkit.PHP(t, h, write, "small", "x"), "ok")
	c.More = "log: {format: json}\n"
	h.Configure(c)
	h.Process().Signal(syscall.SIGHUP)
	logged(t, h, `"msg":"the configuration was reloaded"`)
}

func logged(t *testing.T, h *testkit.Host, text string) {
	t.Helper()
	testkit.Until(t, 10*time.Second, "the log says "+text, func() bool { return strings.Contains(h.Log(), text) })
}

// Type=notify: the daemon tells systemd when the mount answers, and when it ends.
func TestNotify(t *testing.T) {
	h := testkit.NewHost(t, testkit.Conf{Servers: []*testkit.Memcached{testkit.StartMemcached(t)}})
	sock := filepath.Join(filepath.Dir(h.Config), "notify")
	l, err := listenUnixgram(sock)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cmd := exec.Command(testkit.Binary(t), "mount", "--foreground", "--config", h.Config)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+sock)
	p := testkit.StartCmd(t, cmd)
	if got := receive(t, l); !strings.Contains(got, "READY=1") || !h.Mounted() {
		t.Errorf("systemd was told %q, mounted: %v", got, h.Mounted())
	}
	p.Signal(syscall.SIGTERM)
	testkit.Until(t, 10*time.Second, "STOPPING=1", func() bool { return strings.Contains(receive(t, l), "STOPPING=1") })
	if err := p.Wait(t, 10*time.Second); err != nil {
		t.Error(err)
	}
}
