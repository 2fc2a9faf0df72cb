package fusefs

import (
	"sync"

	"sessfs/internal/handover"
	"sessfs/internal/hist"
)

// workers are goroutines for requests that may wait. An idle one is used again, the last first: its stack has grown to
// what a request needs, and is in the cache. There are as many as requests have ever waited at once, less those that
// end because too many are idle.
type workers struct {
	handle  func(work)
	running sync.WaitGroup

	mu     sync.Mutex
	idle   []chan work // guarded by mu
	closed bool        // guarded by mu
}

// work is a request of n bytes.
type work struct {
	q     *handover.Request
	n     int
	op    uint32
	begun hist.Instant // when it was read
}

func (w work) in() []byte { return w.q.Room()[:w.n] }

const maxIdle = 64

// do has a worker handle w. It does not block.
func (p *workers) do(w work) {
	p.mu.Lock()
	var ch chan work
	if n := len(p.idle); n > 0 {
		ch = p.idle[n-1]
		p.idle = p.idle[:n-1]
	}
	p.mu.Unlock()
	if ch == nil {
		ch = make(chan work, 1)
		p.running.Add(1)
		go p.work(ch)
	}
	ch <- w
}

func (p *workers) work(ch chan work) {
	defer p.running.Done()
	for w := range ch {
		p.handle(w)
		p.mu.Lock()
		stay := !p.closed && len(p.idle) < maxIdle
		if stay {
			p.idle = append(p.idle, ch)
		}
		p.mu.Unlock()
		if !stay {
			return
		}
	}
}

// close waits until all that was given to do is handled, and ends the workers. do must not be called any more.
func (p *workers) close() {
	p.mu.Lock()
	p.closed = true
	for _, ch := range p.idle {
		close(ch)
	}
	p.idle = nil
	p.mu.Unlock()
	p.running.Wait()
}
