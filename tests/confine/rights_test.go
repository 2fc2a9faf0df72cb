package confine

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sessfs/internal/testkit"
)

// caps is a set as /proc shows it.
func caps(list ...int) string {
	var set uint64
	for _, c := range list {
		set |= 1 << c
	}
	return fmt.Sprintf("%x", set)
}

func rightsOf(set string, filter string) string {
	return fmt.Sprintf("CapInh= CapPrm=%s CapEff=%s CapBnd=%s CapAmb= NoNewPrivs=1 Seccomp=%s", set, set, set, filter)
}

// checkRights looks at keeper and daemon as they are now.
func checkRights(t *testing.T, h *testkit.Host, when string, more ...int) {
	t.Helper()
	daemon := append([]int{unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH, unix.CAP_SYS_NICE}, more...)
	keeper := append([]int{unix.CAP_SYS_ADMIN, unix.CAP_SETPCAP}, daemon...)
	for _, p := range []struct {
		name   string
		pid    int
		wanted string
	}{
		{"keeper", h.Process().Process.PID(), rightsOf(caps(keeper...), "")},
		{"daemon", h.Process().PID(), rightsOf(caps(daemon...), "2")},
	} {
		if got := threads(t, p.pid); len(got) != 1 || got[0] != p.wanted {
			t.Errorf("%s, the %s has\n%s\nnot\n%s", when, p.name, strings.Join(got, "\n"), p.wanted)
		}
		limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", p.pid))
		if err != nil || !regexp.MustCompile(`(?m)^Max core file size\s+0\s+0\s`).Match(limits) {
			t.Errorf("%s, the %s may leave a core: %v\n%s", when, p.name, err, limits)
		}
	}
}

// The daemon gives up what it does not need before it speaks with anybody, and does all its work without: as the first one,
// after an upgrade, and after it died.
func TestRights(t *testing.T) {
	c := testkit.Conf{Servers: []*testkit.Memcached{testkit.StartMemcached(t)}}
	h := testkit.Mount(t, c)
	checkRights(t, h, "at first")
	use := func(v string) {
		t.Helper()
		testkit.Want(t, testkit.PHP(t, h, write, "r", v), "ok")
		testkit.Want(t, testkit.PHPAs(t, h, 2001, nil, write, "other", v), "ok")
		testkit.Want(t, testkit.PHP(t, h, read, "r"), v)
	}
	use("1")
	if out, code := testkit.Run(t, h.Binary, "upgrade", h.Dir); code != 0 {
		t.Fatalf("upgrade: exit %d: %s", code, out)
	}
	checkRights(t, h, "after an upgrade")
	use("2")
	kill(t, h, func(int) { h.Process().KillDaemon() })
	checkRights(t, h, "after a death")
	use("3")
	// A reload, with an address to listen on and a server that is new.
	address := fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
	c.More = "log: {level: debug}\n"
	c.Servers = append(c.Servers, testkit.StartMemcached(t))
	h.Configure(c)
	testkit.Until(t, 10*time.Second, "it is reloaded", func() bool { return strings.Contains(h.Log(), "the configuration was reloaded") })
	testkit.ReplaceFile(t, h.Config, "%s", strings.Replace(string(readFile(t, h.Config)), "admin: {", "admin: {metrics: \""+address+"\", ", 1))
	testkit.Until(t, 10*time.Second, "metrics are there", func() bool {
		res, err := http.Get("http://" + address + "/metrics")
		if err == nil {
			res.Body.Close()
		}
		return err == nil && res.StatusCode == 200
	})
	use("4")
	process := h.Process()
	h.Stop() // it must be unmounted
	if strings.Contains(process.Output(), "not permitted") {
		t.Errorf("something was forbidden that it needs:\n%s", process.Output())
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A socket of memcached that is for its own user alone needs a right more, and gets it.
func TestRightsForASocket(t *testing.T) {
	dir := testkit.Dir(t)
	if err := os.Chown(dir, 33, 33); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "memcached.sock")
	cmd := exec.Command("memcached", "-u", "www-data", "-s", socket, "-a", "0700")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 33, Gid: 33}}
	testkit.StartCmd(t, cmd)
	testkit.Until(t, 10*time.Second, "memcached answers", func() bool { _, err := os.Stat(socket); return err == nil })
	h := testkit.Mount(t, testkit.Conf{Cache: fmt.Sprintf("  servers: [\"unix:%s\"]\n  timeout: 4s\n", socket)})
	checkRights(t, h, "with a socket", unix.CAP_DAC_OVERRIDE)
	testkit.Want(t, testkit.PHP(t, h, write, "s", "x"), "ok")
	testkit.Want(t, testkit.PHP(t, h, read, "s"), "x")
}

// In the background, and unmounted by umount(8) and by the command.
func TestRightsInTheBackground(t *testing.T) {
	for _, umount := range [][]string{{"umount"}, {testkit.Binary(t), "umount"}} {
		h := testkit.NewHost(t, testkit.Conf{Servers: []*testkit.Memcached{testkit.StartMemcached(t)}})
		testkit.MustRun(t, h.Binary, "mount", "--config", h.Config)
		var s struct{ PID int }
		h.Status(&s)
		if got := threads(t, s.PID); len(got) != 1 || !strings.HasSuffix(got[0], "NoNewPrivs=1 Seccomp=2") {
			t.Errorf("the daemon has %s", got)
		}
		testkit.Want(t, testkit.PHP(t, h, write, "b", "x"), "ok")
		testkit.MustRun(t, umount[0], append(umount[1:], h.Dir)...)
		testkit.Until(t, 10*time.Second, "the daemon ends", func() bool { return unix.Kill(s.PID, 0) != nil })
	}
}
