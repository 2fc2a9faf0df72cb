package testkit

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
)

func lockThread() { runtime.LockOSThread() }

// Main runs a package's tests and fails when they leave a mount or a child process behind. It needs root.
func Main(m *testing.M) {
	if os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "these tests mount filesystems and switch users: run them as root")
		os.Exit(1)
	}
	// A data race ends the daemon; without a race it does not linger a second at its end.
	os.Setenv("GORACE", "halt_on_error=1 atexit_sleep_ms=0")
	mounts := ourMounts()
	code := m.Run()
	for dir := range ourMounts() {
		if !mounts[dir] {
			fmt.Fprintln(os.Stderr, "a mount was left behind:", dir)
			exec.Command("umount", "-l", dir).Run()
			code = 1
		}
	}
	for _, c := range append(children(), daemons()...) {
		fmt.Fprintln(os.Stderr, "a process was left behind:", c)
		code = 1
	}
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	if everywhere.dir != "" {
		os.RemoveAll(everywhere.dir)
	}
	for _, f := range atExit {
		f()
	}
	os.Exit(code)
}

var atExit []func()

// AtExit has Main call f after the tests, for what they all share. It is called before the tests run.
func AtExit(f func()) { atExit = append(atExit, f) }

// ourMounts are the session directories that tests have mounted: other test packages run beside this one, so that only
// those of this process count.
func ourMounts() map[string]bool {
	list := make(map[string]bool)
	b, _ := os.ReadFile("/proc/self/mounts")
	for line := range bytes.Lines(b) {
		f := strings.Fields(string(line))
		if len(f) > 2 && f[2] == "fuse.sessfs" && mine(f[1]) {
			list[f[1]] = true
		}
	}
	return list
}

var (
	mountsMu sync.Mutex
	mounted  = make(map[string]bool)
)

func mine(dir string) bool {
	mountsMu.Lock()
	defer mountsMu.Unlock()
	return mounted[dir]
}

func remember(dir string) {
	mountsMu.Lock()
	defer mountsMu.Unlock()
	mounted[dir] = true
}

func children() (list []string) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, s := range stats {
		b, err := os.ReadFile(s)
		if err != nil {
			continue
		}
		fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(fields) > 1 && fields[1] == strconv.Itoa(os.Getpid()) {
			list = append(list, string(b[:bytes.LastIndexByte(b, ')')+1]))
		}
	}
	return list
}

// daemons are the processes that run the binary under test, whosever children they are by now.
func daemons() (list []string) {
	if built.path == "" {
		return nil
	}
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, l := range links {
		if exe, err := os.Readlink(l); err == nil && strings.HasPrefix(exe, built.dir+"/") {
			list = append(list, exe+" as "+filepath.Base(filepath.Dir(l)))
		}
	}
	return list
}

var built struct {
	sync.Once
	dir, path string
	err       error
}

// CopyBinary puts the binary, as it is, or what replace holds in its place, at path, in one step as packages do.
func CopyBinary(t testing.TB, path string, replace []byte) {
	t.Helper()
	if replace == nil {
		var err error
		if replace, err = os.ReadFile(Binary(t)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path+".new", replace, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// OwnBinary is a copy of the binary that a test may replace.
func OwnBinary(t testing.TB) string {
	t.Helper()
	Binary(t)
	dir, err := os.MkdirTemp(built.dir, "own-")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "sessfs")
	CopyBinary(t, path, nil)
	return path
}

// NoRace makes Binary build sessfs as it is installed: for tests of memory and threads, which are others with the race
// detector. It is set before the tests run.
var NoRace bool

// Binary builds sessfs with the race detector, once for the test process.
func Binary(t testing.TB) string {
	t.Helper()
	built.Do(func() {
		if built.dir, built.err = os.MkdirTemp("/tmp", "sessfs-bin-"); built.err != nil {
			return
		}
		os.Chmod(built.dir, 0o755)
		built.path = filepath.Join(built.dir, "sessfs")
		out, err := exec.Command("go", "build", "-race="+strconv.FormatBool(!NoRace), "-buildvcs=false", "-o", built.path, "sessfs/cmd/sessfs").CombinedOutput()
		if err != nil {
			built.err = fmt.Errorf("building sessfs: %w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.path
}
