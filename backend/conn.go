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

// conn is a pipelined connection in the daemon's event loops: batches of many goroutines are written together, by
// whichever loop comes first, and their answers, which come in order, are taken from it by the conn's own. It breaks at
// the first surprise and is not used again.
//
// Order of locks: wmu, then mu.
type conn struct {
	group   *loop.Group
	loop    *loop.Loop
	broken  func(*conn, error) // called once, before anybody who waits learns of it
	gone    chan struct{}      // closed after broken was called and everybody was told
	queued  atomic.Int32       // batches without an answer
	answers atomic.Uint64      // batches that were answered

	wmu    sync.Mutex
	fd     int      // -1: closed. Written by the loop, guarded by wmu for others
	wbuf   []byte   // guarded by wmu
	unsent [][]byte // guarded by wmu: what the socket did not take yet
	full   bool     // guarded by wmu: the loop waits until it takes more

	mu                      sync.Mutex
	err                     error     // why it broke; guarded by mu
	out                     []*batch  // not yet written; guarded by mu
	due                     due       // when they will be; guarded by mu
	sent                    []*batch  // without all their answers, in their order; guarded by mu
	late                    time.Time // when a tick first found one whose time is over; guarded by mu
	lateAnswers, lateRounds uint64    // answers then, or when there was the last new one, and the loop's rounds; guarded by mu

	answer answers // the loop's own
	tls    *tlsEnd // nil: none
}

// newConn takes nc over.
func newConn(nc net.Conn, maxValue int, g *loop.Group, l *loop.Loop, broken func(*conn, error)) (*conn, error) {
	end, nc := detach(nc)
	defer nc.Close()
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("a %T has no descriptor", nc)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	c := &conn{group: g, loop: l, broken: broken, gone: make(chan struct{}), answer: answers{limit: maxValue}, tls: end}
	if cerr := raw.Control(func(fd uintptr) { c.fd, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); cerr != nil {
		return nil, cerr
	}
	if err != nil {
		return nil, fmt.Errorf("duplicating a descriptor: %w", err)
	}
	if err := l.Add(c.fd, c, false); err != nil {
		unix.Close(c.fd)
		return nil, err
	}
	return c, nil
}

// do sends b and waits for its answers. At the deadline the connection breaks: what comes later has no taker.
func (c *conn) do(b *batch, deadline time.Time) error {
	b.deadline = deadline
	return c.await(b, c.send(b))
}

// await waits for the answers to b, which was sent with that error.
func (c *conn) await(b *batch, err error) error {
	if err != nil {
		if !errors.Is(err, errFull) {
			<-c.gone // so that nobody is given this connection again
		}
		return err
	}
	<-b.done
	return b.err
}

// send queues b. It does not block.
func (c *conn) send(b *batch) error { return c.queue(b, now) }

// sendLater queues b to go out with what follows it, or in a moment.
func (c *conn) sendLater(b *batch) error { return c.queue(b, later) }

// due is when the loops will flush a conn.
type due uint8

const (
	unasked due = iota
	later
	now
)

func (c *conn) queue(b *batch, when due) error {
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
	tell := c.due < when
	c.due = max(c.due, when)
	c.mu.Unlock()
	switch {
	case !tell:
	case when == now:
		c.group.Soon(c)
	default:
		c.group.Later(c)
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
		c.loop.End(c)
	}
}

// Flush implements loop.Source: it writes what was queued.
func (c *conn) Flush() {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return // End tells those who wait
	}
	if len(c.out) == 0 {
		c.mu.Unlock()
		return // what was to go out later went with something else
	}
	batches := c.out
	c.out, c.due = nil, unasked
	for _, b := range batches {
		b.written = true
	}
	c.sent = append(c.sent, batches...)
	size := 0
	for _, b := range batches {
		size += b.size()
	}
	small := size <= gather && (c.tls != nil || len(c.unsent) == 0)
	switch {
	case !small:
		for _, b := range batches {
			b.parted = true
			if c.tls == nil {
				c.unsent = b.parts(c.unsent)
			}
		}
	case c.tls != nil:
		c.encrypt(batches)
	default:
		c.wbuf = c.wbuf[:0]
		for _, b := range batches {
			c.wbuf = b.append(c.wbuf)
		}
		c.unsent = append(c.unsent[:0], c.wbuf)
	}
	c.mu.Unlock() // not before: whoever takes the answer may use the batch for something else
	if !small && c.tls != nil {
		c.encrypt(batches)
	}
	c.push()
}

// encrypt appends the batches to what is unsent. The caller holds wmu.
func (c *conn) encrypt(batches []*batch) {
	if len(c.unsent) > 0 {
		c.unsent = append(c.unsent, c.tls.encrypt(batches, nil))
		return
	}
	c.wbuf = c.tls.encrypt(batches, c.wbuf)
	c.unsent = append(c.unsent[:0], c.wbuf)
	if cap(c.wbuf) > 4*gather {
		c.wbuf = nil
	}
}

// push writes what the socket takes. The caller holds wmu.
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
func (c *conn) Poll() bool {
	if c.fd < 0 {
		return false
	}
	c.wmu.Lock()
	if c.full {
		c.push()
	}
	c.wmu.Unlock()
	var room []byte
	if c.tls != nil {
		room = c.tls.pipe.buf
	} else {
		room = c.answer.room()
	}
	n, errno := loop.Read(c.fd, room)
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
	var err error
	if c.tls != nil {
		err = c.tls.receive(n, c)
	} else {
		c.answer.take(n)
		err = c.taken()
	}
	if err != nil {
		c.fail(err)
	}
	return true
}

// taken gives what was read to those who wait for it.
func (c *conn) taken() error {
	for {
		line, ok, err := c.answer.next()
		if err == nil && ok {
			err = c.reply(line)
		}
		if err != nil || !ok {
			return err
		}
	}
}

// reply gives an answer to the batch that waits for it.
func (c *conn) reply(line []byte) error {
	c.mu.Lock()
	if len(c.sent) == 0 {
		c.mu.Unlock()
		return fmt.Errorf("%w: %.40q without a question", errSurprise, line)
	}
	b := c.sent[0]
	c.mu.Unlock()
	if c.answer.value == nil {
		r, size, err := parseReply(b.commands[len(b.replies)], line)
		if err != nil {
			return err
		}
		if size >= 0 {
			if b.got += size; b.limit > 0 && b.got > b.limit {
				return fmt.Errorf("%w: %d bytes of values, %d at most were asked for", errSurprise, b.got, b.limit)
			}
			return c.answer.expect(r, size)
		}
		b.replies = append(b.replies, r)
	} else {
		b.replies = append(b.replies, c.answer.complete())
	}
	if len(b.replies) == len(b.commands) {
		c.mu.Lock()
		c.sent[0] = nil
		c.sent = c.sent[1:]
		c.mu.Unlock()
		c.queued.Add(-1)
		c.answers.Add(1)
		b.finish()
	}
	return nil
}

// End implements loop.Source: the loop forgets the connection, and everybody who waits learns why it broke.
func (c *conn) End() {
	c.loop.Remove(c.fd)
	c.wmu.Lock()
	unix.Close(c.fd)
	c.fd, c.unsent, c.wbuf, c.full = -1, nil, nil, false
	c.wmu.Unlock()
	c.mu.Lock()
	err, lost := c.err, append(c.sent, c.out...)
	c.sent, c.out = nil, nil
	c.mu.Unlock()
	c.queued.Store(0)
	c.broken(c, err)
	for _, b := range lost {
		b.err = err
	}
	close(c.gone)
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
