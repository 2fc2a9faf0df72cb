// Package testkit runs the real things for tests: the sessfs binary, memcached, PHP, php-fpm and nginx. Everything it
// starts is ended by its own process id when the test ends; a tool that is missing fails the test.
package testkit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Process is a program that runs beside the test.
type Process struct {
	Name string
	cmd  *exec.Cmd
	out  lockedBuffer
	done chan struct{}
	err  error // of Wait, once done is closed
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Start runs a program until the test ends. It dies with the test process.
func Start(t testing.TB, name string, args ...string) *Process {
	t.Helper()
	return StartCmd(t, exec.Command(name, args...))
}

// StartCmd is Start for a prepared command.
func StartCmd(t testing.TB, cmd *exec.Cmd) *Process {
	t.Helper()
	p := start(t, cmd)
	t.Cleanup(p.Kill)
	return p
}

// start leaves the end to the caller.
func start(t testing.TB, cmd *exec.Cmd) *Process {
	t.Helper()
	p := &Process{Name: filepath.Base(cmd.Path), cmd: cmd, done: make(chan struct{})}
	if cmd.Stdout == nil {
		cmd.Stdout = &p.out
	}
	cmd.Stderr = &p.out
	cmd.WaitDelay = 5 * time.Second // a child of its own may still hold the pipe
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	started := make(chan error)
	go func() {
		// Pdeathsig is bound to the thread that starts the child: this goroutine keeps it busy by waiting.
		lockThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		t.Fatalf("starting %s: %v", cmd.Path, err)
	}
	return p
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Output is what it has printed so far.
func (p *Process) Output() string { return p.out.String() }

// Signal sends a signal.
func (p *Process) Signal(s syscall.Signal) error { return p.cmd.Process.Signal(s) }

// Freeze stops the process with SIGSTOP and returns when it stands still: all its threads go on until one of them has
// taken the signal, which may last on a busy machine.
func (p *Process) Freeze(t testing.TB) {
	t.Helper()
	p.Signal(syscall.SIGSTOP)
	Until(t, 10*time.Second, p.Name+" is stopped", func() bool { return Stopped(p.PID()) })
}

// Thaw lets it go on.
func (p *Process) Thaw() { p.Signal(syscall.SIGCONT) }

// Stopped tells whether all threads of a process are stopped.
func Stopped(pid int) bool {
	stats, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, s := range stats {
		b, err := os.ReadFile(s)
		if err != nil || !bytes.HasPrefix(b[bytes.LastIndexByte(b, ')')+1:], []byte(" T")) {
			return false
		}
	}
	return len(stats) > 0
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Kill ends it with SIGKILL and waits for it.
func (p *Process) Kill() {
	p.cmd.Process.Kill()
	<-p.done
}

// Stop ends it with SIGTERM, after ten seconds with SIGKILL, and returns how it ended.
func (p *Process) Stop() error {
	p.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		p.Kill()
		return errors.New("did not end within 10 s of SIGTERM")
	}
	return p.err
}

// Wait waits for the end, at most for d.
func (p *Process) Wait(t testing.TB, d time.Duration) error {
	t.Helper()
	select {
	case <-p.done:
		return p.err
	case <-time.After(d):
		t.Fatalf("%s (pid %d) still runs after %v; output:\n%s", p.Name, p.PID(), d, p.Output())
		return nil
	}
}

// ExitCode of a command's error; 0 for nil, -1 for a signal.
func ExitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	return -1
}

// Run runs a command to its end, for a minute at most, and returns its output and exit code.
func Run(t testing.TB, name string, args ...string) (string, int) {
	t.Helper()
	ctx, end := context.WithTimeout(context.Background(), time.Minute)
	defer end()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil && ExitCode(err) == -1 && ctx.Err() == nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	if ctx.Err() != nil {
		t.Fatalf("%s %s did not end within a minute; output:\n%s", name, strings.Join(args, " "), out)
	}
	return string(out), ExitCode(err)
}

// MustRun is Run for a command that must succeed.
func MustRun(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, code := Run(t, name, args...)
	if code != 0 {
		t.Fatalf("%s %s: exit %d\n%s", name, strings.Join(args, " "), code, out)
	}
	return out
}

// Until polls cond until it is true, for d at most.
func Until(t testing.TB, d time.Duration, what string, cond func() bool) {
	t.Helper()
	end := time.Now().Add(d)
	for !cond() {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", d, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// FreePort returns a port of 127.0.0.1 that nobody listens on.
func FreePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// Dir returns a directory that every user may enter, removed when the test ends. (testing's TempDir lies under a
// directory of mode 0700 for other users.)
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "sessfs-test-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("cleaning up: %v", err)
		}
	})
	return dir
}

// ReplaceFile is WriteFile for a file that somebody watches: it is never seen half written.
func ReplaceFile(t testing.TB, path, format string, args ...any) {
	t.Helper()
	if err := os.Rename(WriteFile(t, path+".new", format, args...), path); err != nil {
		t.Fatal(err)
	}
}

// WriteFile writes a file that every user may read.
func WriteFile(t testing.TB, path, format string, args ...any) string {
	t.Helper()
	text := format
	if len(args) > 0 {
		text = fmt.Sprintf(format, args...)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}
