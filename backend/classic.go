package backend

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"sessfs"
	"sessfs/internal/hist"
)

// classic is the wire of a server without meta commands. It speaks add, gets, cas, set and delete through gomemcache,
// each waited for, so an open costs two round trips and a commit two.
//
// There is no conditional delete: a lock is freed by a cas to an item that ends at once (exptime -1), so that nobody
// frees another's. It is renewed by a cas to the same value.
type classic struct {
	s      *server
	client *memcache.Client

	mu     sync.Mutex
	conns  map[*classicConn]bool // guarded by mu
	closed bool                  // guarded by mu
}

var _ wire = (*classic)(nil)

const (
	classicIdle = 64          // idle connections that are kept
	classicLong = time.Minute // gomemcache's own timeout: do ends a request long before
	atOnce      = -1          // the exptime of an item that has ended
)

// classicConn tells of its beginning and its end: cas values are void after both, since gomemcache may use a connection
// from before a server's restart and one from after it side by side.
type classicConn struct {
	net.Conn
	w     *classic
	guard lengthGuard // used by one goroutine at a time, as the connection is
	once  sync.Once
}

func (c *classicConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if bad := c.guard.see(b[:n]); bad != nil {
		return 0, bad
	}
	return n, err
}

func (c *classicConn) Write(b []byte) (int, error) {
	c.guard.asked()
	return c.Conn.Write(b)
}

func (c *classicConn) Close() error {
	c.once.Do(func() {
		c.w.mu.Lock()
		delete(c.w.conns, c)
		c.w.mu.Unlock()
		c.w.s.newEpoch()
	})
	return c.Conn.Close()
}

func (s *server) newEpoch() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch++
	return s.epoch
}

func (s *server) currentEpoch() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.epoch
}

// oneServer is the selector of a client that has one server; dialing ignores the address.
type oneServer struct{}

func (oneServer) Network() string                     { return "memcached" }
func (oneServer) String() string                      { return "memcached" }
func (oneServer) PickServer(string) (net.Addr, error) { return oneServer{}, nil }
func (oneServer) Each(f func(net.Addr) error) error   { return f(oneServer{}) }

func newClassic(s *server, itemMax int) *classic {
	w := &classic{s: s, conns: make(map[*classicConn]bool)}
	w.client = memcache.NewFromSelector(oneServer{})
	w.client.Timeout, w.client.MaxIdleConns = classicLong, classicIdle
	w.client.DialContext = func(context.Context, string, string) (net.Conn, error) {
		ctx, end := context.WithDeadline(s.cl.ctx, s.cl.deadline())
		defer end()
		nc, err := s.dial(ctx)
		if err != nil {
			return nil, &dialError{err}
		}
		c := &classicConn{Conn: nc, w: w, guard: lengthGuard{limit: itemMax}}
		s.newEpoch()
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.closed {
			nc.Close()
			return nil, sessfs.ErrClosed
		}
		w.conns[c] = true
		return c, nil
	}
	return w
}

type dialError struct{ error }

func (e *dialError) Unwrap() error { return e.error }

// close breaks all connections; requests under way fail.
func (w *classic) close() {
	w.mu.Lock()
	w.closed = true
	var conns []*classicConn
	for c := range w.conns {
		conns = append(conns, c)
	}
	w.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}

// do makes one request, in one or more round trips of gomemcache, and ends with the deadline. What may be repeated is
// repeated on a fresh connection: after a restart all idle ones are stale.
func (w *classic) do(deadline time.Time, repeat bool, f func() error) error {
	_, err := classicDo(w, deadline, repeat, func() (struct{}, error) { return struct{}{}, f() })
	return err
}

// classicDo is do for a request with a result, which is not shared with a request that is given up.
func classicDo[T any](w *classic, deadline time.Time, repeat bool, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	var none T
	for try := 0; ; try++ {
		left := time.Until(deadline)
		if left <= 0 {
			return none, w.s.fail(errTimeout)
		}
		w.s.mu.Lock()
		if w.s.closed {
			w.s.mu.Unlock()
			return none, sessfs.ErrClosed
		}
		w.s.cl.running.Add(1)
		w.s.mu.Unlock()
		w.s.trips.Add(1)
		w.s.waits.Add(1)
		sent := hist.Now()
		done := make(chan result, 1)
		go func() {
			defer w.s.cl.running.Done()
			defer func() {
				if r := recover(); r != nil { // gomemcache trusts what a server says
					done <- result{err: fmt.Errorf("%w: %v", errSurprise, r)}
				}
			}()
			v, err := f()
			done <- result{v, err}
		}()
		timer := time.NewTimer(left)
		var got result
		select {
		case got = <-done:
			timer.Stop()
		case <-timer.C:
			w.s.trip(errTimeout)
			w.close()
			return none, &serverError{label: w.s.label, reason: errTimeout, maybe: true}
		}
		err := got.err
		var dial *dialError
		switch {
		case err == nil, errors.Is(err, memcache.ErrCacheMiss), errors.Is(err, memcache.ErrCASConflict), errors.Is(err, memcache.ErrNotStored):
			w.s.roundTrips.Since(sent)
			return got.value, err
		case strings.Contains(err.Error(), "SERVER_ERROR "):
			return none, &refusedError{serverWords(err)}
		case errors.As(err, &dial):
			w.s.trip(err)
			return none, w.s.fail(err)
		}
		w.client.Close() // the idle connections
		if repeat && try == 0 {
			continue
		}
		if try > 0 || !broken(err) {
			w.s.trip(plainError(err))
		}
		e := w.s.fail(plainError(err))
		e.maybe = true
		return none, e
	}
}

// broken tells the end of a connection from an answer that memcached does not give.
func broken(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) || strings.HasSuffix(err.Error(), "EOF")
}

type refusedError struct{ words string }

func (e *refusedError) Error() string { return e.words }

func serverWords(err error) string {
	_, words, _ := strings.Cut(err.Error(), "SERVER_ERROR ")
	words, _, _ = strings.Cut(words, `\r\n`)
	return shown(words, 100)
}

// explain turns a refusal into the error of a request that stored nothing.
func (w *classic) explain(err error) error {
	var r *refusedError
	if errors.As(err, &r) {
		return w.s.refused(r.words)
	}
	return err
}

func (w *classic) try(key string, within time.Duration) error {
	deadline := time.Now().Add(within)
	it := &memcache.Item{Key: key, Value: []byte("ab"), Flags: 7, Expiration: 30}
	var got *memcache.Item
	steps := []struct {
		want error
		what string
		do   func() error
	}{
		{nil, "add does not store", func() error { return w.client.Add(it) }},
		{memcache.ErrNotStored, "add overwrites", func() error { return w.client.Add(it) }},
		{nil, "a value does not come back", func() (err error) { got, err = w.client.Get(key); return err }},
		{memcache.ErrCASConflict, "cas stores with a wrong number", func() error {
			return w.client.CompareAndSwap(&memcache.Item{Key: key, Value: []byte("c"), CasID: got.CasID + 1, Expiration: 30})
		}},
		{nil, "cas does not store", func() error {
			return w.client.CompareAndSwap(&memcache.Item{Key: key, Value: []byte("c"), CasID: got.CasID, Expiration: atOnce})
		}},
		{memcache.ErrCacheMiss, "an item with a negative exptime does not end", func() error { _, err := w.client.Get(key); return err }},
	}
	for i, st := range steps {
		err := w.do(deadline, false, st.do)
		var down *serverError
		if errors.As(err, &down) {
			return down.reason
		}
		if !errors.Is(err, st.want) || (st.want == nil && err != nil) {
			return noCas(fmt.Sprintf("%s (%v)", st.what, err))
		}
		if i == 2 && (string(got.Value) != "ab" || got.Flags != 7 || got.CasID == 0) {
			return noCas("a value does not come back with its flags and a cas number")
		}
	}
	return nil
}
