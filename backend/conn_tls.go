package backend

import (
	"crypto/tls"
	"errors"
	"net"
	"sync"
)

// tlsPipe is what a tls.Conn reads from and writes to: a connection, and since a loop has its descriptor only memory. The
// loop puts in what came, and sends what it finds: crypto/tls goes on after an error that says that it is temporary, so that
// neither goroutines nor descriptors are needed in between.
type tlsPipe struct {
	net.Conn
	detached bool // written before the loop begins

	buf []byte // the loop's own
	in  []byte // of it that is not yet taken; the loop's own

	mu  sync.Mutex
	out []byte // guarded by mu: to be sent
}

// errLater is the end of what has come so far.
type errLater struct{}

func (errLater) Error() string   { return "more is to come" }
func (errLater) Timeout() bool   { return false }
func (errLater) Temporary() bool { return true }

var _ net.Error = errLater{}

func (p *tlsPipe) Read(b []byte) (int, error) {
	if !p.detached {
		return p.Conn.Read(b)
	}
	if len(p.in) == 0 {
		return 0, errLater{}
	}
	n := copy(b, p.in)
	p.in = p.in[n:]
	return n, nil
}

func (p *tlsPipe) Write(b []byte) (int, error) {
	if !p.detached {
		return p.Conn.Write(b)
	}
	p.mu.Lock()
	p.out = append(p.out, b...)
	p.mu.Unlock()
	return len(b), nil
}

// swap takes what is to be sent, and gives memory for what follows.
func (p *tlsPipe) swap(next []byte) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := p.out
	p.out = next[:0]
	return out
}

// tlsEnd is this end of the TLS of a conn.
type tlsEnd struct {
	tls   *tls.Conn
	pipe  *tlsPipe
	plain []byte // guarded by the conn's wmu
}

// detach takes the TLS out of a connection and returns it with what is below.
func detach(nc net.Conn) (*tlsEnd, net.Conn) {
	t, ok := nc.(*tls.Conn)
	if !ok {
		return nil, nc
	}
	pipe := t.NetConn().(*tlsPipe)
	pipe.detached, pipe.buf = true, make([]byte, readAhead)
	return &tlsEnd{tls: t, pipe: pipe}, pipe.Conn
}

const recordSize = 8 << 10 // bytes of commands after which another TLS record begins

// encrypt makes records of the batches. memcached below 1.6.39 goes to sleep over what is left of a record that it did not
// read in one go, so that each ends where a command ends, is smaller than its buffer, and has nothing behind the end of a
// value. The caller holds the conn's wmu.
func (s *tlsEnd) encrypt(batches []*batch, memory []byte) []byte {
	rest := s.pipe.swap(memory) // an answer to the server's wish for another key goes first
	if len(rest) > 0 {
		s.pipe.Write(rest)
	}
	for _, b := range batches {
		at, bodies := 0, b.bodies
		for _, cmd := range b.commands {
			for len(bodies) > 0 && bodies[0].at < cmd.end {
				s.plain = append(s.plain, b.text[at:bodies[0].at]...)
				s.flush()
				s.tls.Write(bodies[0].data)
				at, bodies = bodies[0].at, bodies[1:]
			}
			s.plain = append(s.plain, b.text[at:cmd.end]...)
			at = cmd.end
			if cmd.stores() || len(s.plain) >= recordSize {
				s.flush()
			}
		}
	}
	s.flush()
	return s.pipe.swap(nil)
}

// flush writes into memory, which does not fail while the connection is whole; if it is not, reading tells.
func (s *tlsEnd) flush() {
	if len(s.plain) > 0 {
		s.tls.Write(s.plain)
		s.plain = s.plain[:0]
	}
}

// receive has n bytes that came taken as answers, as far as they are complete.
func (s *tlsEnd) receive(n int, c *conn) error {
	s.pipe.in = s.pipe.buf[:n]
	for {
		n, err := s.tls.Read(c.answer.room())
		if errors.Is(err, errLater{}) {
			return nil
		}
		if err != nil {
			return explainTLS(timedOut(err), "")
		}
		c.answer.take(n)
		if err := c.taken(); err != nil {
			return err
		}
	}
}
