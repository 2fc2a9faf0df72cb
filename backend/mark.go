package backend

import (
	"context"
	"errors"
	"sync"
	"time"

	"sessfs"
)

// A host that waits for a lock leaves a mark: an item beside the lock that holds the token of the lease it waits for. So
// a mark means nothing to the next lease, and it does not matter how many hosts leave the same one. The holder sees it
// with its commits, or looks for the marks of many leases at once.

// marks tells whether an item is the mark of the lease with that token.
func marks(i item, token string) bool { return i.found && token != "" && string(i.value) == token }

// Mark implements sessfs.Backend. The holder's set and this one share a server.
func (c *Cluster) Mark(ctx context.Context, id sessfs.ID, token string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	o := c.operation(id)
	set, err := o.set()
	if err != nil {
		return err
	}
	_, errs := each(set, func(s *server) (struct{}, error) { return struct{}{}, c.markOn(s, o.place, token, o.deadline) })
	return errors.Join(errs...)
}

// markOn leaves a mark on one server.
func (c *Cluster) markOn(s *server, p place, token string, deadline time.Time) error {
	w, err := s.wire(deadline)
	if err != nil {
		return err
	}
	c.looks.Add(1)
	out, err := w.set(p.conn, []keyValue{{p.mark(), []byte(token)}}, exptime(sessfs.MarkLife), deadline)
	if err == nil && out.code == codeRefused {
		err = s.refused(out.words)
	}
	return err
}

// maxLook is how many marks are read with one batch.
const maxLook = 256

// Marked implements sessfs.Backend.
func (c *Cluster) Marked(ctx context.Context, leases []*sessfs.Lease) []bool {
	type part struct {
		at   []int // in leases
		keys []string
	}
	parts := make(map[*server]*part)
	for i, l := range leases {
		h, ok := l.Ref.(*hold)
		if !ok {
			continue
		}
		for _, m := range h.list() {
			if parts[m.s] == nil {
				parts[m.s] = &part{}
			}
			parts[m.s].at = append(parts[m.s].at, i)
			parts[m.s].keys = append(parts[m.s].keys, h.mark())
		}
	}
	marked := make([]bool, len(leases))
	var mu sync.Mutex
	var wg sync.WaitGroup
	for s, p := range parts {
		wg.Go(func() {
			for len(p.at) > 0 && ctx.Err() == nil {
				n := min(len(p.at), maxLook)
				w := s.connected()
				if w == nil {
					return
				}
				items, ok := w.look(p.keys[:n], c.deadline())
				if !ok {
					return
				}
				mu.Lock()
				for i, at := range p.at[:n] {
					marked[at] = marked[at] || marks(items[i], leases[at].Token)
				}
				mu.Unlock()
				p.at, p.keys = p.at[n:], p.keys[n:]
			}
		})
	}
	wg.Wait()
	return marked
}

// connected returns the wire of a server that is connected, else nil.
func (s *server) connected() wire {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed || s.info == nil:
		return nil
	case s.info.classic != nil:
		return s.info.classic
	}
	return metaWire{s}
}

// Unbroken implements sessfs.Backend.
func (c *Cluster) Unbroken(l *sessfs.Lease) bool {
	h, ok := l.Ref.(*hold)
	if !ok {
		return false
	}
	for _, m := range h.list() {
		m.s.mu.Lock()
		stands := m.epoch == m.s.epoch && m.s.info != nil
		m.s.mu.Unlock()
		if !stands {
			return false
		}
	}
	return true
}

// answered follows the token in a mark that its holder has answered. A mark that is gone is no answer: the server may
// have evicted it.
const answered = "!"

// Answer implements sessfs.Backend. Whatever mark there is goes: those who wait for a later lease leave it again.
func (c *Cluster) Answer(l *sessfs.Lease) {
	h, ok := l.Ref.(*hold)
	if !ok {
		return
	}
	for _, m := range h.list() {
		m.s.later(task{do: func(_ wire, deadline time.Time) error {
			return c.markOn(m.s, h.place, l.Token+answered, deadline)
		}})
	}
}
