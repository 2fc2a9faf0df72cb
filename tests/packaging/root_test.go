package packaging

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sessfs/internal/testkit"
)

// root is a Debian of its own: this machine's files under an overlay whose changes are in memory, in a mount namespace
// where no other test's mounts are seen. It ends with the process that holds it.
type root struct {
	t      *testing.T
	holder *testkit.Process
}

// setup makes a root in the directory $1, where the packages of $2 are in /srv and the changes in /mnt/upper.
const setup = `set -e
mount -t tmpfs -o mode=0755 tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
cd "$1/root"
mount -t proc proc proc
mount --rbind /dev dev
mount --bind /sys sys
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=0755 tmpfs run
mount --bind "$2" srv
mount --bind "$1" mnt
mkdir tmp/old
pivot_root . tmp/old
umount -l /tmp/old
rm -r /tmp/old /run/*
echo ready
exec sleep infinity`

func newRoot(t *testing.T) *root {
	t.Helper()
	packages, dir := build(t), testkit.Dir(t)
	holder := testkit.Start(t, "unshare", "--mount", "--propagation", "slave", "sh", "-c", setup, "setup", dir, packages)
	testkit.Until(t, 20*time.Second, "the root is set up", func() bool {
		select {
		case <-holder.Done():
			t.Fatalf("setting a root up: %s", holder.Output())
		default:
		}
		return strings.Contains(holder.Output(), "ready")
	})
	r := &root{t, holder}
	t.Cleanup(func() {
		for end := time.Now().Add(10 * time.Second); len(r.processes()) > 0 && time.Now().Before(end); { // a daemon ends a moment after its mount
			time.Sleep(10 * time.Millisecond)
		}
		for _, pid := range r.processes() {
			t.Errorf("a process was left behind: %s", pid)
			if n, err := strconv.Atoi(filepath.Base(pid)); err == nil {
				syscall.Kill(n, syscall.SIGKILL)
			}
		}
	})
	return r
}

// processes are those that run in the root, but for the one that holds it.
func (r *root) processes() (list []string) {
	holder := filepath.Join("/proc", strconv.Itoa(r.holder.PID()))
	namespace, _ := os.Readlink(filepath.Join(holder, "ns/mnt"))
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range all {
		if ns, err := os.Readlink(filepath.Join(p, "ns/mnt")); err == nil && ns == namespace && p != holder {
			list = append(list, p)
		}
	}
	return list
}

func (r *root) command(args ...string) *exec.Cmd {
	all := append([]string{"--target", strconv.Itoa(r.holder.PID()), "--mount", "--root", "--wd", "--"}, args...)
	cmd := exec.Command("nsenter", all...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin", "HOME=/root", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"}
	return cmd
}

// try runs a command to its end, run one that must succeed.
func (r *root) try(args ...string) (string, error) {
	out, err := r.command(args...).CombinedOutput()
	return string(out), err
}

func (r *root) run(args ...string) string {
	r.t.Helper()
	out, err := r.try(args...)
	if err != nil {
		r.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// path is where a file of the root is seen from outside.
func (r *root) path(name string) string {
	return filepath.Join("/proc", strconv.Itoa(r.holder.PID()), "root", name)
}

func (r *root) write(name, text string) {
	r.t.Helper()
	if err := os.WriteFile(r.path(name), []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

func (r *root) exists(name string) bool {
	_, err := os.Lstat(r.path(name))
	return err == nil
}

// install does what the README says.
func (r *root) install(version string) string {
	r.t.Helper()
	return r.run("sh", "-c", "cd /srv/"+version+" && apt-get install -y ./sessfs_*.deb")
}

// own is what the package managers keep for themselves.
var own = []string{"var/lib/dpkg", "var/lib/apt", "var/log/apt", "var/log/dpkg.log", "var/cache/apt", "var/cache/man", "var/cache/debconf", "var/lib/rpm"}

// changes are the files in which the root differs from this machine, new directories among them.
func (r *root) changes() []string {
	r.t.Helper()
	var list []string
	upper := r.path("mnt/upper")
	err := filepath.WalkDir(upper, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(upper, path)
		for _, o := range own {
			if name == o {
				if d.IsDir() {
					return filepath.SkipDir
				}
				return nil
			}
		}
		if d.IsDir() {
			if _, err := os.Lstat(filepath.Join("/", name)); err == nil {
				return nil
			}
		}
		if name == "var/log/sessfs.log" && d.Type()&fs.ModeCharDevice != 0 {
			return nil // this machine has one of other tests, which is gone in the root
		}
		list = append(list, "/"+name)
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, dir := range []string{"run", "tmp"} {
		names, _ := os.ReadDir(r.path(dir))
		for _, n := range names {
			if path := filepath.Join("/", dir, n.Name()); path != "/run/mount" { // umount's
				list = append(list, path)
			}
		}
	}
	return list
}

// mounted tells whether the session directory is sessfs's.
func (r *root) mounted() bool {
	b, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(r.holder.PID()), "mounts"))
	return strings.Contains(string(b), " /var/lib/php/sessions fuse.sessfs ")
}

var sockets atomic.Int32

// service is a daemon as systemd starts it.
type service struct {
	*testkit.Process
	notify *net.UnixConn
}

// start runs the ExecStart line of the installed unit, behind a prefix, and waits for READY=1.
func (r *root) start(prefix ...string) *service {
	r.t.Helper()
	name := fmt.Sprintf("@sessfs-test-%d-%d", os.Getpid(), sockets.Add(1))
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { l.Close() })
	cmd := r.command(append(prefix, strings.Fields(r.setting("ExecStart"))...)...)
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+name)
	s := &service{testkit.StartCmd(r.t, cmd), l}
	if said := s.told(); !strings.Contains(said, "READY=1") || !r.mounted() {
		r.t.Fatalf("systemd was told %q; mounted: %v\n%s", said, r.mounted(), s.Output())
	}
	return s
}

// told is what systemd is told next.
func (s *service) told() string {
	s.notify.SetReadDeadline(time.Now().Add(20 * time.Second))
	b := make([]byte, 4096)
	n, err := s.notify.Read(b)
	if err != nil {
		return err.Error()
	}
	return string(b[:n])
}

// setting is a line of the installed unit; of several of a name the values are joined.
func (r *root) setting(name string) string {
	r.t.Helper()
	b, err := os.ReadFile(r.path("usr/lib/systemd/system/sessfs.service"))
	if err != nil {
		r.t.Fatal(err)
	}
	return setting(string(b), name)
}

func setting(unit, name string) string {
	var values []string
	for l := range strings.Lines(unit) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(l), name+"="); ok {
			values = append(values, v)
		}
	}
	return strings.Join(values, " ")
}

// php runs code as the user of Debian's web servers, with Debian's settings and the session directory they name.
func (r *root) php(code string, args ...string) string {
	r.t.Helper()
	out, _ := r.tryPHP(code, args...)
	return out
}

func (r *root) tryPHP(code string, args ...string) (string, error) {
	all := []string{"setpriv", "--reuid=www-data", "--regid=www-data", "--clear-groups", "php", "-d", "session.save_path=/var/lib/php/sessions",
		"-d", "session.use_cookies=0", "-d", "session.use_only_cookies=0", "-d", "session.cache_limiter=", "-d", "display_errors=stdout", "-r", code, "--"}
	out, err := r.try(append(all, args...)...)
	return strings.TrimSpace(out), err
}

const (
	write = testkit.PHPWrite
	read  = testkit.PHPRead
)

func want(t *testing.T, what, got, wanted string) {
	t.Helper()
	if got != wanted {
		t.Fatalf("%s: got\n%s\nnot\n%s", what, got, wanted)
	}
}
