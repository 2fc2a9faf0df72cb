package locking

import (
	"fmt"
	"time"

	"sessfs"
	"sessfs/internal/hist"
)

// keepEvery is how often leases are looked after: unasked ones go back, used ones are renewed, places kept for
// interrupted waits end. Where leases are kept it is done every lookMin.
const keepEvery = 20 * time.Millisecond

// watch tells the keeper that there is one lease or absent waiter more. The caller holds a shard's mu.
func (m *Manager) watch() {
	if m.leases.Add(1) == 1 {
		select {
		case m.wake <- struct{}{}:
		default:
		}
	}
}

// keep is the keeper: it sleeps while there is nothing to look after.
func (m *Manager) keep() {
	defer m.running.Done()
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-m.wake:
		}
		every := keepEvery
		tick := time.NewTicker(every)
		for first := 0; m.leases.Load() > 0 && m.ctx.Err() == nil; first++ {
			select {
			case <-m.ctx.Done():
				continue
			case <-tick.C:
			}
			var due []*sessfs.Lease
			for i := range m.shards { // in turn: a look has room for so many
				due = m.keepShard(&m.shards[(first+i)%shards], due)
			}
			m.startLook(due)
			want := keepEvery
			if m.watched.Load() > 0 {
				want = lookMin
			}
			if every != want {
				every = want
				tick.Reset(every)
			}
		}
		tick.Stop()
	}
}

// keepShard looks after the leases of a shard. It appends those to due that are to be looked at for a mark.
func (m *Manager) keepShard(s *shard, due []*sessfs.Lease) []*sessfs.Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := sessfs.Boottime()
	for _, e := range s.entries {
		m.take(e, func(w *waiter) bool { return w.absent != 0 && w.absent < now })
		if e.yield != 0 && now >= e.yield {
			e.yield = 0
			m.leases.Add(-1)
		}
		m.checkDeadline(e)
		if e.lease == nil {
			e.drop()
			continue
		}
		if now >= e.renewAt && !e.kept {
			m.startRenewal(e)
		}
		if len(e.queue.holders) == 0 {
			m.settle(e)
		}
		switch {
		case e.lease == nil || e.lease.Keep == 0 || now < e.lookAt:
		case e.kept && !m.b.Unbroken(e.lease):
			m.giveBack(e)
		case len(due) < maxLook:
			due = append(due, e.lease)
		}
	}
	return due
}

// Stats are figures since the start, but for those that say "now".
type Stats struct {
	Claims      int64         `json:"claims"`  // open file descriptions now
	Leases      int64         `json:"leases"`  // locks this host has now
	Kept        int64         `json:"kept"`    // those of them that nobody uses
	Waiting     int64         `json:"waiting"` // calls that wait for a lock now
	Waits       uint64        `json:"waits"`   // calls that had to wait
	LongestWait time.Duration `json:"longest_wait_ns"`
	WaitTimes   hist.Snapshot `json:"wait_times"` // of the waits that are over
	Commits     uint64        `json:"commits"`
	Conflicts   uint64        `json:"conflicts"`  // changes refused because somebody else had changed the session
	LocksLost   uint64        `json:"locks_lost"` // locks that ended under their holder
}

// Stats returns the figures.
func (m *Manager) Stats() Stats {
	c := &m.counters
	return Stats{Claims: c.claims.Load(), Leases: c.leases.Load(), Kept: c.kept.Load(), Waiting: c.waiting.Load(), Waits: c.waits.Load(),
		LongestWait: time.Duration(c.longestNs.Load()), WaitTimes: c.waitTimes.Snapshot(), Commits: c.commits.Load(), Conflicts: c.conflicts.Load(), LocksLost: c.lost.Load()}
}

// Oldest returns for how long the lock has been held, and waited for, that is held or waited for the longest on this host
// now; 0 where none is.
func (m *Manager) Oldest() (held, waited time.Duration) {
	now := sessfs.Boottime()
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		for _, e := range s.entries {
			for _, c := range e.queue.holders {
				held = max(held, time.Duration(now-c.since))
			}
			for _, w := range e.queue.waiters {
				waited = max(waited, time.Duration(now-w.since))
			}
		}
		s.mu.Unlock()
	}
	return held, waited
}

// Lock is a lock that is held or waited for on this host.
type Lock struct {
	Session string        `json:"session"` // hash of the id
	PID     uint32        `json:"pid"`
	Kind    string        `json:"kind"`
	Waiting bool          `json:"waiting"`
	For     time.Duration `json:"for_ns"`
}

// Locks lists the locks that are held or waited for here, at most max of them.
func (m *Manager) Locks(max int) (list []Lock) {
	now := sessfs.Boottime()
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		for _, e := range s.entries {
			for _, c := range e.queue.holders {
				list = append(list, Lock{Session: e.id.Hash(), PID: c.pid, Kind: kindName(e.queue.kind), For: time.Duration(now - c.since)})
			}
			for _, w := range e.queue.waiters {
				list = append(list, Lock{Session: e.id.Hash(), PID: w.claim.pid, Kind: kindName(w.kind), Waiting: true, For: time.Duration(now - w.since)})
			}
		}
		s.mu.Unlock()
		if len(list) >= max {
			return list[:max]
		}
	}
	return list
}

func kindName(k sessfs.LockKind) string {
	switch k {
	case sessfs.Shared:
		return "shared"
	case sessfs.Exclusive:
		return "exclusive"
	}
	return fmt.Sprintf("kind %d", k)
}
