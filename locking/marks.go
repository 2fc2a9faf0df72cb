package locking

import (
	"context"
	"time"

	"sessfs"
)

// A mark says that somebody on another host wants a lease. Its holder sees it with its commits, and looks for marks on
// leases that it may keep: often on those used just now, ever more rarely on others. A lease that nobody here uses goes
// back then; for one that is in use the mark is answered, and its session not served from memory any more.

const (
	lookMin = 4 * time.Millisecond   // first time between looks at one lease
	lookMax = 100 * time.Millisecond // longest time between them
	maxLook = 1024                   // leases that are looked at together
	// keeperTime is within how long a host that only keeps a lease gives it back: a look, with room for a busy machine.
	keeperTime = 250 * time.Millisecond
)

// lookAfter is the time until the next look at a lease that was last used so long ago.
func lookAfter(unused time.Duration) time.Duration { return min(max(unused/2, lookMin), lookMax) }

// startLook looks for marks of leases in the background, one look at a time.
func (m *Manager) startLook(due []*sessfs.Lease) {
	if len(due) == 0 || !m.looking.CompareAndSwap(false, true) {
		return
	}
	m.running.Add(1)
	go func() {
		defer m.running.Done()
		defer m.looking.Store(false)
		for i, marked := range m.b.Marked(m.ctx, due) {
			m.looked(due[i], marked)
		}
	}()
}

// looked takes note of what a look at a lease has shown.
func (m *Manager) looked(l *sessfs.Lease, marked bool) {
	s := m.shard(l.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[l.ID]
	if e == nil || e.lease != l {
		return
	}
	now := sessfs.Boottime()
	e.lookAt = now + int64(lookAfter(time.Duration(now-e.used)))
	if !marked {
		return
	}
	e.marked, e.stored = true, 0
	m.distrust(e) // a kept one goes back
	if e.lease == l {
		m.settle(e)
	}
	if e.lease == l {
		m.b.Answer(l)
	}
}

// mark is what a waiter knows of the mark that it left.
type mark struct {
	token string // of the lease that it was left for
	at    int64  // Boottime
}

// leave marks the lease of h, once for every lease and again before the mark ends.
func (k *mark) leave(m *Manager, id sessfs.ID, h *sessfs.Holder, now int64) {
	if h.Token == "" || h.Answered || h.Token == k.token && now-k.at < int64(sessfs.MarkLife)/4 {
		return
	}
	if m.b.Mark(m.ctx, id, h.Token) == nil {
		k.token, k.at = h.Token, now
	}
}

// askBack marks a lease of another host and waits until it is given back or the mark is answered, for no longer than
// limit. It reports whether the lease is gone. Called without the mutex.
func (m *Manager) askBack(ctx context.Context, id sessfs.ID, token string, limit time.Duration) bool {
	start := sessfs.Boottime()
	p := pace{shortest: m.opts.PollMin, longest: m.opts.PollMax, since: start}
	var k mark
	k.leave(m, id, &sessfs.Holder{Token: token}, start)
	timer := time.NewTimer(jitter(p.shortest))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-m.ctx.Done():
			return false
		case <-timer.C:
		}
		h, err := m.b.Locked(ctx, id)
		now, holder := sessfs.Boottime(), h.Of(token)
		switch {
		case err != nil: // a server that cannot be asked: the time alone counts
		case holder == nil:
			return true
		case holder.Answered:
			return false
		default:
			k.leave(m, id, holder, now)
		}
		left := limit - time.Duration(now-start)
		if left <= 0 {
			return false
		}
		timer.Reset(min(jitter(p.next(token, now, 1)), left))
	}
}

// askKeeper asks another host for a lease that it may only keep, and reports whether the lock may be free now. Called
// without the mutex.
func (m *Manager) askKeeper(ctx context.Context, id sessfs.ID) bool {
	h, err := m.b.Locked(ctx, id)
	switch {
	case err != nil:
		return false
	case h == nil:
		return true
	case h.Keep == 0:
		return false
	}
	return m.askBack(ctx, id, h.Token, keeperTime)
}
