// Package lab is the fault laboratory: real memcached servers, several mounts as hosts, PHP workers as load, and faults
// drawn from a seed, one at a time. Between each host and each server stands a proxy. What the workers have noted is
// judged by package history.
//
// One fault at a time is what sessfs promises to survive: after each the laboratory waits until all servers are up, old
// enough to be believed, and have all copies again.
package lab

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sessfs/tests/faults/lab/history"
	"sessfs/tests/faults/lab/proxy"
)

// Plan is what a run is to be.
type Plan struct {
	Seed    uint64
	Time    time.Duration
	Hosts   int
	Servers int           // in use
	Spare   int           // servers beside them, for changes of the list
	Workers int           // of each host
	Pace    time.Duration // between two requests of a worker
	Kills   time.Duration // about so often a PHP worker is killed; 0: never
	Classes []Class       // of faults; none: no faults
	Keep    string        // lock.keep; empty: drawn
	Double  func(host int) proxy.Double
	How     string // something else that the workers do: see worker.php
	Abrupt  bool   // the workers are killed at the end, and what they leave is not looked at
}

const (
	replicas = 2
	timeout  = 400 * time.Millisecond
	lease    = 3 * time.Second
	// What a machine with other things to do adds to a call. A daemon that hangs does so for longer.
	slack = 5 * time.Second
)

// bounds: a call may meet a timeout at each of its two or three steps; a lock that nobody gives back ends with its lease.
var bounds = history.Bounds{Call: 3*timeout + slack, Wait: lease + time.Second + 3*timeout + slack}

// Lab is a run.
type Lab struct {
	t       testing.TB
	plan    Plan
	rnd     *rand.Rand // what is drawn for the faults
	luck    *rand.Rand // and what depends on the time, for the workers
	servers []*server
	list    []int // the numbers of those that are in the list of servers
	hosts   []*host
	load    *load
	history history.History
	report  report
}

// Run makes a run and judges it: it returns what was broken, and prints the report.
func Run(t testing.TB, p Plan) []history.Breach {
	t.Helper()
	l := &Lab{t: t, plan: p, rnd: rand.New(rand.NewPCG(p.Seed, 0)), luck: rand.New(rand.NewPCG(p.Seed, 1))}
	t.Logf("seed %d, %v: %d hosts with %d workers each, %d servers", p.Seed, p.Time, p.Hosts, p.Workers, p.Servers)
	l.build()
	before := l.resources()
	late := watch()
	l.startLoad()
	l.faults()
	var left []history.Breach
	if p.Abrupt {
		l.killLoad()
	} else {
		l.stopLoad()
		l.settle()
		left = l.left(before)
	}
	l.history.Stalls = late.stop()
	l.history.Requests = l.read()
	breaches := append(l.history.Check(bounds), left...)
	breaches = append(breaches, l.report.breaches...)
	t.Log(l.report.text(&l.history, breaches))
	return breaches
}

// now is the time of CLOCK_MONOTONIC, which is PHP's hrtime too.
func now() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // there is no such Linux
	}
	return ts.Nano()
}

// between draws a duration.
func between(r *rand.Rand, from, to time.Duration) time.Duration {
	return from + time.Duration(r.Int64N(int64(to-from)+1))
}

// breach notes one that no checker of the history can see.
func (l *Lab) breach(checker, text string) {
	l.report.breaches = append(l.report.breaches, history.Breach{Checker: checker, Text: text})
}

// lateness watches how late the machine wakes somebody who sleeps.
type lateness struct {
	end  chan struct{}
	done chan []history.Span
}

func watch() *lateness {
	w := &lateness{make(chan struct{}), make(chan []history.Span, 1)}
	go func() {
		const nap, late = 20 * time.Millisecond, 100 * time.Millisecond
		var stalls []history.Span
		for {
			begin := now()
			select {
			case <-w.end:
				w.done <- stalls
				return
			case <-time.After(nap):
			}
			if end := now(); end-begin > int64(nap+late) {
				stalls = append(stalls, history.Span{Begin: begin, End: end})
			}
		}
	}()
	return w
}

func (w *lateness) stop() []history.Span {
	close(w.end)
	return <-w.done
}

// create makes an empty file that a process may write to.
func (l *Lab) create(name string) *os.File {
	l.t.Helper()
	f, err := os.OpenFile(filepath.Join(l.load.dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		l.t.Fatal(err)
	}
	return f
}
