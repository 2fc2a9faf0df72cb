package backend

import (
	"errors"
	"time"

	"sessfs/internal/hist"
)

// flight is a batch on its way to a server.
type flight struct {
	s        *server
	b        *batch
	place    int
	epoch    uint64 // of the cas values in it; 0: there are none
	deadline time.Time
	c        *conn // that has taken it; nil: none yet
	now      uint64
	err      error
	sent     hist.Instant
}

// launch sends b over a connection that stands. Where there is none it is left to land to make one.
func (s *server) launch(b *batch, place int, epoch uint64, deadline time.Time) flight {
	f := flight{s: s, b: b, place: place, epoch: epoch, deadline: deadline}
	s.mu.Lock()
	c, now := s.conns[place%len(s.conns)], s.epoch
	if s.info == nil || s.info.classic != nil || s.closed || !s.since.IsZero() || epoch != 0 && epoch != now {
		c = nil
	}
	s.mu.Unlock()
	if c != nil {
		f.send(c, now)
	}
	return f
}

func (f *flight) send(c *conn, now uint64) {
	f.s.trips.Add(1)
	f.s.waits.Add(1)
	f.b.deadline, f.sent = f.deadline, hist.Now()
	f.c, f.now, f.err = c, now, c.send(f.b)
}

// land waits for the answers. It returns the epoch of the connection that was used. What was certainly not sent, and
// what may be repeated, gets a second connection: one that was idle while the server restarted is found out only by
// using it.
func (f *flight) land() (uint64, error) {
	s, b, tried := f.s, f.b, false
	for try := 0; ; try++ {
		if f.c == nil {
			if !time.Now().Before(f.deadline) {
				return 0, s.fail(errTimeout)
			}
			c, now, err := s.pick(f.place, f.epoch, f.deadline)
			if err != nil {
				return 0, err
			}
			f.send(c, now)
		}
		err := f.c.await(b, f.err)
		f.c = nil
		if err == nil {
			s.roundTrips.Since(f.sent)
			return f.now, nil
		}
		maybe := b.written && !b.repeat
		switch {
		case errors.Is(err, errFull):
			return 0, s.fail(err)
		case errors.Is(err, errTimeout):
			s.trip(errTimeout)
		case !b.written && try < 10: // bounded by the deadline, too
			b.reset()
			continue
		case tried:
			s.trip(err)
		case !maybe:
			b.reset()
			tried = true
			continue
		}
		e := s.fail(err)
		e.maybe = b.written
		return 0, e
	}
}

// exchange sends b and waits for its answers: one round trip.
func (s *server) exchange(b *batch, place int, epoch uint64, deadline time.Time) (uint64, error) {
	f := s.launch(b, place, epoch, deadline)
	return f.land()
}
