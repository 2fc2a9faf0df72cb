// Package confine takes from sessfs's own processes what they do not need: capabilities, the way to new ones, system
// calls, core dumps. It needs no systemd, and works the same with it.
//
// Capabilities belong to threads, and a Go program has many before its first line runs. So they are taken from one thread,
// which then becomes the program (Self) or starts it (Start): exec hands on what that thread has, and with no_new_privs
// nothing more.
package confine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// Set is a set of capabilities.
type Set uint64

// Of makes a Set of numbers (unix.CAP_…).
func Of(capabilities ...int) (s Set) {
	for _, c := range capabilities {
		s |= 1 << c
	}
	return s
}

// Self makes this process one that has no more than these capabilities, and never gets more: it executes its own binary
// once more, with the same arguments, where it is not such a process yet.
func Self(keep Set) error {
	within, err := confined(keep)
	if err != nil || within {
		return err
	}
	binary, err := os.Executable()
	if err != nil {
		return err
	}
	return onThread(func() error {
		if err := limit(keep); err != nil {
			return err
		}
		return fmt.Errorf("executing %s with fewer rights: %w", binary, unix.Exec(binary, os.Args, os.Environ()))
	})
}

// Start is cmd.Start, with no more than these capabilities for the command and its children.
func Start(cmd *exec.Cmd, keep Set) error {
	return onThread(func() error {
		if err := limit(keep); err != nil {
			return err
		}
		return cmd.Start()
	})
}

// onThread calls f on a thread that ends with it. It is never the process's first one, which would stay.
func onThread(f func() error) error {
	done := make(chan error, 1)
	var run func()
	run = func() {
		runtime.LockOSThread() // a goroutine that ends locked ends its thread
		if unix.Gettid() != unix.Getpid() {
			done <- f()
			return
		}
		other := make(chan struct{})
		go func() {
			defer close(other)
			run()
		}()
		<-other
		runtime.UnlockOSThread()
	}
	go run()
	return <-done
}

// confined tells whether the calling thread, and with it a process that Self has made, has no more than keep.
func confined(keep Set) (bool, error) {
	_, data, err := sets()
	if err != nil {
		return false, err
	}
	none, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	if err != nil {
		return false, fmt.Errorf("prctl(PR_GET_NO_NEW_PRIVS): %w", err)
	}
	return none == 1 && permitted(data)&^keep == 0, nil
}

// limit takes from the calling thread all but keep.
func limit(keep Set) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl(PR_SET_NO_NEW_PRIVS): %w", err)
	}
	// EINVAL: a kernel that has no such set (4.2), or no capability of that number and above.
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("prctl(PR_CAP_AMBIENT): %w", err)
	}
	for c := range 64 {
		if keep&(1<<c) != 0 {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			break
		}
		if err != nil && !errors.Is(err, unix.EPERM) { // who may not take it from this set has it taken by no_new_privs
			return fmt.Errorf("prctl(PR_CAPBSET_DROP): %w", err)
		}
	}
	header, data, err := sets()
	if err != nil {
		return err
	}
	have := permitted(data) & keep
	for i := range data {
		half := uint32(have >> (32 * i))
		data[i] = unix.CapUserData{Effective: half, Permitted: half}
	}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	return nil
}

// sets are the calling thread's.
func sets() (h unix.CapUserHeader, data [2]unix.CapUserData, err error) {
	h = unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&h, &data[0]); err != nil {
		return h, data, fmt.Errorf("capget: %w", err)
	}
	return h, data, nil
}

func permitted(data [2]unix.CapUserData) Set {
	return Set(data[0].Permitted) | Set(data[1].Permitted)<<32
}

// Has tells whether this process may use a capability.
func Has(capability int) bool {
	_, data, err := sets()
	return err == nil && permitted(data)&(1<<capability) != 0
}

// NoCore sees that no core is ever written of this process and its children: it would hold sessions and keys. The limit
// alone is not asked where cores go to a program.
func NoCore() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("setrlimit(RLIMIT_CORE): %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl(PR_SET_DUMPABLE): %w", err)
	}
	return nil
}
