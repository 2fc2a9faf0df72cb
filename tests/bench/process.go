package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a program that runs beside the measurement.
type process struct {
	name string
	cmd  *exec.Cmd
	log  record
	done chan struct{}
	err  error // of Wait, once done is closed
}

// record is what a program says. It is a file in memory, not a pipe: a daemon that outlives this program would die of a
// broken pipe while it unmounts.
type record struct{ file *os.File }

func newRecord() (record, error) {
	fd, err := unix.MemfdCreate("log", unix.MFD_CLOEXEC)
	if err != nil {
		return record{}, fmt.Errorf("a file for a log: %w", err)
	}
	return record{os.NewFile(uintptr(fd), "log")}, nil
}

// String is the last of it.
func (r record) String() string {
	const most = 4096
	info, err := r.file.Stat()
	if err != nil {
		return err.Error()
	}
	b := make([]byte, min(info.Size(), most))
	n, _ := r.file.ReadAt(b, info.Size()-int64(len(b)))
	return strings.TrimSpace(string(b[:n]))
}

// startProcess starts a program that ends with this one, whatever happens to it: with SIGTERM, by which sessfs unmounts.
// It has a process group of its own, so that Ctrl-C reaches this program alone, which then ends all in order.
func startProcess(cmd *exec.Cmd) (*process, error) {
	log, err := newRecord()
	if err != nil {
		return nil, err
	}
	p := &process{name: filepath.Base(cmd.Path), cmd: cmd, log: log, done: make(chan struct{})}
	if cmd.Stdout == nil {
		cmd.Stdout = log.file
	}
	cmd.Stderr = log.file
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	started := make(chan error)
	go func() {
		// Pdeathsig is bound to the thread that starts the child: this goroutine keeps it busy by waiting.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", cmd.Path, err)
	}
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// kill ends it at once and waits for it.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.done
}

// stop ends it with a signal, after ten seconds by force.
func (p *process) stop(s syscall.Signal) error {
	p.cmd.Process.Signal(s)
	select {
	case <-p.done:
		return nil
	case <-time.After(10 * time.Second):
		p.kill()
		return fmt.Errorf("%s (pid %d) did not end within 10 s of signal %d", p.name, p.pid(), s)
	}
}

// until polls cond until it is true; it ends with an error when the process ends or the time is over.
func (p *process) until(ctx context.Context, limit time.Duration, what string, cond func() bool) error {
	end := time.Now().Add(limit)
	for !cond() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.done:
			return fmt.Errorf("%s ended before %s: %v: %s", p.name, what, p.err, p.log.String())
		case <-time.After(2 * time.Millisecond):
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s: not within %v: %s: %s", p.name, limit, what, p.log.String())
		}
	}
	return nil
}

// scope is what was started and has to be ended, in the reverse order.
type scope struct {
	ends []func() error
}

func (s *scope) add(end func() error) { s.ends = append(s.ends, end) }

// close ends everything, whatever fails on the way.
func (s *scope) close() error {
	var all []error
	for len(s.ends) > 0 {
		last := len(s.ends) - 1
		end := s.ends[last]
		s.ends = s.ends[:last]
		all = append(all, end())
	}
	return errors.Join(all...)
}

// leftovers are children and mounts under dir that still exist.
func leftovers(dir string) (left []string) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		if s, err := parseStat(b); err == nil && s.parent == os.Getpid() {
			left = append(left, fmt.Sprintf("process %d (%s)", s.pid, s.name))
		}
	}
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for line := range bytes.Lines(mounts) {
		if f := strings.Fields(string(line)); len(f) > 1 && strings.HasPrefix(f[1], dir+"/") {
			left = append(left, "mount "+f[1])
		}
	}
	return left
}
