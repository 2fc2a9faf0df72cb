package locking

import "slices"

// A lease that nobody here uses any more is kept for a while (Settings.Keep), and the next opener of the session is
// served from memory, without a round trip: with a load balancer that sends a visitor to the same host again, a request
// then waits for its write alone. What makes that safe:
//
//   - The lease stands, so nobody elsewhere has the lock. Kept leases are not renewed.
//   - The session is served from memory only within Keep of the sending of the last question whose answer showed it
//     unchanged and the lease unmarked. Destroy, which takes no lock, marks the lease and waits so long.
//   - The commit checks version and lock as ever.
//   - The connection to the server stands: a server that restarted has forgotten the lease.
//   - Waiters elsewhere leave a mark, for which the lease goes back: see marks.go.
//
// All functions here that take an entry are called with its shard's mu held.

// keepEnd is until when the lease may be kept, and what is known served to the next holder without a read; 0: not at
// all. It leaves time enough to renew the lease once it is used again.
func (m *Manager) keepEnd(e *entry) int64 {
	s := m.settings.Load()
	keep := min(s.Keep, e.lease.Keep) // others reckon with what the lease says
	if keep <= 0 || e.marked || m.ctx.Err() != nil {
		return 0
	}
	return min(e.asked+int64(keep), e.lease.Deadline-int64(s.Lease)/4)
}

// servable tells whether an opener may be shown what is known under the lease, without a read: the lease is kept, or
// somebody here has the lock, and has just read or stored; what it leaves behind comes with the lock.
func (m *Manager) servable(e *entry, now int64) bool {
	if !e.standing() || now >= e.sure {
		return false
	}
	end := m.keepEnd(e)
	if e.kept {
		return now < end && m.b.Unbroken(e.lease)
	}
	return now < max(end, e.asked+int64(fresh))
}

// keepIdle keeps the lease that nobody uses and reports whether it may be kept. Where there is no room the oldest of the
// shard goes back.
func (m *Manager) keepIdle(e *entry, now int64) bool {
	end := m.keepEnd(e)
	if now >= end || now >= e.sure {
		return false
	}
	if e.kept {
		return true
	}
	s, size := e.shard, int64(len(e.current.Data))
	for len(s.kept) >= max(m.opts.KeptMax/shards, 1) || len(s.kept) > 0 && m.kept.Load()+size > m.opts.KeptBytes {
		m.giveBack(s.kept[0])
	}
	if m.kept.Load()+size > m.opts.KeptBytes {
		return false
	}
	e.kept, e.size, e.sure = true, size, min(e.sure, end)
	s.kept = append(s.kept, e)
	m.kept.Add(size)
	m.counters.kept.Add(1)
	return true
}

// unkeep takes e out of those that are kept.
func (m *Manager) unkeep(e *entry) {
	if !e.kept {
		return
	}
	e.kept = false
	i := slices.Index(e.shard.kept, e)
	e.shard.kept = slices.Delete(e.shard.kept, i, i+1)
	m.kept.Add(-e.size)
	m.counters.kept.Add(-1)
}

// use begins a use of the lease. One that was kept may be due for renewal.
func (m *Manager) use(e *entry, now int64) {
	e.used, e.lookAt = now, min(e.lookAt, now+int64(lookMin))
	if !e.kept {
		return
	}
	m.unkeep(e)
	if now >= e.renewAt {
		m.startRenewal(e)
	}
}
