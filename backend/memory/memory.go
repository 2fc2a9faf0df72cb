// Package memory keeps sessions and leases in one process: the store of a mount without cache servers, and the
// reference that the memcached backend is compared with. Several managers over one Backend are several hosts.
package memory

import (
	"context"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"sessfs"
)

// Options of a Backend.
type Options struct {
	Lifetime time.Duration // of a session that is not stored again; tombstones live twice as long
	Lease    time.Duration // of a lock that is not renewed
	MaxSize  int64         // bytes of one session
}

const shards = 64

// Backend implements sessfs.Backend. Its errors are ErrConflict, ErrTooLarge and ErrLockLost: there is no server that
// could be unavailable.
type Backend struct {
	opts   atomic.Pointer[Options]
	seed   maphash.Seed
	shards [shards]shard
	stop   chan struct{}
	swept  sync.WaitGroup
	once   sync.Once
}

type shard struct {
	mu    sync.Mutex
	items map[sessfs.ID]*item // guarded by mu
	bytes int64               // guarded by mu
}

// item is a session, its lock and the mark of those who want it; each may be absent.
type item struct {
	session *sessfs.Session // nil: missing
	expires time.Time
	lock    *lock
	mark    *mark
}

// mark says that somebody wants the lease with that token.
type mark struct {
	token    string
	answered bool
	until    int64 // Boottime
}

type lock struct {
	token  string
	holder sessfs.Holder
	until  int64 // Boottime
}

var _ sessfs.Backend = (*Backend)(nil)

// New makes an empty Backend. Close ends its sweeper.
func New(o Options) *Backend {
	b := &Backend{seed: maphash.MakeSeed(), stop: make(chan struct{})}
	b.opts.Store(&o)
	for i := range b.shards {
		b.shards[i].items = make(map[sessfs.ID]*item)
	}
	b.swept.Add(1)
	go b.sweep()
	return b
}

// Reconfigure changes the options for sessions and leases that are stored from now on.
func (b *Backend) Reconfigure(o Options) { b.opts.Store(&o) }

// Close ends the sweeper.
func (b *Backend) Close() error {
	b.once.Do(func() { close(b.stop) })
	b.swept.Wait()
	return nil
}

func (b *Backend) shard(id sessfs.ID) *shard {
	return &b.shards[maphash.String(b.seed, string(id))%shards]
}

// get returns the item of id with what has expired taken out; nil: nothing is left. The caller holds s.mu.
func (s *shard) get(id sessfs.ID) *item {
	it := s.items[id]
	if it == nil {
		return nil
	}
	if it.session != nil && time.Now().After(it.expires) {
		s.bytes -= int64(len(it.session.Data))
		it.session = nil
	}
	if it.lock != nil && sessfs.Boottime() > it.lock.until {
		it.lock = nil
	}
	if it.mark != nil && sessfs.Boottime() > it.mark.until {
		it.mark = nil
	}
	if it.session == nil && it.lock == nil && it.mark == nil {
		delete(s.items, id)
		return nil
	}
	return it
}

func (s *shard) read(id sessfs.ID) *sessfs.Session {
	if it := s.get(id); it != nil && it.session != nil {
		return it.session
	}
	return &sessfs.Session{}
}

func (s *shard) put(id sessfs.ID, v *sessfs.Session, ttl time.Duration) {
	it := s.items[id]
	if it == nil {
		it = &item{}
		s.items[id] = it
	}
	if it.session != nil {
		s.bytes -= int64(len(it.session.Data))
	}
	s.bytes += int64(len(v.Data))
	it.session, it.expires = v, time.Now().Add(ttl)
}

// deadline is when a holder must stop relying on a lease that was asked for at sent: two seconds before the lock ends,
// as on servers that count in seconds.
func deadline(sent int64, lease time.Duration) int64 {
	return sent + int64(lease-min(2*time.Second, lease/2))
}

// TryLock implements sessfs.Backend.
func (b *Backend) TryLock(_ context.Context, id sessfs.ID, holder sessfs.Holder) (*sessfs.Lease, *sessfs.Session, error) {
	o, sent := b.opts.Load(), sessfs.Boottime()
	s := b.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.read(id)
	token := holder.WithToken().Token
	it := s.items[id]
	if it != nil && it.lock != nil && it.lock.token != token {
		return nil, v, nil
	}
	if it == nil {
		it = &item{}
		s.items[id] = it
	}
	it.lock = &lock{token: token, holder: holder, until: sent + int64(o.Lease)}
	return &sessfs.Lease{ID: id, Token: token, Deadline: deadline(sent, o.Lease), Keep: holder.Keep}, v, nil
}

// Read implements sessfs.Backend.
func (b *Backend) Read(_ context.Context, id sessfs.ID) (*sessfs.Session, error) {
	s := b.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.read(id), nil
}

// Locked implements sessfs.Backend.
func (b *Backend) Locked(_ context.Context, id sessfs.ID) (*sessfs.Holder, error) {
	s := b.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.holder(id), nil
}

// holder tells who has the lock; nil: nobody. The caller holds s.mu.
func (s *shard) holder(id sessfs.ID) *sessfs.Holder {
	it := s.get(id)
	if it == nil || it.lock == nil {
		return nil
	}
	h := it.lock.holder
	h.Token, h.Answered = it.lock.token, it.marks(it.lock.token) && it.mark.answered
	return &h
}

// Commit implements sessfs.Backend.
func (b *Backend) Commit(_ context.Context, id sessfs.ID, base *sessfs.Session, attr sessfs.Attr, data []byte, lease *sessfs.Lease) (*sessfs.Session, error) {
	o := b.opts.Load()
	if int64(len(data)) > o.MaxSize {
		return nil, fmt.Errorf("storing a session of %d bytes: %w: session.max_size is %d", len(data), sessfs.ErrTooLarge, o.MaxSize)
	}
	s := b.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.read(id)
	if lease != nil && !s.holds(lease) {
		return nil, fmt.Errorf("storing a session: %w", sessfs.ErrLockLost)
	}
	// A session that ran out while its lock was held is stored again; a tombstone or another's session is not.
	if old.Version != base.Version && !(old.State == sessfs.Missing && base.State == sessfs.Live && lease != nil) {
		return nil, fmt.Errorf("storing a session: %w: version %d there, %d was read", sessfs.ErrConflict, old.Version.Counter, base.Version.Counter)
	}
	if lease != nil && lease.Look {
		it := s.items[id]
		lease.Marked = it.marks(lease.Token) && !it.mark.answered
	}
	next := &sessfs.Session{State: sessfs.Live, Version: nextVersion(base), Attr: attr, Data: data}
	s.put(id, next, attr.Remaining(o.Lifetime))
	return next, nil
}

func nextVersion(base *sessfs.Session) sessfs.Version {
	counter := base.Version.Counter + 1
	if base.State == sessfs.Missing {
		counter = uint64(time.Now().UnixMilli())
	}
	return sessfs.Version{Counter: counter, Nonce: rand.Uint64()}
}

func (s *shard) holds(l *sessfs.Lease) bool {
	it := s.get(l.ID)
	return it != nil && it.lock != nil && it.lock.token == l.Token
}

// Renew implements sessfs.Backend.
func (b *Backend) Renew(_ context.Context, l *sessfs.Lease) error {
	o, sent := b.opts.Load(), sessfs.Boottime()
	s := b.shard(l.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.holds(l) {
		return fmt.Errorf("renewing a lease: %w", sessfs.ErrLockLost)
	}
	s.items[l.ID].lock.until = sent + int64(o.Lease)
	l.Deadline = deadline(sent, o.Lease)
	return nil
}

// Unlock implements sessfs.Backend.
func (b *Backend) Unlock(l *sessfs.Lease) {
	s := b.shard(l.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holds(l) {
		s.items[l.ID].lock = nil
		s.get(l.ID)
	}
}

// Break implements sessfs.Backend.
func (b *Backend) Break(_ context.Context, id sessfs.ID) (*sessfs.Holder, error) {
	s := b.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.holder(id)
	if h == nil {
		return nil, nil
	}
	s.items[id].lock = nil
	if h.Keep > 0 {
		s.setMark(id, h.Token)
	}
	s.get(id)
	return h, nil
}

// Destroy implements sessfs.Backend.
func (b *Backend) Destroy(_ context.Context, id sessfs.ID) (bool, *sessfs.Holder, error) {
	s := b.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.read(id)
	if old.State != sessfs.Live {
		return false, s.holder(id), nil
	}
	s.put(id, &sessfs.Session{State: sessfs.Destroyed, Version: nextVersion(old), Attr: sessfs.Attr{Ctime: time.Now().UnixNano()}}, 2*b.opts.Load().Lifetime)
	return true, s.holder(id), nil
}

// List implements sessfs.Backend. It copies a shard at a time.
func (b *Backend) List(ctx context.Context, fn func(sessfs.Entry) error) error {
	for i := range b.shards {
		if err := ctx.Err(); err != nil {
			return err
		}
		for _, e := range b.shards[i].entries() {
			if err := fn(e); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *shard) entries() []sessfs.Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]sessfs.Entry, 0, len(s.items))
	for id := range s.items {
		if it := s.get(id); it != nil && it.session != nil {
			list = append(list, sessfs.Entry{ID: id, State: it.session.State, Attr: it.session.Attr,
				Size: int64(len(it.session.Data)), Expires: it.expires, Server: "memory"})
		}
	}
	return list
}

// Usage implements sessfs.Backend: the process's memory is what the machine has; 1 GiB stands for "enough".
func (b *Backend) Usage(context.Context) (sessfs.Usage, error) {
	var u sessfs.Usage
	var used uint64
	for i := range b.shards {
		s := &b.shards[i]
		s.mu.Lock()
		u.Items += uint64(len(s.items))
		used += uint64(s.bytes)
		s.mu.Unlock()
	}
	u.FreeBytes = 1 << 30
	u.TotalBytes = u.FreeBytes + used
	return u, nil
}

// Servers implements sessfs.Backend: there are none.
func (b *Backend) Servers(context.Context) []sessfs.ServerStatus { return nil }

// sweep takes out what has expired, a shard a second.
func (b *Backend) sweep() {
	defer b.swept.Done()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for i := 0; ; i = (i + 1) % shards {
		select {
		case <-b.stop:
			return
		case <-tick.C:
		}
		s := &b.shards[i]
		s.mu.Lock()
		for id := range s.items {
			s.get(id)
		}
		s.mu.Unlock()
	}
}
