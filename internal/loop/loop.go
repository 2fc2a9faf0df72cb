// Package loop is the daemon's event loop: one goroutine that reads /dev/fuse and the pipelined connections, and writes
// what was gathered for them.
//
// The idea: most of what a request costs is waking somebody up. So one goroutine takes all that is ready, from the
// kernel and from the servers; starts a goroutine for each request that must wait; lets these run until they wait; and
// then writes what they left on each connection at once. With one P (GOMAXPROCS=1, see cmd/sessfs) all of this happens
// on one thread, without a futex, and a cache server is woken once for the requests of several PHP processes.
//
// System calls on descriptors of the loop must not block: the descriptors are in non-blocking mode, and the calls are
// raw, so that the scheduler need not know of them.
//
// Order of locks: Loop.mu is taken with no other lock wanted under it. The goroutine is ended by Close.
package loop

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Source is a descriptor that the loop looks after. The loop calls its methods from one goroutine; they must not block.
type Source interface {
	// Poll does what can be done without waiting, a bounded part of it, and tells whether there was anything. Without
	// hint nothing speaks for more than a guess, and Poll may skip a system call that is likely to be in vain.
	Poll(hint bool) bool
	// Flush is called once after Loop.Soon.
	Flush()
	// Tick is called about every TickEvery while the source says that it is waiting for something.
	Tick(now time.Time)
	// Waiting tells whether something is expected that has a time limit.
	Waiting() bool
}

// TickEvery is how precise the time limits of sources are.
const TickEvery = 10 * time.Millisecond

// Loop is made by New.
type Loop struct {
	epoll, wake int // descriptors
	done        chan struct{}
	asleep      atomic.Bool // the goroutine is about to sleep, or sleeps: wake it

	mu      sync.Mutex
	closing bool             // guarded by mu
	sources map[int32]Source // guarded by mu
	soon    []Source         // guarded by mu: to be flushed

	// The loop's own.
	list   []Source // a copy of sources
	stale  atomic.Bool
	flush  []Source
	events [64]unix.EpollEvent
	ticked time.Time
	spin   spinner
}

// New starts a loop.
func New() (*Loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("making an event loop: epoll_create1: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(epoll)
		return nil, fmt.Errorf("making an event loop: eventfd: %w", err)
	}
	l := &Loop{epoll: epoll, wake: wake, done: make(chan struct{}), sources: make(map[int32]Source)}
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, wake, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(wake)}); err != nil {
		unix.Close(epoll)
		unix.Close(wake)
		return nil, fmt.Errorf("making an event loop: epoll_ctl: %w", err)
	}
	l.spin.init()
	go l.run()
	return l, nil
}

// Close ends the loop's goroutine. Sources that were not removed are not looked after any more.
func (l *Loop) Close() {
	l.mu.Lock()
	l.closing = true
	l.mu.Unlock()
	l.kick()
	<-l.done
}

// Add has the loop look after a descriptor, which must be in non-blocking mode.
func (l *Loop) Add(fd int, s Source) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	l.sources[int32(fd)] = s
	l.stale.Store(true)
	l.kick()
	return nil
}

// Writable says whether the source is also to be polled when fd can be written to.
func (l *Loop) Writable(fd int, on bool) {
	e := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
	if on {
		e.Events |= unix.EPOLLOUT
	}
	unix.EpollCtl(l.epoll, unix.EPOLL_CTL_MOD, fd, &e) // fails only for a descriptor that is gone
}

// Remove is called by the source itself, from the loop, before it closes fd.
func (l *Loop) Remove(fd int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.sources, int32(fd))
	l.stale.Store(true)
	unix.EpollCtl(l.epoll, unix.EPOLL_CTL_DEL, fd, nil)
}

// Soon has the loop call s.Flush after the goroutines that can run now have run. It does not block.
func (l *Loop) Soon(s Source) {
	l.mu.Lock()
	l.soon = append(l.soon, s)
	l.mu.Unlock()
	l.kick()
}

// kick wakes the loop where it sleeps.
func (l *Loop) kick() {
	if l.asleep.CompareAndSwap(true, false) {
		one := [8]byte{1}
		rawWrite(l.wake, one[:])
	}
}

// run serves until Close.
func (l *Loop) run() {
	defer close(l.done)
	defer unix.Close(l.epoll)
	defer unix.Close(l.wake)
	found := false
	for {
		if l.stale.Swap(false) && !l.copySources() {
			return
		}
		for _, s := range l.list {
			found = s.Poll(false) || found
		}
		if found {
			runtime.Gosched() // with one P: until all goroutines wait for something
		}
		found = l.flushSoon() || found
		if found {
			found = false
			l.spin.found()
			l.tick(false)
			continue
		}
		if l.spin.again() {
			continue
		}
		var more bool
		if found, more = l.sleep(); !more {
			return
		}
	}
}

func (l *Loop) copySources() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.list)
	l.list = l.list[:0]
	for _, s := range l.sources {
		l.list = append(l.list, s)
	}
	return !l.closing
}

func (l *Loop) flushSoon() bool {
	l.mu.Lock()
	l.flush, l.soon = l.soon, l.flush[:0]
	l.mu.Unlock()
	for _, s := range l.flush {
		s.Flush()
	}
	clear(l.flush)
	return len(l.flush) > 0
}

// tick lets sources look at their time limits.
func (l *Loop) tick(sure bool) {
	now := time.Now()
	if !sure && now.Sub(l.ticked) < TickEvery {
		return
	}
	l.ticked = now
	for _, s := range l.list {
		s.Tick(now)
	}
}

// sleep waits for events and hands them to their sources. It tells whether there were any; not more: the loop is to end.
func (l *Loop) sleep() (found, more bool) {
	l.asleep.Store(true)
	l.mu.Lock()
	closing, work := l.closing, len(l.soon) > 0 || l.stale.Load()
	l.mu.Unlock()
	if closing || work {
		l.asleep.Store(false)
		return false, !closing
	}
	limit := -1
	for _, s := range l.list {
		if s.Waiting() {
			limit = int(TickEvery / time.Millisecond)
		}
	}
	n := l.wait(limit)
	l.asleep.Store(false)
	if limit >= 0 {
		l.tick(n == 0)
	}
	for _, e := range l.events[:n] {
		if int(e.Fd) == l.wake {
			var b [8]byte
			rawRead(l.wake, b[:])
			continue
		}
		l.mu.Lock()
		s := l.sources[e.Fd]
		l.mu.Unlock()
		if s != nil {
			found = s.Poll(true) || found
		}
	}
	return found, true
}

// wait is epoll_wait with a limit in milliseconds, -1 for none. For the first moment it holds its P: under load the
// next event is near, and giving the P up would wake the scheduler's monitor for nothing.
func (l *Loop) wait(limit int) int {
	if n := epollWait(l.epoll, l.events[:], 1); n != 0 {
		return max(n, 0)
	}
	for {
		n, err := unix.EpollWait(l.epoll, l.events[:], limit)
		if err == unix.EINTR {
			continue
		}
		return max(n, 0)
	}
}
