package backend

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

var (
	errTimeout = errors.New("no answer in time")
	errClosed  = errors.New("the server closed the connection")
	errFull    = errors.New("too many requests wait for their answers")
)

const (
	maxLine    = 2048     // bytes of the longest answer line
	maxPending = 1 << 16  // batches without answer on one connection
	gather     = 64 << 10 // up to so many bytes are copied together for one Write; more goes out with writev
)

// conn is a pipelined connection: batches of many goroutines are written together by one goroutine and their answers,
// which come in order, taken by another. It breaks at the first surprise and is not used again.
type conn struct {
	nc       net.Conn
	maxValue int                  // bytes of the largest value that is taken from the server
	timeout  func() time.Duration // of one Write
	broken   func(*conn, error)   // called once, before anybody who waits learns of it
	wake     chan struct{}        // capacity 1: there is something to write
	closed   chan struct{}
	gone     chan struct{} // closed after broken was called
	running  sync.WaitGroup

	mu      sync.Mutex
	err     error    // why it broke; guarded by mu
	out     []*batch // not yet written; guarded by mu
	pending []*batch // without an answer, those in out included; guarded by mu
}

func newConn(nc net.Conn, maxValue int, timeout func() time.Duration, broken func(*conn, error)) *conn {
	c := &conn{nc: nc, maxValue: maxValue, timeout: timeout, broken: broken, wake: make(chan struct{}, 1), closed: make(chan struct{}), gone: make(chan struct{})}
	c.running.Add(2)
	go c.write()
	go c.read()
	return c
}

// do sends b and waits for its answers. At the deadline the connection breaks: what comes later has no taker.
func (c *conn) do(b *batch, deadline time.Time) error {
	if err := c.send(b); err != nil {
		if !errors.Is(err, errFull) {
			<-c.gone // so that nobody is given this connection again
		}
		return err
	}
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-b.done:
	case <-timer.C:
		c.fail(errTimeout)
		<-b.done
	}
	return b.err
}

// send queues b. It does not block.
func (c *conn) send(b *batch) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	if len(c.pending) >= maxPending {
		return errFull
	}
	c.out = append(c.out, b)
	c.pending = append(c.pending, b)
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return nil
}

// fail breaks the connection, for the first reason that is given.
func (c *conn) fail(err error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = err
	lost := c.pending
	c.pending, c.out = nil, nil
	for _, b := range lost {
		b.err = err
	}
	c.mu.Unlock()
	c.nc.Close()
	close(c.closed)
	c.broken(c, err)
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

func (c *conn) write() {
	defer c.running.Done()
	var buf []byte
	for {
		select {
		case <-c.closed:
			return
		case <-c.wake:
		}
		c.mu.Lock()
		batches := c.out
		c.out = nil
		for _, b := range batches {
			b.written = true
		}
		c.mu.Unlock()
		var parts net.Buffers
		for i, b := range batches {
			for j, s := range b.segments {
				parts = append(parts, s.b)
				last := i == len(batches)-1 && j == len(b.segments)-1
				if !s.cut && !last {
					continue
				}
				var err error
				if buf, err = c.flush(parts, buf[:0]); err != nil {
					c.fail(fmt.Errorf("writing: %w", plainError(err)))
					return
				}
				parts = nil
			}
		}
	}
}

// flush writes the parts at once, copied into buf where they are small; it returns buf for the next use.
func (c *conn) flush(parts net.Buffers, buf []byte) ([]byte, error) {
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	c.nc.SetWriteDeadline(time.Now().Add(c.timeout()))
	if size > gather {
		_, err := parts.WriteTo(c.nc)
		return buf, err
	}
	for _, p := range parts {
		buf = append(buf, p...)
	}
	_, err := c.nc.Write(buf)
	return buf, err
}

func (c *conn) read() {
	defer c.running.Done()
	r := bufio.NewReaderSize(c.nc, 16<<10)
	for {
		if err := c.take(r); err != nil {
			c.fail(err)
			return
		}
	}
}

// take reads one answer and gives it to the batch that waits for it.
func (c *conn) take(r *bufio.Reader) error {
	line, err := readLine(r)
	if err != nil {
		return err
	}
	c.mu.Lock()
	if c.err != nil || len(c.pending) == 0 {
		err := c.err
		c.mu.Unlock()
		if err == nil {
			err = fmt.Errorf("%w: %.40q without a question", errSurprise, line)
		}
		return err
	}
	b := c.pending[0]
	cmd := b.commands[len(b.replies)]
	c.mu.Unlock()
	answer, size, err := parseReply(cmd, line)
	if err != nil {
		return err
	}
	if size >= 0 {
		if answer.item.value, err = readValue(r, size, c.maxValue); err != nil {
			return err
		}
	}
	c.mu.Lock()
	if err := c.err; err != nil {
		c.mu.Unlock()
		return err
	}
	b.replies = append(b.replies, answer)
	full := len(b.replies) == len(b.commands)
	if full {
		c.pending[0] = nil
		c.pending = c.pending[1:]
	}
	c.mu.Unlock()
	if full {
		b.finish()
	}
	return nil
}

// readLine returns a line without its end. It is valid until the next read.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull), err == nil && len(line) > maxLine:
		return nil, fmt.Errorf("%w: a line without end", errSurprise)
	case errors.Is(err, io.EOF):
		return nil, errClosed
	case err != nil:
		return nil, plainError(err)
	case !bytes.HasSuffix(line, []byte("\r\n")):
		return nil, fmt.Errorf("%w: %.40q", errSurprise, line)
	}
	return line[:len(line)-2], nil
}

// readValue reads size bytes and the line end after them. The length is the server's word: memory beyond the first
// megabyte is taken only as bytes arrive.
func readValue(r *bufio.Reader, size, limit int) ([]byte, error) {
	const step = 1 << 20
	if size > limit {
		return nil, fmt.Errorf("%w: a value of %d bytes, it takes %d at most", errSurprise, size, limit)
	}
	value := make([]byte, min(size, step))
	for have := 0; ; {
		n, err := io.ReadFull(r, value[have:])
		if have += n; err != nil {
			return nil, fmt.Errorf("an answer was cut: %w", plainError(err))
		}
		if have == size {
			break
		}
		value = append(value, make([]byte, min(size-have, max(step, have)))...)
	}
	var end [2]byte
	if _, err := io.ReadFull(r, end[:]); err != nil {
		return nil, fmt.Errorf("an answer was cut: %w", plainError(err))
	}
	if string(end[:]) != "\r\n" {
		return nil, fmt.Errorf("%w: a value without end", errSurprise)
	}
	return value, nil
}

// plainError leaves the addresses out of a network error, which change with every connection.
func plainError(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}
