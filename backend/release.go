package backend

import "time"

func (w metaWire) release(h *hold, at seen, wanted bool) {
	s := w.s
	s.mu.Lock()
	c, now := s.conns[h.conn%len(s.conns)], s.epoch
	s.mu.Unlock()
	if at.cas != 0 && at.epoch == now && c != nil {
		b := newBatch()
		b.delete(s.key(h.lock), at.cas)
		b.deadline = s.cl.deadline()
		b.after = func(b *batch) {
			// EX: the server moved the item, which changes its cas, or it is another's.
			if b.err != nil || b.replies[0].code == codeExists {
				s.releaseByToken(h)
			}
		}
		send := c.sendLater
		if wanted {
			send = c.send
		}
		if send(b) == nil {
			s.trips.Add(1)
			return
		}
	}
	s.releaseByToken(h)
}

// releaseByToken frees a lock in the background, if it still has the token and its holder does not use that server.
func (s *server) releaseByToken(h *hold) {
	now := time.Now()
	var at time.Time
	if s.connected() == nil {
		// It may be restarting this moment: found down by this, it would be closed to requests for a second.
		at = now.Add(100 * time.Millisecond)
	}
	s.later(task{at: at, until: now.Add(s.cl.settings.Load().Lease), do: func(w wire, deadline time.Time) error {
		for range 3 {
			items, epoch, err := w.get(h.conn, []string{h.lock}, deadline)
			if err != nil || !ownLock(items[0], h.token) || h.uses(s) {
				return err
			}
			if done, err := w.remove(h.conn, h.lock, items[0].cas, epoch, deadline); done || err != nil {
				return err
			}
		}
		return nil
	}})
}
