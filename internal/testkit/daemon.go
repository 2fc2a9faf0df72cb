package testkit

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"sessfs/internal/testkit/proc"
)

// Daemon is the daemon of a Host, with its keeper. As a Process it is the keeper: that is what is started, told to end,
// and waited for.
type Daemon struct {
	*Process
	kills int // of the daemon alone
}

// PID is the process id of the daemon that serves the mount now; 0: none does.
func (d *Daemon) PID() int { return proc.Child(d.Process.PID()) }

// Kill ends keeper and daemon with SIGKILL, as when the host dies; the mount is dead then.
func (d *Daemon) Kill() {
	child := d.PID()
	d.Signal(syscall.SIGKILL)
	defer d.Process.Kill() // waits; the daemon has its output open
	if child == 0 {
		return
	}
	for end := time.Now().Add(10 * time.Second); proc.Child(d.Process.PID()) == child && time.Now().Before(end); {
		time.Sleep(time.Millisecond) // a keeper that lives would start another
	}
	// It is an orphan now: this process may not wait for it.
	syscall.Kill(child, syscall.SIGKILL)
	for end := time.Now().Add(10 * time.Second); alive(child) && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
}

func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	s := string(b)
	return !strings.HasPrefix(s[strings.LastIndexByte(s, ')')+1:], " Z")
}

// Stop ends keeper and daemon with SIGTERM. Where that does not happen within ten seconds it has them say what they do, in
// Output, and kills them.
func (d *Daemon) Stop() error {
	d.Signal(syscall.SIGTERM)
	select {
	case <-d.Done():
		return d.err
	case <-time.After(10 * time.Second):
	}
	if child := d.PID(); child != 0 {
		syscall.Kill(child, syscall.SIGQUIT)
		time.Sleep(2 * time.Second)
	}
	d.Signal(syscall.SIGQUIT)
	time.Sleep(time.Second)
	d.Kill()
	return errors.New("did not end within 10 s of SIGTERM")
}

// KillDaemon ends the daemon with SIGKILL; its keeper starts another, which goes on under the same mount.
func (d *Daemon) KillDaemon() {
	if child := d.PID(); child != 0 {
		d.kills++
		syscall.Kill(child, syscall.SIGKILL)
	}
}

// Expect says that the daemon alone was killed so often more by other means.
func (d *Daemon) Expect(kills int) { d.kills += kills }

// Freeze stops the daemon with SIGSTOP and returns when it stands still.
func (d *Daemon) Freeze(t testing.TB) {
	t.Helper()
	child := d.PID()
	syscall.Kill(child, syscall.SIGSTOP)
	Until(t, 10*time.Second, "the daemon is stopped", func() bool { return Stopped(child) })
}

// Thaw lets it go on.
func (d *Daemon) Thaw() { syscall.Kill(d.PID(), syscall.SIGCONT) }
