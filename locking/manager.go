// Package locking decides who may hold a session. It implements sessfs.Store over a sessfs.Backend.
//
// Two levels: a lease, which this host has or has not, excludes other hosts; a queue orders the claims (open file
// descriptions) of this host that share the lease. A lease that OPEN won belongs to the host: whichever claim asks for
// the lock first gets it, and the lease goes back when nobody has asked for a moment, when the last user is done (or some
// time after that: kept.go), or after some hand-overs where other hosts wait (marks.go), so that they get their turn.
//
// Order of locks: shard.mu is the only one here. Of the Backend only what does not wait is called under it: Unlock,
// Answer and Unbroken.
// Goroutines: the keeper and the waits and renewals it starts; Close ends them all.
package locking

import (
	"context"
	"fmt"
	"hash/maphash"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"sessfs"
	"sessfs/internal/handover"
)

// Options of a Manager. Zero values of the tuning fields mean their defaults.
type Options struct {
	Host, Boot string // of the holder that other hosts see
	Settings
	Log *slog.Logger
	// Leases is where it is noted which leases this host has, for a successor; nil: nowhere.
	Leases *handover.Leases

	HandOvers int           // local hand-overs before the lease goes to other hosts that wait for it; default 8
	Hold      time.Duration // the same as a time; default 50 ms
	Unasked   time.Duration // how long a lease that OPEN won is kept for a claim that does not ask; default 100 ms
	PollMin   time.Duration // shortest interval of a wait for another host; default 1 ms
	PollMax   time.Duration // longest interval; default 25 ms
	KeptMax   int           // leases that are kept; default 1024
	KeptBytes int64         // bytes of their sessions; default 32 MiB
	WarnAfter time.Duration // a wait longer than this is logged; default 5 s
}

// Settings may change at any time, for waits and leases that begin then.
type Settings struct {
	Lease time.Duration // life of a lease that is not renewed
	Wait  time.Duration // longest wait for a lock; 0: as long as it takes
	Keep  time.Duration // how long a lease that nobody here uses is kept, and its session served from memory; 0: not at all
}

// fresh is for how long what this host read or stored under its lease is shown to an opener that will ask for the lock,
// and what a holder stored is given to the next one, without a round trip.
const fresh = 20 * time.Millisecond

const forever = math.MaxInt64

const shards = 64

// Manager implements sessfs.Store.
type Manager struct {
	b        sessfs.Backend
	opts     Options
	settings atomic.Pointer[Settings]
	seed     maphash.Seed
	shards   [shards]shard
	counters counters

	leases  atomic.Int64  // that the keeper must look after, absent waiters and turns left to others
	watched atomic.Int64  // leases that are looked after for marks
	looking atomic.Bool   // such a look is under way
	polling atomic.Int64  // waits for leases of other hosts
	commits atomic.Uint64 // tells which commits look for a mark
	kept    atomic.Int64  // bytes of sessions whose leases are kept
	left    inheritance
	wake    chan struct{} // capacity 1: leases is not 0 any more
	ctx     context.Context
	end     context.CancelFunc
	running sync.WaitGroup
}

type shard struct {
	mu      sync.Mutex
	entries map[sessfs.ID]*entry // guarded by mu, with all that is in them
	kept    []*entry             // whose lease is kept, the oldest first; guarded by mu
	hot     hotList              // guarded by mu
	opened  uint64               // guarded by mu
}

// entry is a session that has claims here. Guarded by its shard's mu.
type entry struct {
	id    sessfs.ID
	shard *shard
	refs  int // claims, attempts and renewals
	queue queue

	lease     *sessfs.Lease // nil: this host has none
	record    *handover.Lease
	leasedAt  int64 // Boottime
	renewAt   int64
	renewing  bool
	lost      int64          // when an attempt to get the lease last failed
	acquiring bool           // an attempt to get the lease is under way, or a wait for it
	elsewhere *sessfs.Holder // who was last seen to have the lock that is waited for
	handOvers int
	turn      int   // claims that waited when the lease came
	unasked   int64 // until when the lease stays for an opener that has not asked
	yield     int64 // until when the lock, which this host has just had, is left to others; 0: it is not

	// current is what was last read or stored under this lease. Until sure (Boottime) it is given to the next holder
	// without a read.
	current  *sessfs.Session
	sure     int64
	doubts   uint64 // how often it was distrusted: an answer to a question sent before that is old news
	asked    int64  // when the question was sent whose answer last showed current, and no mark
	stored   int64  // when the present holder sent what it has stored; 0: nothing
	unmarked bool   // and nobody elsewhere waited then
	marked   bool   // somebody elsewhere wants this lease
	waited   bool   // this lease was waited for

	kept   bool  // nobody here uses the lease, which is kept: see kept.go
	size   int64 // of the session that is kept
	used   int64 // when somebody began or ended using it
	lookAt int64 // when the next look for a mark is due
}

var _ sessfs.Store = (*Manager)(nil)

// New makes a Manager. Close ends it.
func New(b sessfs.Backend, o Options) *Manager {
	setDefault(&o.HandOvers, 8)
	setDefault(&o.Hold, 50*time.Millisecond)
	setDefault(&o.Unasked, 100*time.Millisecond)
	setDefault(&o.PollMin, time.Millisecond)
	setDefault(&o.PollMax, 25*time.Millisecond)
	setDefault(&o.KeptMax, 1024)
	setDefault(&o.KeptBytes, 32<<20)
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
	m.left.init(o.Leases)
	m.running.Add(1)
	go m.keep()
	return m
}

func setDefault[T int | int64 | time.Duration](p *T, v T) {
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

func (m *Manager) shard(id sessfs.ID) *shard { return &m.shards[m.hash(id)%shards] }

func (m *Manager) hash(id sessfs.ID) uint64 { return maphash.String(m.seed, string(id)) }

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
	e.refs--
	e.drop()
}

// drop forgets e where nothing needs it any more. The caller holds e.shard.mu.
func (e *entry) drop() {
	if e.refs == 0 && e.lease == nil && e.yield == 0 {
		delete(e.shard.entries, e.id)
	}
}

func (m *Manager) holder(pid uint32) sessfs.Holder {
	return sessfs.Holder{Host: m.opts.Host, Boot: m.opts.Boot, PID: pid, Since: time.Now(), Keep: m.settings.Load().Keep}
}

// Open implements sessfs.Store.
func (m *Manager) Open(ctx context.Context, id sessfs.ID, intent bool, pid uint32) (sessfs.Claim, *sessfs.Session, error) {
	key := m.hash(id)
	s := &m.shards[key%shards]
	s.mu.Lock()
	now := sessfs.Boottime()
	s.opened++
	s.hot.opened(key, id, now)
	e := s.use(id)
	c := &claim{m: m, e: e, pid: pid}
	if e.kept && !m.servable(e, now) {
		m.giveBack(e)
	}
	try := intent && e.lease == nil && !e.acquiring && !e.queue.waiting() && now >= e.yield
	if intent {
		// A lease that is here stays for this opener, who will ask for the lock.
		e.unasked = sessfs.Boottime() + int64(m.opts.Unasked)
	}
	e.acquiring = e.acquiring || try
	if intent && m.servable(e, now) {
		defer s.mu.Unlock()
		m.use(e, now)
		c.seen = e.current
		m.counters.claims.Add(1)
		return c, e.current, nil
	}
	doubts := e.doubts
	s.mu.Unlock()

	var lease *sessfs.Lease
	var record *handover.Lease
	var v *sessfs.Session
	var err error
	if try {
		lease, record, v, err = m.tryLock(ctx, id, m.holder(pid))
	} else {
		v, err = m.b.Read(ctx, id)
	}
	if err == nil && lease == nil {
		err = m.heed(ctx, id, v)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if try {
		e.acquiring = false
		if lease != nil {
			m.adopt(e, lease, record, v, now, doubts)
			e.unasked = sessfs.Boottime() + int64(m.opts.Unasked)
			c.seen = v
		} else {
			e.lost = sessfs.Boottime()
		}
		m.settle(e)
	} else if err == nil {
		m.compare(e, v)
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
	if err := m.heed(ctx, id, v); err != nil {
		return nil, err
	}
	s := m.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[id]; e != nil {
		m.compare(e, v)
	}
	return v, nil
}

// compare distrusts what is known under the lease where something else was read without it.
func (m *Manager) compare(e *entry, v *sessfs.Session) {
	if e.current != nil && e.current.Version != v.Version {
		m.distrust(e)
	}
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
