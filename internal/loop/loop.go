// Package loop is the daemon's event loops: goroutines that read /dev/fuse and the pipelined connections, and write what
// was gathered for them.
//
// The idea: most of what a request costs is waking somebody up. So a loop takes all that is ready, from the kernel and
// from the servers; hands each request that must wait to a goroutine; lets these run until they wait; and then writes
// what they left on each connection at once. With as many loops as Ps (GOMAXPROCS, see cmd/sessfs) a loop and the
// goroutines that it started share a thread and are switched without a futex, and a cache server is woken once for the
// requests of several PHP processes.
//
// System calls on descriptors of a loop must not block: the descriptors are in non-blocking mode, and the calls are
// raw, so that the scheduler need not know of them.
//
// Order of locks: Loop.mu, then Group.mu; no other lock is wanted under them. Callers may hold theirs. The goroutines are ended by Close.
package loop

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Source is a descriptor that a loop looks after. Poll and End are called by its loop alone, the others by any loop of
// the group. None may block.
type Source interface {
	// Poll is called when the descriptor is ready, and again as long as it is. It does a bounded part of what can be
	// done without waiting, and tells whether there was anything.
	Poll() bool
	// Flush is called after Group.Soon.
	Flush()
	// End is called after Loop.End.
	End()
	// Tick is called about every TickEvery while the source says that it is waiting for something.
	Tick(now time.Time)
	// Waiting tells whether something is expected that has a time limit.
	Waiting() bool
}

// TickEvery is how precise the time limits of sources are.
const TickEvery = 10 * time.Millisecond

// Group is some loops that share what is to be flushed.
type Group struct {
	loops []*Loop

	mu    sync.Mutex
	soon  []Source                 // guarded by mu: to be flushed
	later []Source                 // guarded by mu: to be flushed with something else, or when there is time
	all   atomic.Pointer[[]Source] // of all loops; replaced under mu
}

// Loop is one of a Group.
type Loop struct {
	group       *Group
	epoll, wake int // descriptors
	done        chan struct{}
	asleep      atomic.Bool // the goroutine is about to sleep, or sleeps: wake it
	stale       atomic.Bool // sources or ending changed
	rounds      atomic.Uint64

	mu      sync.Mutex
	closing bool             // guarded by mu
	sources map[int32]Source // guarded by mu
	ending  []Source         // guarded by mu

	// The loop's own.
	flush  []Source
	events [64]unix.EpollEvent
	ticked time.Time
	spin   spinner
}

// New starts a group of n loops.
func New(n int) (*Group, error) {
	g := &Group{}
	g.all.Store(new([]Source))
	for range n {
		l, err := newLoop(g)
		if err != nil {
			g.Close()
			return nil, fmt.Errorf("making an event loop: %w", err)
		}
		g.loops = append(g.loops, l)
		go l.run()
	}
	return g, nil
}

func newLoop(g *Group) (*Loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(epoll)
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	l := &Loop{group: g, epoll: epoll, wake: wake, done: make(chan struct{}), sources: make(map[int32]Source)}
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, wake, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(wake)}); err != nil {
		unix.Close(epoll)
		unix.Close(wake)
		return nil, fmt.Errorf("epoll_ctl: %w", err)
	}
	l.spin.init()
	return l, nil
}

// Close ends the goroutines. Sources that were not removed are not looked after any more.
func (g *Group) Close() {
	for _, l := range g.loops {
		l.mu.Lock()
		l.closing = true
		l.mu.Unlock()
		l.changed()
	}
	for _, l := range g.loops {
		<-l.done
	}
}

// Loops returns the loops of the group.
func (g *Group) Loops() []*Loop { return g.loops }

// Soon has a loop call s.Flush after the goroutines that can run now have run. It does not block.
func (g *Group) Soon(s Source) {
	g.mu.Lock()
	g.soon = append(g.soon, s)
	g.mu.Unlock()
	g.wakeOne()
}

// Later is Soon for what nobody waits for: it goes out with the next thing that is flushed on that source, or when a loop
// has had nothing to do for a moment. Both spare a system call here and the other side a wake-up.
func (g *Group) Later(s Source) {
	g.mu.Lock()
	g.later = append(g.later, s)
	first := len(g.later) == 1
	g.mu.Unlock()
	if first {
		g.wakeOne()
	}
}

// wakeOne sees that one loop is awake.
func (g *Group) wakeOne() {
	for _, l := range g.loops {
		if !l.asleep.Load() {
			return // it looks before it sleeps
		}
	}
	g.loops[0].kick()
}

// Add has the loop look after a descriptor, which must be in non-blocking mode. One that is shared may be added to
// several loops, of which one is woken.
func (l *Loop) Add(fd int, s Source, shared bool) error {
	e := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
	if shared {
		e.Events |= unix.EPOLLEXCLUSIVE
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &e); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	l.sources[int32(fd)] = s
	l.group.note(s, true)
	l.changed()
	return nil
}

// note keeps the list of all sources.
func (g *Group) note(s Source, add bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var next []Source
	for _, x := range *g.all.Load() {
		if x != s {
			next = append(next, x)
		}
	}
	if add {
		next = append(next, s)
	}
	g.all.Store(&next)
}

// Writable says whether the source is also to be polled when fd can be written to.
func (l *Loop) Writable(fd int, on bool) {
	e := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
	if on {
		e.Events |= unix.EPOLLOUT
	}
	unix.EpollCtl(l.epoll, unix.EPOLL_CTL_MOD, fd, &e) // fails only for a descriptor that is gone
}

// Remove is called by the source itself, from its loop, before it closes fd.
func (l *Loop) Remove(fd int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.group.note(l.sources[int32(fd)], false)
	delete(l.sources, int32(fd))
	l.stale.Store(true)
	unix.EpollCtl(l.epoll, unix.EPOLL_CTL_DEL, fd, nil)
}

// Rounds is how often the loop has looked at what was ready. After two more it has looked at all that was ready before.
func (l *Loop) Rounds() uint64 { return l.rounds.Load() }

// End has the loop call s.End. It does not block.
func (l *Loop) End(s Source) {
	l.mu.Lock()
	l.ending = append(l.ending, s)
	l.mu.Unlock()
	l.changed()
}

func (l *Loop) changed() {
	l.stale.Store(true)
	l.kick()
}

// kick wakes the loop where it sleeps.
func (l *Loop) kick() {
	if l.asleep.CompareAndSwap(true, false) {
		one := [8]byte{1}
		Write(l.wake, one[:])
	}
}

// run serves until Close.
func (l *Loop) run() {
	defer close(l.done)
	defer unix.Close(l.epoll)
	defer unix.Close(l.wake)
	for {
		if l.stale.Swap(false) && !l.change() {
			return
		}
		found := l.poll(l.wait())
		l.rounds.Add(1)
		if found {
			yield()
		}
		l.flushAll(&l.group.soon)
		l.tick()
	}
}

// yield lets the goroutines that can run do so: with as many Ps as loops, until all of them wait for something. Once is
// not enough: one time in 61 the scheduler takes from the global queue first, which is where Gosched puts the caller. A
// goroutine that was passed over so would wait until the scheduler's monitor takes the P from the sleeping loop, 10 ms
// and more.
func yield() {
	runtime.Gosched()
	runtime.Gosched()
}

// poll hands events to their sources. It tells whether one of them found anything.
func (l *Loop) poll(n int) (found bool) {
	for i := range n {
		fd := l.events[i].Fd
		if int(fd) == l.wake {
			var b [8]byte
			Read(l.wake, b[:])
			continue
		}
		if s := l.source(fd); s != nil {
			found = s.Poll() || found
		}
	}
	return found
}

func (l *Loop) source(fd int32) Source {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sources[fd]
}

// change takes over what other goroutines asked for. It reports false when the loop is to end.
func (l *Loop) change() bool {
	l.mu.Lock()
	ending := l.ending
	l.ending = nil
	l.mu.Unlock()
	for _, s := range ending {
		s.End()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.closing
}

// flushAll flushes what stands in one of the group's lists.
func (l *Loop) flushAll(list *[]Source) {
	l.group.mu.Lock()
	l.flush, *list = *list, l.flush[:0]
	l.group.mu.Unlock()
	for _, s := range l.flush {
		s.Flush()
	}
	clear(l.flush)
}

// tick lets sources look at their time limits, every now and then.
func (l *Loop) tick() {
	now := time.Now()
	if now.Sub(l.ticked) < TickEvery {
		return
	}
	l.ticked = now
	l.flushAll(&l.group.later)
	for _, s := range *l.group.all.Load() {
		s.Tick(now)
	}
}

// moment is how long a loop waits with its P. Under load the next event comes within it; timers of goroutines may be as
// late as this.
const moment = 250 * time.Microsecond

// wait returns the number of events, which it waits for: looking again and again where that pays, then sleeping with
// the P, then without it. To give the P up wakes the scheduler's monitor and costs more than the call. It returns 0 when
// something else is to be done.
func (l *Loop) wait() int {
	for l.spin.again() {
		if n := epollWait(l.epoll, l.events[:], 0); n > 0 {
			l.spin.found()
			return n
		}
		if l.stale.Load() || l.group.pending() {
			return 0
		}
	}
	l.asleep.Store(true)
	defer l.asleep.Store(false)
	if l.stale.Load() || l.group.pending() { // asked for before it was known that this sleeps
		return 0
	}
	if n := epollWait(l.epoll, l.events[:], moment); n > 0 {
		return n
	}
	l.flushAll(&l.group.later) // there is time for it
	yield()
	if l.stale.Load() || l.group.pending() {
		return 0
	}
	limit := -1
	for _, s := range *l.group.all.Load() {
		if s.Waiting() {
			limit = int(TickEvery / time.Millisecond)
		}
	}
	n, err := unix.EpollWait(l.epoll, l.events[:], limit)
	if err != nil { // EINTR
		return 0
	}
	return n
}

// pending tells whether something is to be flushed soon.
func (g *Group) pending() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.soon) > 0
}
