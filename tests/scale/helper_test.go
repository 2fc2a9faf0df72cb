package scale

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"sessfs/internal/testkit"
)

// The test binary is also the process that locks files: thousands of PHP processes would not fit on a machine. A thread
// that waits in flock(2) is to the daemon what a PHP process is.
const (
	helperVerb = "scale-helper"
	verbHold   = "hold" // locks each of the sessions once, says so, and keeps the locks until its standard input ends
	verbWait   = "wait" // waits for each session's lock in so many threads at once, and gives it up when it has it
)

// locker prepares a helper that does verb on sessions of h, in each of them so many times.
func locker(t *testing.T, h *testkit.Host, verb, name string, sessions, times int) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exec.Command(exe, helperVerb, verb, h.Path("sess_"+name), strconv.Itoa(sessions), strconv.Itoa(times))
}

// helper is the program of a locker.
func helper(args []string) {
	becomeUser()
	switch args[0] {
	case verbOpen:
		n, _ := strconv.Atoi(args[2])
		openMany(args[1], n)
	case verbFlood, verbFloodStrict:
		requests, _ := strconv.Atoi(args[2])
		flood(args[1], requests, args[0] == verbFloodStrict)
	case verbOthers:
		others(args[1])
	}
	sessions, _ := strconv.Atoi(args[2])
	times, _ := strconv.Atoi(args[3])
	var all sync.WaitGroup
	var mu sync.Mutex
	failed := 0
	for i := range sessions * times {
		work := func() {
			if err := lock(fmt.Sprint(args[1], i%sessions), args[0] == verbHold); err != nil {
				mu.Lock()
				defer mu.Unlock()
				fmt.Println(err)
				failed++
			}
		}
		if args[0] == verbWait {
			all.Go(work)
		} else {
			work()
		}
	}
	all.Wait()
	fmt.Printf("%s: %d locks, %d failed\n", args[0], sessions*times, failed)
	if args[0] == verbHold {
		io.Copy(io.Discard, os.Stdin)
	}
	os.Exit(min(failed, 1))
}

func lock(file string, keep bool) error {
	fd, err := unix.Open(file, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("opening: %w", err)
	}
	for {
		if err = unix.Flock(fd, unix.LOCK_EX); err != unix.EINTR {
			break
		}
	}
	if err != nil {
		err = fmt.Errorf("locking: %w", err)
	}
	if !keep {
		unix.Close(fd)
	}
	return err
}

// done is what a locker prints when it has its locks.
func done(verb string, locks int) string { return fmt.Sprintf("%s: %d locks, 0 failed", verb, locks) }
