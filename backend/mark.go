package backend

import (
	"context"
	"sync"
	"time"

	"sessfs"
)

// A host that waits for a lock leaves a mark: an item beside the lock that holds the token of the lease it waits for. So
// a mark means nothing to the next lease, and it does not matter how many hosts leave the same one. The holder sees it
// with its commits, or looks for the marks of many leases at once.

// marks tells whether an item is the mark of the lease with that token.
func marks(i item, token string) bool { return i.found && token != "" && string(i.value) == token }

// Mark implements sessfs.Backend.
func (c *Cluster) Mark(ctx context.Context, id sessfs.ID, token string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p, deadline := c.place(id), c.deadline()
	w, err := p.s.wire(deadline)
	if err != nil {
		return err
	}
	return c.mark(w, p, token, deadline)
}

func (c *Cluster) mark(w wire, p place, token string, deadline time.Time) error {
	c.looks.Add(1)
	out, err := w.set(p.conn, []keyValue{{p.mark(), []byte(token)}}, exptime(sessfs.MarkLife), deadline)
	if err == nil && out.code == codeRefused {
		err = p.s.refused(out.words)
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
		p := c.place(l.ID)
		if parts[p.s] == nil {
			parts[p.s] = &part{}
		}
		parts[p.s].at = append(parts[p.s].at, i)
		parts[p.s].keys = append(parts[p.s].keys, p.mark())
	}
	marked := make([]bool, len(leases))
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
				for i, at := range p.at[:n] {
					marked[at] = marks(items[i], leases[at].Token)
				}
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
	r, ok := l.Ref.(ref)
	s := c.place(l.ID).s
	s.mu.Lock()
	defer s.mu.Unlock()
	return ok && r.epoch == s.epoch && s.info != nil
}

// answered follows the token in a mark that its holder has answered. A mark that is gone is no answer: the server may
// have evicted it.
const answered = "!"

// Answer implements sessfs.Backend. Whatever mark there is goes: those who wait for a later lease leave it again.
func (c *Cluster) Answer(l *sessfs.Lease) {
	p := c.place(l.ID)
	p.s.later(task{do: func(w wire, deadline time.Time) error {
		return c.mark(w, p, l.Token+answered, deadline)
	}})
}
