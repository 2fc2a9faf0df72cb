package locking

import (
	"context"
	"fmt"
	"time"

	"sessfs"
)

// claim implements sessfs.Claim. All fields but m, e and pid are guarded by e.shard.mu.
type claim struct {
	m      *Manager
	e      *entry
	pid    uint32
	seen   *sessfs.Session // the last snapshot this claim was given under the present lease
	since  int64           // Boottime at which it got the lock
	err    error
	closed bool
}

var _ sessfs.Claim = (*claim)(nil)

// placeKept is how long an interrupted wait keeps its place in the queue: PHP restarts flock after EINTR.
const placeKept = 100 * time.Millisecond

// poison makes every later call fail. The caller holds the shard's mu.
func (c *claim) poison(err error) {
	if c.err == nil {
		c.err = err
	}
}

// Lock implements sessfs.Claim.
func (c *claim) Lock(ctx context.Context, kind sessfs.LockKind, wait bool) (*sessfs.Session, error) {
	m, e, mu := c.m, c.e, &c.e.shard.mu
	mu.Lock()
	if err := c.usable(); err != nil {
		mu.Unlock()
		return nil, err
	}
	m.checkDeadline(e)
	if err := c.usable(); err != nil {
		mu.Unlock()
		return nil, err
	}
	q := &e.queue
	if q.holds(c) {
		if q.kind == kind || len(q.holders) == 1 {
			q.kind = kind
			m.answer(e, q.next()) // a downgrade lets shared waiters in
			mu.Unlock()
			return nil, nil
		}
		// Like flock(2): a change of kind that must wait gives the old lock up first.
		q.release(c)
		m.settle(e)
	}
	if e.lease != nil && q.free(kind) && !q.waiting() {
		now := sessfs.Boottime()
		c.hold(kind, now)
		s, sure := c.news(now)
		mu.Unlock()
		if sure {
			return s, nil
		}
		return c.read(ctx)
	}
	if e.lease != nil && !wait {
		mu.Unlock()
		return nil, fmt.Errorf("session %s: %w", e.id.Hash(), sessfs.ErrLocked)
	}
	w := &waiter{claim: c, kind: kind, granted: make(chan grant, 1), try: !wait, since: sessfs.Boottime()}
	if q.push(w) {
		m.leases.Add(-1) // the place was an absent waiter's
	}
	if e.lease == nil && !e.acquiring {
		m.acquire(e)
	}
	mu.Unlock()
	if queued, ok := ctx.Value(sessfs.Queued{}).(func()); ok {
		queued()
	}
	return c.await(ctx, w)
}

// LockAtOnce implements sessfs.Claim.
func (c *claim) LockAtOnce(kind sessfs.LockKind) bool {
	m, e := c.m, c.e
	e.shard.mu.Lock()
	defer e.shard.mu.Unlock()
	m.checkDeadline(e)
	now := sessfs.Boottime()
	if c.usable() != nil || e.lease == nil || !e.queue.free(kind) || e.queue.waiting() || e.queue.holds(c) || now >= e.sure || c.seen != e.current {
		return false
	}
	c.hold(kind, now)
	return true
}

// hold makes c a holder of the lease that is here. The caller holds the shard's mu, and has seen that the lock is free.
func (c *claim) hold(kind sessfs.LockKind, now int64) {
	e := c.e
	c.m.use(e, now)
	e.queue.grant(c, kind)
	c.since = now
	e.unasked, e.stored, e.unmarked = 0, 0, false
}

// usable tells why the claim must not be used. The caller holds the shard's mu.
func (c *claim) usable() error {
	if c.err != nil {
		return c.err
	}
	if c.closed {
		return fmt.Errorf("session %s: %w", c.e.id.Hash(), sessfs.ErrClosed)
	}
	return nil
}

// news returns what the new holder has not seen yet, and whether that is sure. The caller holds the shard's mu.
func (c *claim) news(now int64) (*sessfs.Session, bool) {
	e := c.e
	if now >= e.sure {
		return nil, false
	}
	if c.seen == e.current {
		return nil, true
	}
	c.seen = e.current
	return e.current, true
}

// await waits for a grant, the end of ctx, or lock.wait.
func (c *claim) await(ctx context.Context, w *waiter) (*sessfs.Session, error) {
	m, mu := c.m, &c.e.shard.mu
	m.counters.waits.Add(1)
	m.counters.waiting.Add(1)
	defer func() {
		m.counters.waiting.Add(-1)
		took := sessfs.Boottime() - w.since
		m.counters.longest(took)
		m.counters.waitTimes.Observe(time.Duration(took))
	}()
	var timeout <-chan time.Time
	if limit := m.settings.Load().Wait; limit > 0 && !w.try {
		t := time.NewTimer(limit)
		defer t.Stop()
		timeout = t.C
	}
	var err error
	select {
	case g := <-w.granted:
		return c.granted(ctx, g)
	case <-ctx.Done():
		err = ctx.Err()
	case <-timeout:
		err = fmt.Errorf("session %s: %w (lock.wait: %v)", c.e.id.Hash(), sessfs.ErrLockTimeout, m.settings.Load().Wait)
	}
	mu.Lock()
	defer mu.Unlock()
	select {
	case g := <-w.granted: // won at that very moment: it goes back
		if g.err == nil && c.e.queue.release(c) {
			m.settle(c.e)
		}
	default:
		if ctx.Err() != nil && !c.closed {
			w.absent = sessfs.Boottime() + int64(placeKept)
			m.watch()
		} else {
			c.e.queue.remove(w)
		}
	}
	if ctx.Err() == nil {
		c.poison(err)
	}
	return nil, err
}

// granted takes over what the grant says.
func (c *claim) granted(ctx context.Context, g grant) (*sessfs.Session, error) {
	if g.err != nil {
		return nil, g.err
	}
	if g.session != nil {
		return g.session, nil
	}
	return c.read(ctx)
}

// read reads the session under the lock that c has just got. A failure gives the lock up and poisons the claim.
func (c *claim) read(ctx context.Context) (*sessfs.Session, error) {
	m, e := c.m, c.e
	e.shard.mu.Lock()
	lease, doubts := e.lease, e.doubts
	e.shard.mu.Unlock()
	s, err := m.b.Read(context.WithoutCancel(ctx), e.id)
	e.shard.mu.Lock()
	defer e.shard.mu.Unlock()
	if err != nil {
		err = fmt.Errorf("reading session %s under its lock: %w", e.id.Hash(), err)
		c.poison(err)
		if e.queue.release(c) {
			m.settle(e)
		}
		return nil, err
	}
	if c.err != nil {
		return nil, c.err
	}
	if e.lease == lease {
		e.know(s, doubts)
		c.seen = s
	}
	return s, nil
}

// Unlock implements sessfs.Claim.
func (c *claim) Unlock() {
	c.e.shard.mu.Lock()
	defer c.e.shard.mu.Unlock()
	c.release()
}

// release gives c's lock up. The caller holds the shard's mu.
func (c *claim) release() {
	if c.e.queue.release(c) {
		c.m.released(c.e)
		c.m.settle(c.e)
	}
}

// Commit implements sessfs.Claim.
func (c *claim) Commit(ctx context.Context, base *sessfs.Session, attr sessfs.Attr, data []byte) (*sessfs.Session, error) {
	m, e, mu := c.m, c.e, &c.e.shard.mu
	mu.Lock()
	m.checkDeadline(e)
	if err := c.usable(); err != nil {
		mu.Unlock()
		return nil, err
	}
	holds := e.queue.holds(c)
	var lease *sessfs.Lease
	if holds {
		lease = e.lease
	}
	mu.Unlock()
	sent := sessfs.Boottime()
	var s *sessfs.Session
	var err error
	if holds {
		s, err = m.commit(ctx, e, lease, base, attr, data)
	} else {
		s, err = m.count(m.b.Commit(ctx, e.id, base, attr, data, nil))
	}
	mu.Lock()
	defer mu.Unlock()
	if err == nil {
		c.seen = s
		if holds && e.lease == lease {
			e.stored = sent
		} else {
			m.distrust(e)
		}
	}
	return s, err
}

// Held implements sessfs.Claim.
func (c *claim) Held() bool {
	c.e.shard.mu.Lock()
	defer c.e.shard.mu.Unlock()
	return c.e.standing() && c.e.queue.holds(c)
}

// Leased implements sessfs.Claim.
func (c *claim) Leased() bool {
	c.e.shard.mu.Lock()
	defer c.e.shard.mu.Unlock()
	return c.e.standing()
}

// Err implements sessfs.Claim.
func (c *claim) Err() error {
	c.e.shard.mu.Lock()
	defer c.e.shard.mu.Unlock()
	if c.err == nil && !c.closed {
		c.m.checkDeadline(c.e)
	}
	return c.err
}

// Close implements sessfs.Claim.
func (c *claim) Close() {
	m, e := c.m, c.e
	e.shard.mu.Lock()
	defer e.shard.mu.Unlock()
	if c.closed {
		return
	}
	c.closed = true
	m.counters.claims.Add(-1)
	for _, w := range m.take(e, func(w *waiter) bool { return w.claim == c }) {
		w.granted <- grant{err: fmt.Errorf("session %s: %w", e.id.Hash(), sessfs.ErrClosed)}
	}
	e.refs--
	if e.queue.release(c) {
		m.released(e)
	}
	m.settle(e)
	e.drop()
}
