package backend

import (
	"context"
	"time"
)

// An operation asks all members of its set at once. On connections that stand it sends to each and then waits for each,
// without a goroutine; a server that must be connected first, and one with the classic commands, gets one.

// beginLock begins wire.lock; what it returns waits for the answer. known is what the host keeps of the session: it may turn
// out to have changed. Nil: nothing.
func (s *server) beginLock(known *cached, p place, value string, exptime int64, deadline time.Time) func() (locked, error) {
	if w, ok := s.connected().(metaWire); ok {
		return w.beginLock(known, p, value, exptime, deadline)
	}
	return background(func() (locked, error) {
		w, err := s.wire(deadline)
		if err != nil {
			return locked{}, err
		}
		return w.lock(p, value, exptime, deadline)
	})
}

// beginStore begins wire.store.
func (s *server) beginStore(p place, st storing, deadline time.Time) func() (stored, error) {
	if w, ok := s.connected().(metaWire); ok {
		return w.beginStore(p, st, deadline)
	}
	return background(func() (stored, error) {
		w, err := s.wire(deadline)
		if err != nil {
			return stored{}, err
		}
		return w.store(p, st, deadline)
	})
}

// got is the answer of wire.get.
type got struct {
	items []item
	epoch uint64
}

// beginGet begins wire.get.
func (s *server) beginGet(conn int, keys []string, deadline time.Time) func() (got, error) {
	if w, ok := s.connected().(metaWire); ok {
		return w.beginGet(conn, keys, deadline)
	}
	return background(func() (got, error) {
		w, err := s.wire(deadline)
		if err != nil {
			return got{}, err
		}
		items, epoch, err := w.get(conn, keys, deadline)
		return got{items, epoch}, err
	})
}

// background runs f in a goroutine, which ends before what is returned does.
func background[T any](f func() (T, error)) func() (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		v, err := f()
		done <- result{v, err}
	}()
	return func() (T, error) {
		r := <-done
		return r.value, r.err
	}
}

// each runs f for every server at once and waits for all.
func each[T any](servers []*server, f func(*server) (T, error)) ([]T, []error) {
	values, errs := make([]T, len(servers)), make([]error, len(servers))
	waits := make([]func() (T, error), len(servers))
	for i, s := range servers[1:] {
		waits[i+1] = background(func() (T, error) { return f(s) })
	}
	values[0], errs[0] = f(servers[0])
	for i, wait := range waits[1:] {
		values[i+1], errs[i+1] = wait()
	}
	return values, errs
}

// together notes that so many servers were asked at once: what is waited for is one round trip.
func (c *Cluster) together(n int) {
	if n > 1 {
		c.looks.Add(uint64(n - 1))
	}
}

// every does something each time that d is over, until ctx ends.
func every(ctx context.Context, d time.Duration, do func()) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			do()
		}
	}
}
