package locking

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sessfs"
	"sessfs/internal/handover"
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

// tryLock is Backend.TryLock with a record of the lease: made before, so that a successor knows of it whenever this
// process dies, and ended where there is no lease. Called without the mutex.
func (m *Manager) tryLock(ctx context.Context, id sessfs.ID, h sessfs.Holder) (*sessfs.Lease, *handover.Lease, *sessfs.Session, error) {
	h = h.WithToken()
	record := m.opts.Leases.Begin(id, h)
	l, v, err := m.b.TryLock(ctx, id, h)
	if l != nil && sessfs.Boottime() >= l.Deadline { // this host was held up: what was read may be old news
		m.b.Unlock(l)
		l = nil
	}
	if l == nil {
		m.opts.Leases.End(record)
		return nil, nil, v, err
	}
	m.opts.Leases.Hold(record, l.Deadline)
	return l, record, v, err
}

// adopt notes a lease that was won, and what was read under it by a question sent at asked, when e had so many doubts.
func (m *Manager) adopt(e *entry, l *sessfs.Lease, record *handover.Lease, v *sessfs.Session, asked int64, doubts uint64) {
	e.lease, e.record = l, record
	e.leasedAt = sessfs.Boottime()
	e.renewAt = e.leasedAt + int64(m.settings.Load().Lease)/3
	e.handOvers, e.turn = 0, 1
	e.asked = asked
	e.know(v, doubts)
	e.used, e.lookAt = e.leasedAt, e.leasedAt+int64(lookMin)
	m.counters.leases.Add(1)
	if l.Keep > 0 {
		m.watched.Add(1)
	}
	m.watch()
}

// forget ends the lease here.
func (m *Manager) forget(e *entry) {
	m.unkeep(e)
	if e.lease.Keep > 0 {
		m.watched.Add(-1)
	}
	m.opts.Leases.End(e.record)
	e.lease, e.record, e.current, e.sure = nil, nil, nil, 0
	e.stored, e.unmarked, e.marked, e.waited = 0, false, false, false
	m.counters.leases.Add(-1)
	m.leases.Add(-1)
}

// giveBack frees the lease for other hosts. Where one of them waits it has the next turn.
func (m *Manager) giveBack(e *entry) {
	if e.lease == nil {
		return
	}
	if e.marked {
		m.yield(e)
	}
	lease := e.lease
	if e.yield != 0 {
		l := *lease
		l.Marked = true
		lease = &l
	}
	m.b.Unlock(lease)
	m.forget(e)
	e.drop()
}

// yield leaves the lock, which is about to be given back, to other hosts for as long as they may need to notice.
func (m *Manager) yield(e *entry) {
	now := sessfs.Boottime()
	p := pace{shortest: m.opts.PollMin, longest: m.opts.PollMax, since: e.leasedAt}
	if e.yield == 0 {
		m.watch() // for its end
	}
	e.yield = now + int64(2*p.next("", now, 1)+m.opts.PollMin)
}

// released notes that the lock was given up here. An unlocked destroy by another host is possible at any time: what was
// read is old news for the next holder, but where destroy waits for those who keep the lease; what was stored just now
// is not.
func (m *Manager) released(e *entry) {
	until := m.keepEnd(e)
	if e.stored != 0 {
		until = max(until, e.stored+int64(fresh))
	}
	e.sure = min(e.sure, until)
	e.used = sessfs.Boottime()
	e.lookAt = min(e.lookAt, e.used+int64(lookMin))
}

// know notes what stands there under the lease, by the answer to a question that was sent when e had so many doubts.
func (e *entry) know(v *sessfs.Session, doubts uint64) {
	e.current, e.sure = v, 0
	if e.doubts == doubts {
		e.sure = forever
	}
}

// distrust makes the next holder read, whatever answers are on their way.
func (m *Manager) distrust(e *entry) {
	e.sure = 0
	e.doubts++
	if e.kept {
		m.giveBack(e)
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
		m.counters.lastLost.Store(time.Now().UnixNano())
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
			m.acquire(e)
		}
		return
	}
	now := sessfs.Boottime()
	if !e.queue.waiting() {
		if len(e.queue.holders) == 0 && (e.refs == 0 || e.unasked <= now) && !m.keepIdle(e, now) {
			m.giveBack(e)
		}
		return
	}
	if len(e.queue.holders) == 0 && e.handOvers > 0 && m.hadTurn(e, now) {
		m.yield(e)
		m.giveBack(e)
		if !e.acquiring { // else the wait that brought this lease is not quite over, and settles again
			m.acquire(e)
		}
		return
	}
	if granted := e.queue.next(); len(granted) > 0 {
		e.handOvers++
		m.answer(e, granted)
	}
}

// hadTurn tells whether the lease is to go back although more claims of this host wait for it: after some hand-overs
// where others wait too, or may wait, since the last holder's commit did not show that nobody does; after a long time in
// any case, for hosts whose marks do not get through.
func (m *Manager) hadTurn(e *entry, now int64) bool {
	age := now - e.leasedAt
	if e.unmarked && !e.marked {
		return age > longTurn*int64(m.opts.Hold)
	}
	// Fewer hand-overs than would give most claims that waited a second one: then the common wait is a short one, within
	// this host's turn, and the wait for the turn many times as long.
	return e.handOvers >= min(m.opts.HandOvers, 2*e.turn-2) || age > int64(m.opts.Hold)
}

// longTurn is so many Holds.
const longTurn = 100

// answer tells waiters that they hold the lock now.
func (m *Manager) answer(e *entry, granted []*waiter) {
	now := sessfs.Boottime()
	for _, w := range granted {
		w.claim.since = now
		var s *sessfs.Session
		if now < e.sure {
			s = e.current
			w.claim.seen = s
		}
		w.granted <- grant{session: s}
	}
	if len(granted) > 0 {
		m.use(e, now)
		e.unasked, e.stored, e.unmarked = 0, 0, false
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

// startRenewal renews the lease in the background.
func (m *Manager) startRenewal(e *entry) {
	if e.renewing || m.ctx.Err() != nil {
		return
	}
	e.renewing = true
	e.refs++
	lease := e.lease
	m.running.Add(1)
	go func() {
		defer m.running.Done()
		m.renew(e, lease)
	}()
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
		m.opts.Leases.Hold(e.record, next.Deadline)
		e.renewAt = sessfs.Boottime() + int64(m.settings.Load().Lease)/3
	case errors.Is(err, sessfs.ErrLockLost):
		m.lose(e, err)
	case errors.Is(err, context.Canceled):
	default: // it is tried again until the deadline
		e.renewAt = sessfs.Boottime() + int64(m.settings.Load().Lease)/10
	}
}
