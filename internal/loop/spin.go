package loop

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// spinner decides whether to look again instead of sleeping. Being woken takes longer than a request of a PHP process
// that goes straight on to its next system call; where a core is free, looking again for that long is cheaper for
// everybody. It stops itself where it finds nothing, and where other threads want the core.
type spinner struct {
	enabled bool
	start   time.Time // of this spell; zero: none
	last    time.Time // of the last yield, or of the start
	limit   time.Duration
}

const (
	spinMost   = 200 * time.Microsecond
	spinLeast  = 20 * time.Microsecond
	yieldEvery = 10 * time.Microsecond
	// A sched_yield that takes longer has run another thread: the core is wanted.
	yieldBusy = 5 * time.Microsecond
)

func (s *spinner) init() {
	s.enabled = runtime.NumCPU() > 1
	s.limit = spinMost
}

// found is called when looking again has found something.
func (s *spinner) found() {
	s.limit = min(s.limit*2, spinMost)
	s.start = time.Time{}
}

// again tells whether to look (again).
func (s *spinner) again() bool {
	if !s.enabled {
		return false
	}
	now := time.Now()
	if s.start.IsZero() {
		s.start, s.last = now, now
		return true
	}
	stop := now.Sub(s.start) > s.limit
	if !stop && now.Sub(s.last) > yieldEvery {
		unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
		s.last = time.Now()
		stop = s.last.Sub(now) > yieldBusy
	}
	if stop {
		s.limit = max(s.limit/2, spinLeast)
		s.start = time.Time{}
	}
	return !stop
}
