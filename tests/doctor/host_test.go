// Package doctor tests `sessfs doctor` on hosts that are whole: a mount namespace with an /etc, a /run and a host name of its
// own, in which the daemon, its mount and php-fpm run where they are installed on a Debian host.
package doctor

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sessfs/internal/doctor"
	"sessfs/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const (
	mountpoint = "/var/lib/php/sessions"
	configFile = "/etc/sessfs/config.yaml"
	pool       = "/etc/php/8.2/fpm/pool.d/www.conf"
	fpmINI     = "/etc/php/8.2/fpm/php.ini"
	fpmConf    = "/etc/php/8.2/fpm/php-fpm.conf"
)

// host is a web host.
type host struct {
	t       *testing.T
	etc     string // its /etc, from outside
	init    int    // the first process of its namespaces
	ns      *testkit.Process
	ended   sync.Once
	servers []*testkit.Memcached
	daemon  *testkit.Process
	fpm     *testkit.Process
}

// newHost is a host with a good configuration on which nothing runs yet.
func newHost(t *testing.T, name string, servers []*testkit.Memcached) *host {
	t.Helper()
	h := &host{t: t, etc: filepath.Join(testkit.Dir(t), "etc"), servers: servers}
	testkit.MustRun(t, "cp", "-a", "/etc", h.etc)
	ready := filepath.Join(h.etc, "ready")
	ns := testkit.Start(t, "unshare", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc", "sh", "-ec", fmt.Sprintf(`
		hostname %s
		awk '$3 == "fuse.sessfs" { print $2 }' /proc/self/mounts | xargs -r umount -l
		mount --bind %s /etc
		for d in /run /var/log /sys/fs; do mount -t tmpfs -o size=8m tmpfs $d; done
		mkdir -p /run/php /run/systemd/system
		touch /etc/ready
		exec sleep infinity`, name, h.etc))
	testkit.Until(t, 20*time.Second, "the host's namespaces are there: "+ns.Output(), func() bool {
		_, err := os.Stat(ready)
		return err == nil
	})
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", ns.PID(), ns.PID()))
	if err != nil {
		t.Fatal(err)
	}
	if h.init, err = strconv.Atoi(strings.TrimSpace(string(b))); err != nil {
		t.Fatal(err)
	}
	h.ns = ns
	t.Cleanup(h.end)
	if err := os.MkdirAll(h.path("/etc/sessfs"), 0o755); err != nil {
		t.Fatal(err)
	}
	h.write(configFile, "%s", h.config())
	h.write("/etc/fstab", "# nothing else\n%s  %s  sessfs  _netdev,nofail,x-systemd.before=php8.2-fpm.service  0  0\n", configFile, mountpoint)
	return h
}

// end switches the host off, with all that runs on it.
func (h *host) end() {
	h.ended.Do(func() {
		syscall.Kill(h.init, syscall.SIGKILL)
		h.ns.Wait(h.t, 20*time.Second)
	})
}

// config is a good one: one key a line, so that lines can be changed.
func (h *host) config() string {
	var b strings.Builder
	b.WriteString("directory:\n  mode: \"1733\"\nfiles: [\"sess_*\"]\ndepth: 0\nsession:\n  lifetime: 24m\nlock:\n  lease: 20s\ncache:\n  timeout: 4s\n  prefix: \"site:\"\n  servers:\n")
	for i, s := range h.servers {
		fmt.Fprintf(&b, "    - {name: cache%d, address: %q}\n", i+1, s.Addr)
	}
	return b.String()
}

// path is where a file of the host's /etc is.
func (h *host) path(file string) string {
	h.t.Helper()
	rest, ok := strings.CutPrefix(file, "/etc/")
	if !ok {
		h.t.Fatalf("%s is not the host's own", file)
	}
	return filepath.Join(h.etc, rest)
}

func (h *host) write(file, format string, args ...any) {
	h.t.Helper()
	if err := os.MkdirAll(filepath.Dir(h.path(file)), 0o755); err != nil {
		h.t.Fatal(err)
	}
	testkit.WriteFile(h.t, h.path(file), format, args...)
}

// replace changes text in a file, which must be there, and puts the file back at the end of the test.
func (h *host) replace(t *testing.T, file, old, new string) {
	t.Helper()
	b, err := os.ReadFile(h.path(file))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), old) {
		t.Fatalf("%s has no %q", file, old)
	}
	h.write(file, "%s", strings.Replace(string(b), old, new, 1))
	t.Cleanup(func() { h.write(file, "%s", b) })
}

// add makes a file, and takes it away at the end of the test.
func (h *host) add(t *testing.T, file, text string) {
	t.Helper()
	h.write(file, "%s", text)
	t.Cleanup(func() { os.Remove(h.path(file)) })
}

// line is FILE:LINE of a text.
func (h *host) line(file, text string) string {
	h.t.Helper()
	b, err := os.ReadFile(h.path(file))
	if err != nil {
		h.t.Fatal(err)
	}
	before, _, found := strings.Cut(string(b), text)
	if !found {
		h.t.Fatalf("%s has no %q", file, text)
	}
	return fmt.Sprintf("%s:%d", file, strings.Count(before, "\n")+1)
}

// command runs on the host.
func (h *host) command(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"-t", strconv.Itoa(h.init), "-m", "-p", "-u", "--", name}, args...)...)
}

func (h *host) run(args ...string) string {
	h.t.Helper()
	out, err := h.command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		h.t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return string(out)
}

// mount starts the daemon.
func (h *host) mount() {
	h.t.Helper()
	h.daemon = testkit.StartCmd(h.t, h.command(testkit.Binary(h.t), "mount", "--foreground", "--config", configFile))
	h.t.Cleanup(h.end) // before the daemon is waited for
	testkit.Until(h.t, 30*time.Second, "the mount is there: "+h.daemon.Output(), h.mounted)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		var s struct{ Hosts []struct{ Host string } }
		out, err := h.command(testkit.Binary(h.t), "status", "--json").CombinedOutput()
		if json.Unmarshal(out, &s); len(s.Hosts) > 0 {
			return
		}
		if time.Now().After(end) {
			h.t.Fatalf("the host has not told of itself: %v\n%s\n%s", err, out, h.daemon.Output())
		}
	}
}

func (h *host) mounted() bool {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/mounts", h.init))
	return strings.Contains(string(b), " "+mountpoint+" fuse.sessfs ")
}

// serve starts php-fpm as its unit does.
func (h *host) serve() {
	h.t.Helper()
	h.fpm = testkit.StartCmd(h.t, h.command(testkit.FPMBinary(h.t), "--nodaemonize", "--allow-to-run-as-root", "--fpm-config", fpmConf))
	h.t.Cleanup(h.end)
	testkit.Until(h.t, 20*time.Second, "php-fpm listens", func() bool {
		select {
		case <-h.fpm.Done():
			h.t.Fatalf("php-fpm ended: %s", h.fpm.Output())
		default:
		}
		_, err := os.Stat(fmt.Sprintf("/proc/%d/root/run/php/php8.2-fpm.sock", h.init))
		return err == nil
	})
}

// doctor runs it, and returns its report and exit code.
func (h *host) doctor(t *testing.T, args ...string) (r doctor.Report, code int) {
	t.Helper()
	cmd := h.command(testkit.Binary(t), append([]string{"doctor", "--json"}, args...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if jsonErr := json.Unmarshal(out, &r); jsonErr != nil {
		t.Fatalf("doctor: %v, %v\n%s%s", err, jsonErr, out, stderr.String())
	}
	return r, testkit.ExitCode(err)
}
