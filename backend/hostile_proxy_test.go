package backend

import (
	"net"
	"sync"
	"testing"
)

// proxy stands between a Cluster and a real memcached and may change what goes through. A hook gets each piece as it
// came from the network; what it returns goes on, and false closes the connection after that.
type proxy struct {
	addr string
	up   string

	mu       sync.Mutex
	request  func([]byte) ([]byte, bool) // guarded by mu
	response func([]byte) ([]byte, bool) // guarded by mu
	misdeed  misdeed                     // guarded by mu
	conns    map[net.Conn]bool           // guarded by mu
	accepted int                         // guarded by mu
}

// misdeed is what a server does beside giving other answers.
type misdeed struct {
	greeting string // said to whoever connects, before any question
	drip     bool   // an answer comes a byte at a time
	flood    string // comes behind the first answer, again and again
}

func startProxy(t testing.TB, m *memcached) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{addr: l.Addr().String(), up: m.socket, conns: make(map[net.Conn]bool)}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.breakAll()
		wg.Wait()
	})
	return p
}

func (p *proxy) hook(request, response func([]byte) ([]byte, bool)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.request, p.response, p.misdeed = request, response, misdeed{}
}

// does makes the server misbehave from now on. Those that are connected are greeted, too.
func (p *proxy) does(response func([]byte) ([]byte, bool), m misdeed) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.response, p.misdeed = response, m
	for c, fromClient := range p.conns {
		if fromClient && m.greeting != "" {
			c.Write([]byte(m.greeting))
		}
	}
}

// connections is how many there have been.
func (p *proxy) connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.accepted
}

func (p *proxy) breakAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

func (p *proxy) serve(c net.Conn) {
	s, err := net.Dial("unix", p.up)
	if err != nil {
		c.Close()
		return
	}
	p.mu.Lock()
	p.conns[c], p.conns[s] = true, false
	p.accepted++
	greeting := p.misdeed.greeting
	p.mu.Unlock()
	if greeting != "" {
		c.Write([]byte(greeting))
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		p.pass(s, c, func() (func([]byte) ([]byte, bool), misdeed) { return p.request, misdeed{} })
	})
	p.pass(c, s, func() (func([]byte) ([]byte, bool), misdeed) { return p.response, p.misdeed })
	wg.Wait()
	p.mu.Lock()
	delete(p.conns, c)
	delete(p.conns, s)
	p.mu.Unlock()
}

func (p *proxy) pass(to, from net.Conn, hooks func() (func([]byte) ([]byte, bool), misdeed)) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 256<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		b, ok := buf[:n], true
		p.mu.Lock()
		hook, m := hooks()
		if hook != nil {
			b, ok = hook(b)
		}
		p.mu.Unlock()
		for m.drip && len(b) > 1 && err == nil {
			_, err = to.Write(b[:1])
			b = b[1:]
		}
		if _, err := to.Write(b); err != nil || !ok {
			return
		}
		for m.flood != "" && err == nil {
			_, err = to.Write([]byte(m.flood))
		}
	}
}

func says(text string) func([]byte) ([]byte, bool) {
	return func([]byte) ([]byte, bool) { return []byte(text), true }
}
