package locking

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"sessfs"
	"sessfs/internal/handover"
)

// A daemon that dies leaves its leases on the servers, and their records in shared memory. Its successor takes those over
// under which a file description here had the lock; their tokens are the proof. The others go back.

// inheritance are the leases that a former daemon has left.
type inheritance struct {
	mu    sync.Mutex
	list  map[sessfs.ID][]handover.LeftLease // guarded by mu
	taken map[string]bool                    // tokens that are in use again; guarded by mu
}

func (i *inheritance) init(l *handover.Leases) {
	i.list = make(map[sessfs.ID][]handover.LeftLease)
	i.taken = make(map[string]bool)
	for _, x := range l.Left() {
		i.list[x.ID] = append(i.list[x.ID], x)
	}
}

// take returns the lease of a session that was held; the caller ends its record.
func (i *inheritance) take(id sessfs.ID) (left handover.LeftLease, ok bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for n, x := range i.list[id] {
		if x.Held {
			i.list[id] = append(i.list[id][:n:n], i.list[id][n+1:]...)
			i.taken[x.Holder.Token] = true
			return x, true
		}
	}
	return left, false
}

// Reopen implements sessfs.Reopener.
func (m *Manager) Reopen(ctx context.Context, id sessfs.ID, list []sessfs.Reopened) ([]sessfs.Claim, *sessfs.Session, error) {
	kind := sessfs.LockKind(0)
	for _, x := range list {
		kind = max(kind, x.Kind)
	}
	var lease *sessfs.Lease
	var record *handover.Lease
	var v *sessfs.Session
	var lost, err error
	asked := sessfs.Boottime()
	if kind != 0 {
		if lease, record, v, lost = m.takeOver(ctx, id); lost != nil {
			m.opts.Log.Error("the lock of a session was lost while no daemon ran; its holder's writes are refused", "session", id.Hash(), "err", lost)
			m.counters.lost.Add(1)
		}
	}
	if lease == nil {
		if v, err = m.b.Read(ctx, id); err != nil {
			return nil, nil, fmt.Errorf("reading session %s, which a former daemon had open: %w", id.Hash(), err)
		}
	}
	s := m.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	claims := make([]sessfs.Claim, len(list))
	for i, x := range list {
		e := s.use(id)
		c := &claim{m: m, e: e, pid: x.PID}
		claims[i] = c
		m.counters.claims.Add(1)
		switch {
		case x.Kind == 0:
		case lost != nil:
			c.poison(lost)
		default:
			if e.lease == nil {
				m.adopt(e, lease, record, v, asked, e.doubts)
			}
			e.queue.grant(c, kind)
			c.seen, c.since = v, asked
		}
	}
	return claims, v, nil
}

// takeOver takes over the lease that was held for a session. One that is not there any more, with its own token, was
// lost: to take the lock anew would be to have it after somebody else.
func (m *Manager) takeOver(ctx context.Context, id sessfs.ID) (*sessfs.Lease, *handover.Lease, *sessfs.Session, error) {
	left, ok := m.left.take(id)
	if !ok {
		return nil, nil, nil, fmt.Errorf("session %s: %w: no lease was left", id.Hash(), sessfs.ErrLockLost)
	}
	if sessfs.Boottime() >= left.Deadline {
		m.left.back(left)
		return nil, nil, nil, fmt.Errorf("session %s: %w: it ended before", id.Hash(), sessfs.ErrLockLost)
	}
	own, ours, err := m.stillOurs(ctx, left)
	if err == nil && !ours {
		err = fmt.Errorf("session %s: %w: somebody has taken it away", id.Hash(), sessfs.ErrLockLost)
	}
	if err != nil {
		m.left.back(left)
		return nil, nil, nil, err
	}
	l, record, v, err := m.tryLock(ctx, id, own)
	m.opts.Leases.Forget(left.Record)
	if err == nil && l == nil {
		err = fmt.Errorf("session %s: %w", id.Hash(), sessfs.ErrLockLost)
	}
	return l, record, v, err
}

// stillOurs asks whether the servers still have a left lease, and returns its holder, as which its lock is got again.
func (m *Manager) stillOurs(ctx context.Context, left handover.LeftLease) (own sessfs.Holder, ours bool, err error) {
	h, err := m.b.Locked(ctx, left.ID)
	own = left.Holder
	own.Host, own.Boot = m.opts.Host, m.opts.Boot
	return own, err == nil && h != nil && h.Token == own.Token, err
}

// back has Reopened see to a lease.
func (i *inheritance) back(left handover.LeftLease) {
	i.mu.Lock()
	i.list[left.ID] = append(i.list[left.ID], left)
	delete(i.taken, left.Holder.Token)
	i.mu.Unlock()
}

// freeing is how many leases are given back at a time.
const freeing = 16

// Reopened implements sessfs.Reopener.
func (m *Manager) Reopened() {
	m.left.mu.Lock()
	var all []handover.LeftLease
	for _, list := range m.left.list {
		for _, l := range list {
			if m.left.taken[l.Holder.Token] { // an older record of it
				m.opts.Leases.Forget(l.Record)
			} else {
				all = append(all, l)
			}
		}
	}
	m.left.list = nil
	m.left.mu.Unlock()
	work := make(chan handover.LeftLease, len(all))
	for _, l := range all {
		work <- l
	}
	close(work)
	for range min(freeing, len(all)) {
		m.running.Add(1)
		go func() {
			defer m.running.Done()
			for l := range work {
				m.free(l)
			}
		}()
	}
}

// free gives a left lease back, where the servers still have it.
func (m *Manager) free(left handover.LeftLease) {
	own, ours, err := m.stillOurs(m.ctx, left)
	if ours {
		var l *sessfs.Lease
		if l, _, err = m.b.TryLock(m.ctx, left.ID, own); l != nil {
			l.Marked = true // it goes out at once
			m.b.Unlock(l)
		}
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		m.opts.Log.Warn("a lock that a former daemon has left could not be given back; it ends with its lease", "session", left.ID.Hash(), "err", err)
	}
	m.opts.Leases.Forget(left.Record)
}
