package backend

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"sessfs"
	"sessfs/internal/hist"
)

// server is one cache server: its connections and its breaker. Up, a request connects where need be; after a failure
// the server is down: requests fail at once, and the housekeeper asks it again until it answers.
type server struct {
	cl               *Cluster
	name             string
	network, address string
	label            string   // "cache server NAME (ADDRESS)" for errors and logs
	mark             uint32   // how it stands in a record's where
	hasher           *sealing // whose hashes stand for names in its keys; nil: the names themselves

	trips, waits, failures atomic.Uint64
	roundTrips             hist.Hist
	isDown                 atomic.Bool             // down: since is not zero
	secured                atomic.Pointer[secured] // of the last connection; nil: there was none
	binary                 atomic.Bool             // it speaks the binary protocol only
	youngUntil             atomic.Int64            // Boottime until which it may have forgotten locks

	mending mending

	foreign atomic.Pointer[sealError] // why its document of the lists is none that this host can be without; nil: it is not

	tasks  chan task     // for the housekeeper
	gone   chan struct{} // closed by close
	ended  sync.Once     // of gone
	downed chan struct{} // capacity 1: the server was marked down

	mu        sync.Mutex
	closed    bool
	conns     []*conn // a place is nil while it is not connected
	info      *info   // what the server can do; nil: it must be asked, nothing is connected or something broke
	last      *info   // the last one known, for status
	epoch     uint64  // grows when a connection breaks: cas values from before are void
	attempt   *attempt
	since     time.Time // down since; zero: up
	restarted time.Time // when that was noticed last
	reason    error     // why it is down, or why it was last
}

// info is what a server told about itself when it was connected.
type info struct {
	version string
	itemMax int       // item_size_max: bytes of an item with key and header
	started time.Time // zero: it does not say
	pid     string    // of its process
	lists   []byte    // the document of the lists that hosts have
	classic *classic
}

// attempt is a try to connect that callers wait for together.
type attempt struct {
	done chan struct{}
	err  error // once done is closed
}

// serverError is a request that a server did not answer. It wraps sessfs.ErrUnavailable and the reason.
type serverError struct {
	label  string
	reason error
	maybe  bool // the request was sent and may have been done
}

func (e *serverError) Error() string {
	return fmt.Sprintf("%s: %v: %v", e.label, sessfs.ErrUnavailable, e.reason)
}

func (e *serverError) Unwrap() []error { return []error{sessfs.ErrUnavailable, e.reason} }

// uncertain tells whether the request that failed with err may have been done nevertheless.
func uncertain(err error) bool {
	var e *serverError
	return errors.As(err, &e) && e.maybe
}

// errVoid: a connection broke since the cas value was read; it means nothing any more.
var errVoid = errors.New("the cas value is from before a connection broke")

func (s *server) fail(reason error) *serverError {
	s.failures.Add(1)
	return &serverError{label: s.label, reason: reason}
}

// ready returns what the server can do once it is connected, which it waits for until the deadline. While the server is
// marked down it fails at once.
func (s *server) ready(deadline time.Time) (*info, error) {
	for try := 1; ; try++ {
		s.mu.Lock()
		switch {
		case s.closed:
			s.mu.Unlock()
			return nil, sessfs.ErrClosed
		case s.info != nil:
			defer s.mu.Unlock()
			return s.info, nil
		case !s.since.IsZero():
			defer s.mu.Unlock()
			return nil, s.downErrorLocked()
		}
		a := s.connectLocked()
		s.mu.Unlock()
		// Of the connections that broke together the last may have been noticed only after this attempt: try again.
		if in, err := s.await(a, deadline); in != nil || err != nil {
			return in, err
		}
		time.Sleep(time.Duration(min(try, 20)) * time.Millisecond)
	}
}

// down tells whether the server is marked down.
func (s *server) down() bool { return s.isDown.Load() }

// downError is the failure of a request that was not sent.
func (s *server) downError() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.downErrorLocked()
}

// downErrorLocked is downError for those who hold mu.
func (s *server) downErrorLocked() error {
	if s.since.IsZero() {
		return s.fail(errTimeout)
	}
	return s.fail(fmt.Errorf("%w (down since %s, asked again every %v)", s.reason, s.since.Format(time.TimeOnly), s.cl.retry()))
}

// young tells whether the server may have forgotten locks that are held, or may miss sessions.
func (s *server) young(now int64) bool {
	return now < s.youngUntil.Load() || s.mending.left.Load() != 0
}

// await waits for a try to connect. It returns neither when that was successful and a connection broke since.
func (s *server) await(a *attempt, deadline time.Time) (*info, error) {
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-a.done:
	case <-timer.C:
		return nil, s.fail(errTimeout)
	}
	if a.err != nil {
		return nil, s.fail(a.err)
	}
	if !time.Now().Before(deadline) {
		return nil, s.fail(errTimeout)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.info, nil
}

// connectLocked starts a try to connect, if none is under way. The caller holds mu.
func (s *server) connectLocked() *attempt {
	if s.attempt == nil {
		s.attempt = &attempt{done: make(chan struct{})}
		s.cl.running.Add(1)
		go s.connect(s.attempt)
	}
	return s.attempt
}

// broke is called by a connection that broke. A server that restarted is empty and counts cas values from the start.
func (s *server) broke(c *conn, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.conns {
		if s.conns[i] == c {
			s.conns[i] = nil
		}
	}
	s.epoch++
	if s.info != nil && s.info.classic == nil {
		s.info = nil
	}
	if !s.closed {
		s.cl.log.Debug("a connection ended", "server", s.name, "err", err)
	}
}

// pick returns the connection of a place. With an epoch that is not 0, errVoid unless it still is that one.
func (s *server) pick(place int, epoch uint64, deadline time.Time) (*conn, uint64, error) {
	for {
		in, err := s.ready(deadline)
		if err != nil {
			return nil, 0, err
		}
		if in.classic != nil {
			return nil, 0, s.fail(errors.New("it has no meta commands any more"))
		}
		s.mu.Lock()
		c, now := s.conns[place%len(s.conns)], s.epoch
		s.mu.Unlock()
		switch {
		case epoch != 0 && epoch != now:
			return nil, now, errVoid
		case c != nil:
			return c, now, nil
		}
	}
}

// trip marks the server down and breaks its connections.
func (s *server) trip(reason error) {
	s.mu.Lock()
	s.markDown(reason)
	conns := append([]*conn(nil), s.conns...)
	s.mu.Unlock()
	for _, c := range conns {
		if c != nil {
			c.fail(reason)
		}
	}
}

// markDown opens the breaker. The caller holds mu.
func (s *server) markDown(reason error) {
	s.reason = reason
	if in := s.info; in != nil && in.classic != nil {
		go in.classic.close()
		s.epoch++
	}
	s.info = nil
	if !s.since.IsZero() || s.closed {
		return
	}
	s.since = time.Now()
	s.isDown.Store(true)
	s.cl.log.Error("a cache server does not answer: requests to it fail at once until it does", "server", s.name,
		"address", s.address, "err", reason, "asked_again_every", s.cl.retry())
	select {
	case s.downed <- struct{}{}:
	default:
	}
}

// markUp closes the breaker. The caller holds mu.
func (s *server) markUp(in *info) {
	if !s.since.IsZero() {
		s.cl.log.Info("a cache server answers again", "server", s.name, "address", s.address, "version", in.version,
			"after", time.Since(s.since).Round(time.Millisecond))
		s.since = time.Time{}
		s.isDown.Store(false)
	}
}

// close ends the connections after what is queued, unlocks above all, went out, which it waits for until the deadline.
func (s *server) close(deadline time.Time) {
	queued := task{done: make(chan struct{})}
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case s.tasks <- queued:
		select {
		case <-queued.done:
		case <-timer.C:
		}
	case <-timer.C:
	}
	s.mu.Lock()
	s.closed = true
	conns := append([]*conn(nil), s.conns...)
	in := s.info
	s.mu.Unlock()
	for _, c := range conns {
		if c == nil {
			continue
		}
		b := newBatch()
		b.noop()
		c.do(b, deadline) // its error means that the connection is gone, which is what is wanted
		c.fail(sessfs.ErrClosed)
	}
	if in != nil && in.classic != nil {
		in.classic.close()
	}
	s.ended.Do(func() { close(s.gone) })
}
