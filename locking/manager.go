// Package locking decides who may hold a session. It implements sessfs.Store over a sessfs.Backend.
//
// Two levels: a lease, which this host has or has not, excludes other hosts; a queue orders the claims (open file
// descriptions) of this host that share the lease. A lease that OPEN won belongs to the host: whichever claim asks for
// the lock first gets it, and the lease goes back when nobody has asked for a moment, when the last user is done, or
// after some hand-overs, so that other hosts get their turn.
//
// Order of locks: shard.mu is the only one here. Of the Backend only Unlock, which does not wait, is called under it.
// Goroutines: the keeper and the waits and renewals it starts; Close ends them all.
package locking

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"sessfs"
)

// Options of a Manager. Zero values of the tuning fields mean their defaults.
type Options struct {
	Host, Boot string // of the holder that other hosts see
	Settings
	Log *slog.Logger

	HandOvers int           // local hand-overs before the lease goes back to the servers; default 8
	Hold      time.Duration // the same as a time; default 50 ms
	Unasked   time.Duration // how long a lease that OPEN won is kept for a claim that does not ask; default 100 ms
	PollMin   time.Duration // shortest interval of a wait for another host; default 1 ms
	PollMax   time.Duration // longest interval; default 25 ms
	Yield     time.Duration // how long a lock that was just given back is left to other hosts; default 3 ms
	WarnAfter time.Duration // a wait longer than this is logged; default 5 s
}

// Settings may change at any time, for waits and leases that begin then.
type Settings struct {
	Lease time.Duration // life of a lease that is not renewed
	Wait  time.Duration // longest wait for a lock; 0: as long as it takes
}

// fresh is for how long an opener that will ask for the lock is shown, without a round trip, what this host read or
// stored under its lease.
const fresh = 20 * time.Millisecond

const shards = 64

// Manager implements sessfs.Store.
type Manager struct {
	b        sessfs.Backend
	opts     Options
	settings atomic.Pointer[Settings]
	seed     maphash.Seed
	shards   [shards]shard
	counters counters

	leases  atomic.Int64  // that the keeper must look after, and absent waiters
	wake    chan struct{} // capacity 1: leases is not 0 any more
	ctx     context.Context
	end     context.CancelFunc
	running sync.WaitGroup
}

type shard struct {
	mu      sync.Mutex
	entries map[sessfs.ID]*entry // guarded by mu, with all that is in them
}

// entry is a session that has claims here. Guarded by its shard's mu.
type entry struct {
	id    sessfs.ID
	shard *shard
	refs  int // claims, attempts and renewals
	queue queue

	lease     *sessfs.Lease // nil: this host has none
	leasedAt  int64         // Boottime
	renewAt   int64
	renewing  bool
	acquiring bool // an attempt to get the lease is under way, or a wait for it
	handOvers int
	unasked   int64 // until when the lease stays for an opener that has not asked

	// current is what was last read or stored under this lease, at asked (Boottime); sure while nothing speaks against it.
	current   *sessfs.Session
	asked     int64
	sure      bool
	committed bool // the present holder has stored
}

var _ sessfs.Store = (*Manager)(nil)

// New makes a Manager. Close ends it.
func New(b sessfs.Backend, o Options) *Manager {
	setDefault(&o.HandOvers, 8)
	setDefault(&o.Hold, 50*time.Millisecond)
	setDefault(&o.Unasked, 100*time.Millisecond)
	setDefault(&o.PollMin, time.Millisecond)
	setDefault(&o.PollMax, 25*time.Millisecond)
	setDefault(&o.Yield, 3*time.Millisecond)
	setDefault(&o.WarnAfter, 5*time.Second)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	m := &Manager{b: b, opts: o, seed: maphash.MakeSeed(), wake: make(chan struct{}, 1)}
	m.ctx, m.end = context.WithCancel(context.Background())
	s := o.Settings
	m.settings.Store(&s)
	for i := range m.shards {
		m.shards[i].entries = make(map[sessfs.ID]*entry)
	}
	m.running.Add(1)
	go m.keep()
	return m
}

func setDefault[T int | time.Duration](p *T, v T) {
	if *p == 0 {
		*p = v
	}
}

// Reconfigure changes the settings.
func (m *Manager) Reconfigure(s Settings) { m.settings.Store(&s) }

// Close ends all waits (with ErrClosed) and gives the leases back. Claims that are still open fail from now on.
func (m *Manager) Close() {
	m.end()
	m.running.Wait()
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		for _, e := range s.entries {
			m.failWaiters(e, sessfs.ErrClosed)
			for _, c := range e.queue.holders {
				c.poison(sessfs.ErrClosed)
			}
			e.queue.holders = nil
			m.giveBack(e)
		}
		s.mu.Unlock()
	}
}

func (m *Manager) shard(id sessfs.ID) *shard {
	return &m.shards[maphash.String(m.seed, string(id))%shards]
}

// use returns the entry of id, made if need be, with one more reference. The caller holds s.mu.
func (s *shard) use(id sessfs.ID) *entry {
	e := s.entries[id]
	if e == nil {
		e = &entry{id: id, shard: s}
		s.entries[id] = e
	}
	e.refs++
	return e
}

// done ends one use of e. The caller holds e.shard.mu.
func (e *entry) done() {
	if e.refs--; e.refs == 0 && e.lease == nil {
		delete(e.shard.entries, e.id)
	}
}

func (m *Manager) holder(pid uint32) sessfs.Holder {
	return sessfs.Holder{Host: m.opts.Host, Boot: m.opts.Boot, PID: pid, Since: time.Now()}
}

// Open implements sessfs.Store.
func (m *Manager) Open(ctx context.Context, id sessfs.ID, intent bool, pid uint32) (sessfs.Claim, *sessfs.Session, error) {
	s := m.shard(id)
	s.mu.Lock()
	e := s.use(id)
	c := &claim{m: m, e: e, pid: pid}
	try := intent && e.lease == nil && !e.acquiring && !e.queue.waiting()
	if intent {
		// A lease that is here stays for this opener, who will ask for the lock.
		e.unasked = sessfs.Boottime() + int64(m.opts.Unasked)
	}
	e.acquiring = e.acquiring || try
	now := sessfs.Boottime()
	if intent && e.standing() && e.sure && now-e.asked < int64(fresh) {
		// Somebody here has the lock and has just read or stored: what it leaves behind comes with the lock.
		defer s.mu.Unlock()
		c.seen = e.current
		m.counters.claims.Add(1)
		return c, e.current, nil
	}
	s.mu.Unlock()

	var lease *sessfs.Lease
	var v *sessfs.Session
	var err error
	if try {
		lease, v, err = m.b.TryLock(ctx, id, m.holder(pid))
	} else {
		v, err = m.b.Read(ctx, id)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if try {
		e.acquiring = false
		if lease != nil {
			m.adopt(e, lease, v, now)
			e.unasked = sessfs.Boottime() + int64(m.opts.Unasked)
			c.seen = v
		}
		m.settle(e)
	}
	if err != nil {
		e.done()
		return nil, nil, fmt.Errorf("opening session %s: %w", id.Hash(), err)
	}
	m.counters.claims.Add(1)
	return c, v, nil
}

// Read implements sessfs.Store.
func (m *Manager) Read(ctx context.Context, id sessfs.ID) (*sessfs.Session, error) {
	v, err := m.b.Read(ctx, id)
	if err != nil {
		return nil, err
	}
	s := m.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[id]; e != nil && e.current != nil && e.current.Version != v.Version {
		e.sure = false
	}
	return v, nil
}

// Commit implements sessfs.Store.
func (m *Manager) Commit(ctx context.Context, id sessfs.ID, base *sessfs.Session, attr sessfs.Attr, data []byte) (*sessfs.Session, error) {
	s := m.shard(id)
	s.mu.Lock()
	e := s.use(id)
	lease := e.lease
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		e.done()
		s.mu.Unlock()
	}()
	if lease == nil {
		own, _, err := m.b.TryLock(ctx, id, m.holder(0))
		if err != nil {
			return nil, err
		}
		if own == nil {
			return nil, fmt.Errorf("changing session %s: %w", id.Hash(), sessfs.ErrLocked)
		}
		defer m.b.Unlock(own)
		return m.count(m.b.Commit(ctx, id, base, attr, data, own))
	}
	asked := sessfs.Boottime()
	v, err := m.count(m.b.Commit(ctx, id, base, attr, data, lease))
	s.mu.Lock()
	defer s.mu.Unlock()
	m.committed(e, lease, v, asked, err)
	return v, err
}

func (m *Manager) count(v *sessfs.Session, err error) (*sessfs.Session, error) {
	switch {
	case err == nil:
		m.counters.commits.Add(1)
	case errors.Is(err, sessfs.ErrConflict):
		m.counters.conflicts.Add(1)
	}
	return v, err
}

// committed notes what a commit under lease, sent at asked, brought. The caller holds the shard's mu.
func (m *Manager) committed(e *entry, lease *sessfs.Lease, v *sessfs.Session, asked int64, err error) {
	if lease == nil || e.lease != lease {
		return
	}
	switch {
	case err == nil:
		e.current, e.asked, e.sure = v, asked, true
	case errors.Is(err, sessfs.ErrLockLost):
		m.lose(e, err)
	default:
		e.sure = false
	}
}

// Destroy implements sessfs.Store.
func (m *Manager) Destroy(ctx context.Context, id sessfs.ID) (bool, error) {
	existed, err := m.b.Destroy(ctx, id)
	s := m.shard(id)
	s.mu.Lock()
	if e := s.entries[id]; e != nil {
		e.sure, e.committed = false, false
	}
	s.mu.Unlock()
	return existed, err
}

// List implements sessfs.Store.
func (m *Manager) List(ctx context.Context, fn func(sessfs.Entry) error) error {
	return m.b.List(ctx, func(e sessfs.Entry) error {
		if e.State != sessfs.Live {
			return nil
		}
		return fn(e)
	})
}

// Usage implements sessfs.Store.
func (m *Manager) Usage(ctx context.Context) (sessfs.Usage, error) { return m.b.Usage(ctx) }
