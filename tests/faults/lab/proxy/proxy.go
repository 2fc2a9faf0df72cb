// Package proxy stands between one host and one cache server of the fault laboratory: it holds back what either says,
// is slow, breaks off in the middle of an answer, or garbles it. With a Double it takes the commands apart and lies.
package proxy

import (
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// Break is what is done to some answers.
type Break uint8

// The ways to break an answer.
const (
	Nothing Break = iota
	Reset         // the connection is reset in the middle of the answer
	Cut           // the connection ends in the middle of the answer
	Garble        // some bits of the answer are others
)

// Mode is how a Proxy behaves; the zero Mode passes everything on at once.
type Mode struct {
	HoldRequests, HoldAnswers bool          // nothing comes through in that direction, until the mode changes
	Delay                     time.Duration // of every answer
	Break                     Break
	Every                     int // one answer of so many is broken
}

// Proxy is a listener that stands for a server.
type Proxy struct {
	Addr   string
	target string
	double Double
	l      net.Listener
	done   sync.WaitGroup

	mu      sync.Mutex
	rnd     *rand.Rand
	mode    Mode
	changed chan struct{} // closed when the mode changes
	closed  bool
	links   map[*link]bool
	broken  int
}

// Listen makes a Proxy before target, on a port of its own. What is drawn comes from seed. The double may be nil.
func Listen(target string, seed uint64, double Double) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{Addr: l.Addr().String(), target: target, double: double, l: l, rnd: rand.New(rand.NewPCG(seed, 1)),
		changed: make(chan struct{}), links: make(map[*link]bool)}
	p.done.Go(p.accept)
	return p, nil
}

// Set changes the mode. What was held back is passed on now, as a network does that was away for a moment; after Drop it
// is gone.
func (p *Proxy) Set(m Mode) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mode = m
	close(p.changed)
	p.changed = make(chan struct{})
}

// Drop resets all connections, with everything that was held back.
func (p *Proxy) Drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.reset()
	}
}

// Broken is how many answers were broken so far.
func (p *Proxy) Broken() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.broken
}

// Close ends the listener and all connections.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.l.Close()
	p.Drop()
	p.done.Wait()
}

func (p *Proxy) accept() {
	for {
		client, err := p.l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // no descriptors at the moment
			continue
		}
		p.done.Go(func() { p.serve(client.(*net.TCPConn)) })
	}
}

// serve connects a client until both sides have ended.
func (p *Proxy) serve(client *net.TCPConn) {
	nc, err := net.Dial("tcp", p.target)
	if err != nil {
		client.SetLinger(0)
		client.Close()
		return
	}
	l := &link{p: p, client: client, server: nc.(*net.TCPConn), gone: make(chan struct{})}
	p.mu.Lock()
	if p.closed {
		l.reset()
	}
	p.links[l] = true
	p.mu.Unlock()
	if p.double != nil {
		l.lie(p.double)
	} else {
		l.pass()
	}
	client.Close()
	nc.Close()
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

// current is the mode, and a channel that is closed when it changes.
func (p *Proxy) current() (Mode, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mode, p.changed
}

// spoil draws whether an answer is broken, and where.
func (p *Proxy) spoil(data []byte) (Break, int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.mode
	if m.Break == Nothing || len(data) < 2 || p.rnd.IntN(max(1, m.Every)) != 0 {
		return Nothing, 0
	}
	p.broken++
	at := 1 + p.rnd.IntN(len(data)-1)
	if m.Break == Garble {
		for range 1 + p.rnd.IntN(3) {
			data[p.rnd.IntN(len(data))] ^= 1 << p.rnd.IntN(8)
		}
	}
	return m.Break, at
}
