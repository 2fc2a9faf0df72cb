package locking

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sessfs"
)

// Commit implements sessfs.Store.
func (m *Manager) Commit(ctx context.Context, id sessfs.ID, base *sessfs.Session, attr sessfs.Attr, data []byte) (*sessfs.Session, error) {
	s := m.shard(id)
	s.mu.Lock()
	e := s.use(id)
	m.checkDeadline(e)
	lease := e.lease
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		e.done()
		s.mu.Unlock()
	}()
	if lease == nil {
		h := m.holder(0)
		h.Keep = 0
		own, record, _, err := m.tryLock(ctx, id, h)
		if err == nil && own == nil && m.askKeeper(ctx, id) {
			own, record, _, err = m.tryLock(ctx, id, h)
		}
		if err != nil {
			return nil, err
		}
		if own == nil {
			return nil, fmt.Errorf("changing session %s: %w", id.Hash(), sessfs.ErrLocked)
		}
		defer m.opts.Leases.End(record)
		defer m.b.Unlock(own)
		return m.count(m.b.Commit(ctx, id, base, attr, data, own))
	}
	return m.commit(ctx, e, lease, base, attr, data)
}

func (m *Manager) count(v *sessfs.Session, err error) (*sessfs.Session, error) {
	switch {
	case err == nil:
		m.counters.commits.Add(1)
	case errors.Is(err, sessfs.ErrConflict):
		m.counters.conflicts.Add(1)
	}
	return v, err
}

// commit stores under a lease of this host. Called without the mutex.
func (m *Manager) commit(ctx context.Context, e *entry, lease *sessfs.Lease, base *sessfs.Session, attr sessfs.Attr, data []byte) (*sessfs.Session, error) {
	e.shard.mu.Lock()
	own := *lease
	own.Look = own.Keep > 0 || e.waited || e.queue.waiting() || m.commits.Add(1)%someCommits == 0
	doubts := e.doubts
	e.shard.mu.Unlock()
	asked := sessfs.Boottime()
	v, err := m.count(m.b.Commit(ctx, e.id, base, attr, data, &own))
	e.shard.mu.Lock()
	defer e.shard.mu.Unlock()
	if e.lease != lease {
		return v, err
	}
	switch {
	case err == nil:
		e.know(v, doubts)
		if own.Look {
			e.unmarked = !own.Marked
			e.lookAt = asked + int64(lookMin)
		}
		if own.Marked {
			e.marked, e.lookAt = true, asked // the look answers it
		} else {
			e.asked = asked
		}
		if len(e.queue.holders) == 0 { // a change by path
			e.sure = min(e.sure, m.keepEnd(e))
			m.settle(e)
		}
	case errors.Is(err, sessfs.ErrLockLost):
		m.lose(e, err)
	default:
		m.distrust(e)
	}
	return v, err
}

// someCommits: one in so many looks for a mark where nothing else makes it look, so that a host that comes back for a
// lock again and again, and always finds it free, learns of others that wait for it.
const someCommits = 8

// Destroy implements sessfs.Store. Where another host may go on showing the session from memory, it waits until that is
// over.
func (m *Manager) Destroy(ctx context.Context, id sessfs.ID) (bool, error) {
	m.destroyed(id)
	existed, h, err := m.b.Destroy(ctx, id)
	if own := m.destroyed(id); err == nil {
		m.outwait(ctx, id, h, own)
	}
	return existed, err
}

// outwait waits until no other host that has a lease of a session with a tombstone shows what was there before; own is the
// token of this host's lease. Where it may keep the lease it learns of it by a mark, or its time is over; what it shows in
// any case is fresh.
func (m *Manager) outwait(ctx context.Context, id sessfs.ID, h *sessfs.Holder, own string) {
	until, gone := sessfs.Boottime()+int64(fresh), true
	for x := h; x != nil; x = x.Also {
		if x.Token != own && !(x.Keep > fresh && !x.Answered && m.askBack(ctx, id, x.Token, min(x.Keep, m.settings.Load().Lease))) {
			gone = false
		}
	}
	if gone {
		return
	}
	timer := time.NewTimer(time.Duration(until - sessfs.Boottime()))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-m.ctx.Done():
	case <-timer.C:
	}
}

// heed makes sure that a tombstone which was read without a lease is what all hosts see: nobody is told that a session is
// gone while another host still shows it.
func (m *Manager) heed(ctx context.Context, id sessfs.ID, v *sessfs.Session) error {
	if v.State != sessfs.Destroyed {
		return nil
	}
	h, err := m.b.Locked(ctx, id)
	if err != nil || h == nil {
		return err
	}
	m.outwait(ctx, id, h, m.destroyed(id))
	return nil
}

// destroyed notes that a session is not what it was, and returns the token of this host's lease.
func (m *Manager) destroyed(id sessfs.ID) (token string) {
	s := m.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[id]
	if e == nil {
		return ""
	}
	e.stored = 0
	m.distrust(e)
	if e.lease != nil {
		token = e.lease.Token
	}
	return token
}
