package proxy

import (
	"net"
	"sync"
	"time"
)

// link is a client's connection and the one to the server that belongs to it.
type link struct {
	p              *Proxy
	client, server *net.TCPConn
	once           sync.Once
	gone           chan struct{} // closed by reset
}

// reset ends both sides at once.
func (l *link) reset() {
	l.once.Do(func() {
		close(l.gone)
		for _, c := range []*net.TCPConn{l.client, l.server} {
			c.SetLinger(0)
			c.Close()
		}
	})
}

// chunk is some bytes on their way; nil is the end.
type chunk struct {
	data []byte
	read time.Time
}

// As much as this is on its way in one direction, then its sender has to wait.
const (
	chunkSize = 64 << 10
	maxChunks = 256
)

// pass serves both directions until both have ended.
func (l *link) pass() {
	var both sync.WaitGroup
	both.Go(func() { l.direction(l.client, l.server, false) })
	both.Go(func() { l.direction(l.server, l.client, true) })
	both.Wait()
}

func (l *link) direction(from, to *net.TCPConn, answers bool) {
	queue := make(chan chunk, maxChunks)
	var reader sync.WaitGroup
	reader.Go(func() {
		defer close(queue)
		for {
			buf := make([]byte, chunkSize)
			n, err := from.Read(buf)
			if n > 0 {
				select {
				case queue <- chunk{buf[:n], time.Now()}:
				case <-l.gone:
					return
				}
			}
			if err != nil {
				return
			}
		}
	})
	for c := range queue {
		if !l.wait(c.read, answers) || !l.write(to, c.data, answers) {
			l.reset()
			break
		}
	}
	// The end of a connection is held back like everything else.
	if l.wait(time.Now(), answers) {
		to.CloseWrite()
	}
	reader.Wait()
}

// wait returns when something that was read at that time may be passed on; false: it never may.
func (l *link) wait(read time.Time, answers bool) bool {
	for {
		m, changed := l.p.current()
		held := m.HoldRequests
		left := time.Duration(0)
		if answers {
			held, left = m.HoldAnswers, time.Until(read.Add(m.Delay))
		}
		if !held && left <= 0 {
			select {
			case <-l.gone:
				return false
			default:
				return true
			}
		}
		timer := time.NewTimer(left)
		if held {
			timer.Stop()
		}
		select {
		case <-changed:
		case <-timer.C:
		case <-l.gone:
			timer.Stop()
			return false
		}
		timer.Stop()
	}
}

// write passes data on, broken where the mode wants it; false: the connection is over.
func (l *link) write(to *net.TCPConn, data []byte, answers bool) bool {
	how, at := Nothing, 0
	if answers {
		how, at = l.p.spoil(data)
	}
	switch how {
	case Reset:
		to.Write(data[:at])
		return false
	case Cut:
		to.Write(data[:at])
		to.Close()
		return false
	}
	_, err := to.Write(data)
	return err == nil
}
