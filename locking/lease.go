package locking

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"sessfs"
)

// All functions here that take an entry are called with its shard's mu held, but for those that say otherwise.

// standing reports whether this host has a lease that it may rely on.
func (e *entry) standing() bool { return e.lease != nil && sessfs.Boottime() < e.lease.Deadline }

// checkDeadline takes a lease away whose time is over: the machine slept, or renewals did not get through.
func (m *Manager) checkDeadline(e *entry) {
	if e.lease != nil && !e.standing() {
		m.lose(e, fmt.Errorf("session %s: %w: it was not renewed in time", e.id.Hash(), sessfs.ErrLockLost))
	}
}

// adopt notes a lease that was won, and what was read under it.
func (m *Manager) adopt(e *entry, l *sessfs.Lease, v *sessfs.Session) {
	e.lease = l
	e.leasedAt = sessfs.Boottime()
	e.renewAt = e.leasedAt + int64(m.settings.Load().Lease)/3
	e.handOvers = 0
	e.current, e.sure, e.committed = v, true, false
	m.counters.leases.Add(1)
	m.watch()
}

// forget ends the lease here.
func (m *Manager) forget(e *entry) {
	e.lease, e.current, e.sure, e.committed = nil, nil, false, false
	m.counters.leases.Add(-1)
	m.leases.Add(-1)
}

// giveBack frees the lease for other hosts.
func (m *Manager) giveBack(e *entry) {
	if e.lease == nil {
		return
	}
	m.b.Unlock(e.lease)
	m.forget(e)
	if e.refs == 0 {
		delete(e.shard.entries, e.id)
	}
}

// lose ends a lease that somebody else may have by now: its holders are poisoned, its waiters wait on.
func (m *Manager) lose(e *entry, err error) {
	if e.lease == nil {
		return
	}
	for _, c := range e.queue.holders {
		c.poison(err)
	}
	if len(e.queue.holders) > 0 {
		m.counters.lost.Add(uint64(len(e.queue.holders)))
		m.opts.Log.Error("the lock of a session was lost while it was held; its holder's writes are refused", "session", e.id.Hash(), "err", err)
	}
	e.queue.holders = nil
	m.b.Unlock(e.lease) // frees it only if it is still ours
	m.forget(e)
	m.settle(e)
}

// settle does what is due after a change: hands the lock to the next waiters, gives the lease back, or looks for it.
func (m *Manager) settle(e *entry) {
	if e.lease == nil {
		if e.queue.waiting() && !e.acquiring {
			m.acquire(e, 0)
		}
		return
	}
	if !e.queue.waiting() {
		if len(e.queue.holders) == 0 && (e.refs == 0 || e.unasked <= sessfs.Boottime()) {
			m.giveBack(e)
		}
		return
	}
	now := sessfs.Boottime()
	if len(e.queue.holders) == 0 && e.handOvers > 0 && (e.handOvers >= m.opts.HandOvers || now-e.leasedAt > int64(m.opts.Hold)) {
		m.giveBack(e)
		m.acquire(e, 2*m.opts.PollMin+rand.N(2*m.opts.PollMin+1))
		return
	}
	if granted := e.queue.next(); len(granted) > 0 {
		e.handOvers++
		m.answer(e, granted)
	}
}

// answer tells waiters that they hold the lock now.
func (m *Manager) answer(e *entry, granted []*waiter) {
	now := sessfs.Boottime()
	for _, w := range granted {
		w.claim.since = now
		var s *sessfs.Session
		if e.sure {
			s = e.current
			w.claim.seen = s
		}
		w.granted <- grant{session: s}
	}
	if len(granted) > 0 {
		e.unasked, e.committed = 0, false
	}
}

// failWaiters ends all waits with err; their claims fail from now on.
func (m *Manager) failWaiters(e *entry, err error) {
	err = fmt.Errorf("waiting for the lock of session %s: %w", e.id.Hash(), err)
	for _, w := range m.take(e, func(*waiter) bool { return true }) {
		w.claim.poison(err)
		w.granted <- grant{err: err}
	}
}

// take removes waiters; absent ones among them need the keeper no more.
func (m *Manager) take(e *entry, out func(*waiter) bool) []*waiter {
	taken := e.queue.take(out)
	for _, w := range taken {
		if w.absent != 0 {
			m.leases.Add(-1)
		}
	}
	return taken
}

// acquire starts the wait for the lease, for all waiters of the session together. It is not called while one runs.
func (m *Manager) acquire(e *entry, delay time.Duration) {
	if m.ctx.Err() != nil {
		m.failWaiters(e, sessfs.ErrClosed)
		return
	}
	e.acquiring = true
	e.refs++
	m.running.Add(1)
	go func() {
		defer m.running.Done()
		m.wait(e, delay)
		e.shard.mu.Lock()
		defer e.shard.mu.Unlock()
		e.acquiring = false
		m.settle(e)
		e.done()
	}()
}

// wait tries and polls until the lease is here, nobody waits any more, or the servers fail. Called without the mutex.
func (m *Manager) wait(e *entry, delay time.Duration) {
	start, warned := time.Now(), false
	interval := m.opts.PollMin
	for {
		if delay > 0 {
			select {
			case <-m.ctx.Done():
				return
			case <-time.After(delay):
			}
		}
		held, wanted := m.attempt(e)
		if held || !wanted {
			return
		}
		for {
			if time.Since(start) > 100*m.opts.PollMin {
				interval = min(interval*3/2, m.opts.PollMax)
			}
			select {
			case <-m.ctx.Done():
				return
			case <-time.After(interval/2 + rand.N(interval)):
			}
			if !m.wanted(e) {
				return
			}
			h, err := m.b.Locked(m.ctx, e.id)
			if err != nil {
				m.failAll(e, err)
				return
			}
			if h == nil {
				break
			}
			if !warned && time.Since(start) > m.opts.WarnAfter {
				warned = true
				m.opts.Log.Warn("a session's lock is waited for", "session", e.id.Hash(), "for", time.Since(start).Round(time.Millisecond),
					"holder_host", h.Host, "holder_pid", h.PID, "held_since", h.Since)
			}
		}
		delay = 0
	}
}

// attempt tries once for the lease. Called without the mutex.
func (m *Manager) attempt(e *entry) (held, wanted bool) {
	e.shard.mu.Lock()
	var pid uint32
	for _, w := range e.queue.waiters {
		if w.absent == 0 {
			pid = w.claim.pid
			break
		}
	}
	e.shard.mu.Unlock()
	lease, v, err := m.b.TryLock(m.ctx, e.id, m.holder(pid))
	if err != nil {
		m.failAll(e, err)
		return false, false
	}
	e.shard.mu.Lock()
	defer e.shard.mu.Unlock()
	if lease != nil {
		m.adopt(e, lease, v)
		if granted := e.queue.next(); len(granted) > 0 {
			m.answer(e, granted)
		}
		return true, true
	}
	for _, w := range m.take(e, func(w *waiter) bool { return w.try }) {
		w.granted <- grant{err: fmt.Errorf("session %s: %w", e.id.Hash(), sessfs.ErrLocked)}
	}
	return false, e.queue.waiting()
}

func (m *Manager) wanted(e *entry) bool {
	e.shard.mu.Lock()
	defer e.shard.mu.Unlock()
	return e.queue.waiting()
}

// failAll ends all waits because the servers failed. Called without the mutex.
func (m *Manager) failAll(e *entry, err error) {
	if m.ctx.Err() != nil {
		err = sessfs.ErrClosed
	}
	e.shard.mu.Lock()
	defer e.shard.mu.Unlock()
	m.failWaiters(e, err)
}

// renew keeps a lease that is in use. Called without the mutex.
func (m *Manager) renew(e *entry, lease *sessfs.Lease) {
	next := *lease
	err := m.b.Renew(m.ctx, &next)
	e.shard.mu.Lock()
	defer e.shard.mu.Unlock()
	defer e.done()
	e.renewing = false
	if e.lease != lease {
		return
	}
	switch {
	case err == nil:
		lease.Deadline = next.Deadline
		e.renewAt = sessfs.Boottime() + int64(m.settings.Load().Lease)/3
	case errors.Is(err, sessfs.ErrLockLost):
		m.lose(e, err)
	case errors.Is(err, context.Canceled):
	default: // it is tried again until the deadline
		e.renewAt = sessfs.Boottime() + int64(m.settings.Load().Lease)/10
	}
}
