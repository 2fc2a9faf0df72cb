package backend

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"sessfs"
)

// connect asks the server what it can do and fills the places without a connection.
func (s *server) connect(a *attempt) {
	defer s.cl.running.Done()
	deadline := s.cl.deadline()
	ctx, end := context.WithDeadline(s.cl.ctx, deadline)
	defer end()
	in, err := s.probe(ctx)
	if err == nil {
		s.cl.learnFrom(s, in) // before anybody uses it
	}
	if err == nil && in.classic == nil {
		err = s.fill(ctx, in)
	}
	s.mu.Lock()
	s.attempt = nil
	a.err = err
	switch {
	case s.closed || s.cl.ctx.Err() != nil:
		a.err = sessfs.ErrClosed
	case err != nil:
		s.markDown(err)
	default:
		restarted := s.last != nil && (s.last.pid != in.pid || s.last.started.Sub(in.started).Abs() > 5*time.Second)
		if restarted {
			s.restarted = time.Now()
		}
		if !s.since.IsZero() || restarted {
			s.mendSoon() // it was restarted, or others have stored without it
		}
		if s.complete(in) {
			s.info, s.last = in, in
		}
		s.markUp(in)
	}
	closeInfo := in != nil && in.classic != nil && s.info != in
	s.mu.Unlock()
	if closeInfo {
		in.classic.close()
	}
	if a.err == nil {
		s.cl.learnSoon() // a server that is new or was restarted has no document, and knows no hosts
		s.cl.announceSoon()
	}
	close(a.done)
}

// itemMax is the limit of the server's items.
func (s *server) itemMax() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil {
		return defaultItemMax
	}
	return s.last.itemMax
}

func (s *server) complete(in *info) bool {
	for _, c := range s.conns {
		if c == nil && in.classic == nil {
			return false
		}
	}
	return true
}

// dial makes a connection over which commands may go: all are made here.
func (s *server) dial(ctx context.Context) (net.Conn, error) {
	nc, how, err := s.cl.guard.Load().connect(ctx, s)
	switch {
	case err == nil:
	case errors.Is(err, context.DeadlineExceeded), isTimeout(err), errors.Is(err, errTimeout):
		return nil, errors.New("connecting: no answer in time")
	default:
		return nil, fmt.Errorf("connecting: %w", plainError(err))
	}
	s.secured.Store(&how)
	return nc, nil
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

func (s *server) fill(ctx context.Context, in *info) error {
	for i := range s.conns {
		s.mu.Lock()
		there := s.conns[i] != nil
		s.mu.Unlock()
		if there {
			continue
		}
		nc, err := s.dial(ctx)
		if err != nil {
			return err
		}
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			nc.Close()
			return sessfs.ErrClosed
		}
		s.cl.running.Add(1)
		c, err := newConn(nc, in.itemMax, s.cl.loops, s.cl.loops.Loops()[i%len(s.cl.loops.Loops())], s.broke)
		if err != nil {
			s.cl.running.Done()
			s.mu.Unlock()
			return err
		}
		s.conns[i] = c
		s.mu.Unlock()
		go func() {
			defer s.cl.running.Done()
			<-c.gone
		}()
	}
	return nil
}
