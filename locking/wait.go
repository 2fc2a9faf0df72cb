package locking

import (
	"fmt"
	"math/rand/v2"
	"time"

	"sessfs"
)

// pace is how often a wait asks for a lock that another host has: often while the lock is seen to move from lease to
// lease, the rarer the longer one lease stands. It has no clock of its own.
type pace struct {
	shortest, longest time.Duration

	token string // of the lease that was seen last
	since int64  // Boottime at which it was first seen
}

// patience is the share of a lease's age that its end may go unnoticed: one poll in a sixteenth of it.
const patience = 16

// next notes which lease stands now and returns the time until the next question of a wait that is one of so many.
func (p *pace) next(token string, now, waits int64) time.Duration {
	if token != p.token {
		p.token, p.since = token, now
	}
	return max(min(max(time.Duration(now-p.since)/patience, p.shortest), p.longest), time.Duration(waits)*pollGap)
}

// pollGap is the least time between two questions of all waits of this host together. A host with many waits asks for
// each of them more rarely, so that the servers are not busy with nothing else: 2,000 waits once in 400 ms each, instead
// of 80,000 questions a second.
const pollGap = 200 * time.Microsecond

// acquire starts the wait for the lease, for all waiters of the session together. It is not called while one runs. The
// caller holds the shard's mu.
func (m *Manager) acquire(e *entry) {
	if m.ctx.Err() != nil {
		m.failWaiters(e, sessfs.ErrClosed)
		return
	}
	e.acquiring = true
	e.refs++
	m.running.Add(1)
	go func() {
		defer m.running.Done()
		m.wait(e)
		e.shard.mu.Lock()
		defer e.shard.mu.Unlock()
		e.acquiring, e.elsewhere = false, nil
		m.settle(e)
		e.done()
	}()
}

// wait tries and polls until the lease is here, nobody waits any more, or the servers fail. Called without the mutex.
func (m *Manager) wait(e *entry) {
	start, warned := sessfs.Boottime(), false
	p := pace{shortest: m.opts.PollMin, longest: m.opts.PollMax, since: start}
	polite, lost, hurried := m.outlook(e)
	first := jitter(p.shortest)
	switch {
	case start-lost < int64(p.shortest): // OPEN has just tried: who has it?
		first = 0
	case start >= polite || hurried:
		if held, wanted := m.attempt(e); held || !wanted {
			return
		}
		if hurried {
			first = 0
		}
	}
	m.polling.Add(1)
	defer m.polling.Add(-1)
	var left mark
	timer := time.NewTimer(first)
	defer timer.Stop()
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-timer.C:
		}
		if !m.wanted(e) {
			return
		}
		h, err := m.b.Locked(m.ctx, e.id)
		if err != nil {
			m.failAll(e, err)
			return
		}
		now := sessfs.Boottime()
		switch {
		case h != nil:
			polite = 0 // somebody has had the turn
			m.seen(e, h, now)
			left.leave(m, e.id, h, now)
			if !warned && time.Duration(now-start) > m.opts.WarnAfter {
				warned = true
				m.opts.Log.Warn("a session's lock is waited for", "session", e.id.Hash(), "for", time.Duration(now-start).Round(time.Millisecond),
					"holder_host", h.Host, "holder_pid", h.PID, "held_since", h.Since)
			}
			timer.Reset(jitter(p.next(h.Token, now, m.polling.Load())))
		case now < polite:
			timer.Reset(jitter(p.shortest))
		default:
			if held, wanted := m.attempt(e); held || !wanted {
				return
			}
			timer.Reset(jitter(p.shortest)) // another host was quicker: the lock moves
		}
	}
}

// outlook tells until when the lock is left to others, when an attempt to get it failed, and whether somebody must have an
// answer at once.
func (m *Manager) outlook(e *entry) (polite, lost int64, hurried bool) {
	e.shard.mu.Lock()
	defer e.shard.mu.Unlock()
	for _, w := range e.queue.waiters {
		hurried = hurried || w.try
	}
	return e.yield, e.lost, hurried
}

// seen notes who has the lock that is waited for, and answers LOCK_NB: at once, but where that host may only keep the
// lease. It gets time to give it back, until it has answered the mark.
func (m *Manager) seen(e *entry, h *sessfs.Holder, now int64) {
	e.shard.mu.Lock()
	defer e.shard.mu.Unlock()
	e.elsewhere = h
	over := func(w *waiter) bool {
		return w.try && (h.Keep == 0 || h.Answered || now-w.since > int64(keeperTime))
	}
	for _, w := range m.take(e, over) {
		w.granted <- grant{err: fmt.Errorf("session %s: %w", e.id.Hash(), sessfs.ErrLocked)}
	}
}

// jitter keeps hosts that wait for one lock from asking in step.
func jitter(d time.Duration) time.Duration { return d - rand.N(d/2) }

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
	doubts := e.doubts
	e.shard.mu.Unlock()
	asked := sessfs.Boottime()
	lease, record, v, err := m.tryLock(m.ctx, e.id, m.holder(pid))
	if err != nil {
		m.failAll(e, err)
		return false, false
	}
	e.shard.mu.Lock()
	defer e.shard.mu.Unlock()
	if lease != nil {
		m.adopt(e, lease, record, v, asked, doubts)
		e.waited, e.turn = true, e.queue.count()
		if granted := e.queue.next(); len(granted) > 0 {
			m.answer(e, granted)
		}
		return true, true
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
