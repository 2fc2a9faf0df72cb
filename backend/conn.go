package backend

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sessfs/internal/loop"
)

var (
	errTimeout = errors.New("no answer in time")
	errClosed  = errors.New("the server closed the connection")
	errFull    = errors.New("too many requests wait for their answers")
)

const (
	maxPending = 1 << 16  // batches without answer on one connection
	gather     = 64 << 10 // parts of a Write that are shorter are copied together; longer ones go out with writev
)

// conn is a pipelined connection in the daemon's event loop: batches of many goroutines are written together, and their
// answers, which come in order, are taken from it. It breaks at the first surprise and is not used again.
type conn struct {
	fd     int
	loop   *loop.Loop
	broken func(*conn, error) // called once, before anybody who waits learns of it
	gone   chan struct{}      // closed after broken was called and everybody was told
	queued atomic.Int32       // batches without an answer

	mu  sync.Mutex
	err error    // why it broke; guarded by mu
	out []*batch // not yet given to the loop; guarded by mu

	// The loop's own.
	sent   []*batch // without all their answers, in their order
	answer answers
	wbuf   []byte
	unsent [][]byte // what the socket did not take yet
	full   bool     // the loop waits until it takes more
}

// newConn takes nc over.
func newConn(nc net.Conn, maxValue int, l *loop.Loop, broken func(*conn, error)) (*conn, error) {
	defer nc.Close()
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("a %T has no descriptor", nc)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	c := &conn{loop: l, broken: broken, gone: make(chan struct{}), answer: answers{limit: maxValue}}
	if cerr := raw.Control(func(fd uintptr) { c.fd, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); cerr != nil {
		return nil, cerr
	}
	if err != nil {
		return nil, fmt.Errorf("duplicating a descriptor: %w", err)
	}
	if err := l.Add(c.fd, c); err != nil {
		unix.Close(c.fd)
		return nil, err
	}
	return c, nil
}

// do sends b and waits for its answers. At the deadline the connection breaks: what comes later has no taker.
func (c *conn) do(b *batch, deadline time.Time) error {
	b.deadline = deadline
	if err := c.send(b); err != nil {
		if !errors.Is(err, errFull) {
			<-c.gone // so that nobody is given this connection again
		}
		return err
	}
	<-b.done
	return b.err
}

// send queues b. It does not block.
func (c *conn) send(b *batch) error {
	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		return c.err
	}
	if c.queued.Load() >= maxPending {
		c.mu.Unlock()
		return errFull
	}
	c.queued.Add(1)
	c.out = append(c.out, b)
	first := len(c.out) == 1
	c.mu.Unlock()
	if first {
		c.loop.Soon(c)
	}
	return nil
}

// fail breaks the connection, for the first reason that is given. The loop sees to the rest.
func (c *conn) fail(err error) {
	c.mu.Lock()
	first := c.err == nil
	if first {
		c.err = err
	}
	c.mu.Unlock()
	if first {
		c.loop.Soon(c)
	}
}

// Flush implements loop.Source: it writes what was queued.
func (c *conn) Flush() {
	c.mu.Lock()
	err, batches := c.err, c.out
	c.out = nil
	c.mu.Unlock()
	if err != nil {
		c.sent = append(c.sent, batches...)
		c.dispose(err)
		return
	}
	for _, b := range batches {
		b.written = true
	}
	c.sent = append(c.sent, batches...)
	if c.gatherSmall(batches) {
		c.unsent = append(c.unsent[:0], c.wbuf)
	} else {
		for _, b := range batches {
			c.unsent = b.parts(c.unsent)
		}
	}
	c.push()
}

// gatherSmall copies the batches together where they are short and nothing waits before them.
func (c *conn) gatherSmall(batches []*batch) bool {
	if len(c.unsent) > 0 {
		return false
	}
	size := 0
	for _, b := range batches {
		size += b.size()
	}
	if size > gather {
		return false
	}
	c.wbuf = c.wbuf[:0]
	for _, b := range batches {
		c.wbuf = b.append(c.wbuf)
	}
	return true
}

// push writes what the socket takes.
func (c *conn) push() {
	for len(c.unsent) > 0 {
		n, errno := writeParts(c.fd, c.unsent)
		switch errno {
		case 0:
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			if !c.full {
				c.full = true
				c.loop.Writable(c.fd, true)
			}
			return
		default:
			c.fail(fmt.Errorf("writing: %w", errno))
			return
		}
		c.unsent = consume(c.unsent, n)
	}
	if c.full {
		c.full = false
		c.loop.Writable(c.fd, false)
	}
}

func writeParts(fd int, parts [][]byte) (int, syscall.Errno) {
	if len(parts) == 1 {
		return loop.Write(fd, parts[0])
	}
	var iov [64]unix.Iovec
	n := 0
	for _, p := range parts {
		if len(p) == 0 {
			continue
		}
		if n == len(iov) {
			break
		}
		iov[n].Base = &p[0]
		iov[n].SetLen(len(p))
		n++
	}
	return loop.Writev(fd, iov[:n])
}

// consume takes n bytes from the front.
func consume(parts [][]byte, n int) [][]byte {
	for len(parts) > 0 && n >= len(parts[0]) {
		n -= len(parts[0])
		parts = parts[1:]
	}
	if len(parts) > 0 {
		parts[0] = parts[0][n:]
	}
	return parts
}

// Poll implements loop.Source: it takes the answers that are there.
func (c *conn) Poll(hint bool) bool {
	if c.fd < 0 || !hint && len(c.sent) == 0 {
		return false
	}
	if hint && c.full {
		c.push()
	}
	n, errno := loop.Read(c.fd, c.answer.room())
	switch {
	case errno == unix.EAGAIN, errno == unix.EINTR:
		return false
	case errno != 0:
		c.fail(errno)
		return true
	case n == 0:
		c.fail(errClosed)
		return true
	}
	c.answer.take(n)
	for {
		line, ok, err := c.answer.next()
		if err != nil {
			c.fail(err)
			return true
		}
		if !ok {
			return true
		}
		if err := c.reply(line); err != nil {
			c.fail(err)
			return true
		}
	}
}

// reply gives an answer to the batch that waits for it.
func (c *conn) reply(line []byte) error {
	if len(c.sent) == 0 {
		return fmt.Errorf("%w: %.40q without a question", errSurprise, line)
	}
	b := c.sent[0]
	if c.answer.value == nil {
		r, size, err := parseReply(b.commands[len(b.replies)], line)
		if err != nil {
			return err
		}
		if size >= 0 {
			return c.answer.expect(r, size)
		}
		b.replies = append(b.replies, r)
	} else {
		b.replies = append(b.replies, c.answer.complete())
	}
	if len(b.replies) == len(b.commands) {
		c.sent[0] = nil
		c.sent = c.sent[1:]
		c.queued.Add(-1)
		b.finish()
	}
	return nil
}

// Tick implements loop.Source: it breaks the connection when somebody has waited for too long.
func (c *conn) Tick(now time.Time) {
	for _, b := range c.sent {
		if !b.deadline.IsZero() && now.After(b.deadline) {
			c.fail(errTimeout)
			return
		}
	}
}

// Waiting implements loop.Source.
func (c *conn) Waiting() bool { return len(c.sent) > 0 }

// dispose ends the connection: the loop forgets it, and everybody who waits learns why.
func (c *conn) dispose(err error) {
	if c.fd >= 0 {
		c.loop.Remove(c.fd)
		unix.Close(c.fd)
		c.fd = -1
		c.broken(c, err)
	}
	lost := c.sent
	c.sent, c.unsent, c.wbuf = nil, nil, nil
	c.queued.Store(0)
	for _, b := range lost {
		b.err = err
	}
	select {
	case <-c.gone:
	default:
		close(c.gone)
	}
	for _, b := range lost {
		b.finish()
	}
}

func (b *batch) finish() {
	if b.after != nil {
		b.after(b)
		return
	}
	b.done <- struct{}{}
}
