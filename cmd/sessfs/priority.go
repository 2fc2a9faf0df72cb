package main

import (
	"context"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// crowdedNice is the nice value of the daemon while several PHP processes wait for it at a time. Where they and the daemon
// want the same processors, it must come first, or they all wait for each other. With one process it gains nothing by that,
// and the scheduler would sooner part the two, which makes waking the other one dearer.
const crowdedNice = -10

const (
	crowdEvery = 250 * time.Millisecond // how often it is decided
	crowdStart = 2                      // decisions in a row that must find a crowd
	crowdCalm  = 4                      // decisions in a row without one, after which all is as before
)

// crowd decides about the daemon's priority.
type crowd struct {
	found, several uint64 // at the last decision
	raised         bool
	row            int // decisions in a row that speak against what is
}

// decide is told how often the daemon has looked for requests and found some, and how often several. It reports whether
// its priority is to be raised.
func (c *crowd) decide(found, several uint64) bool {
	// Of one process a RELEASE and the next OPEN may meet: that makes 7 to 20 of 100. Eight make 45 to 80.
	now := several > c.several && 100*(several-c.several) > 40*(found-c.found)
	c.found, c.several = found, several
	if now == c.raised {
		c.row = 0
		return c.raised
	}
	c.row++
	if now && c.row >= crowdStart || !now && c.row >= crowdCalm {
		c.raised, c.row = now, 0
	}
	return c.raised
}

// watchCrowd raises the daemon's priority while there is a crowd, until ctx ends. The daemon works without, so what fails
// (a container without CAP_SYS_NICE) is no error.
func watchCrowd(ctx context.Context, figures func() (found, several uint64)) {
	own, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		return
	}
	own = 20 - own // the kernel's answer is 20 less the nice value
	tick := time.NewTicker(crowdEvery)
	defer tick.Stop()
	var c crowd
	for raised := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if want := c.decide(figures()); want != raised {
			raised = want
			if raised {
				setNice(min(own, crowdedNice))
			} else {
				setNice(own)
			}
		}
	}
}

// setNice sets the nice value of all threads of this process; those that are made later inherit it.
func setNice(n int) {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
	}
	for _, t := range tasks {
		if tid, err := strconv.Atoi(t.Name()); err == nil {
			unix.Setpriority(unix.PRIO_PROCESS, tid, n)
		}
	}
}
