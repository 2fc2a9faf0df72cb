package backend

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sessfs/internal/loop"
)

// dialed is a conn to a server of the test's own, and the server's end of it.
func dialed(t *testing.T) (*conn, net.Conn) {
	l, err := loop.New(2)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	nc, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c, err := newConn(nc, 1<<20, l, l.Loops()[1], func(*conn, error) {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.fail(errClosed)
		<-c.gone
		server.Close()
		l.Close()
	})
	return c, server
}

// A server that does not read for a while: what the socket does not take waits, nothing is lost, nothing changes places.
func TestConnWaitsForTheSocket(t *testing.T) {
	c, server := dialed(t)
	const batches, size = 40, 700_000
	body := func(i int) []byte { return bytes.Repeat([]byte{byte('a' + i%26)}, size+i) }
	var wg sync.WaitGroup
	for i := range batches {
		b := newBatch()
		b.store("set", fmt.Sprintf("key%d", i), 0, 0, 0, nil, body(i))
		b.noop()
		wg.Go(func() {
			if err := c.do(b, time.Now().Add(time.Minute)); err != nil {
				t.Error(err)
			} else if b.replies[0].code != codeStored || b.replies[1].code != codeNoop {
				t.Errorf("the answers of a batch are %v", b.replies)
			}
		})
	}
	time.Sleep(100 * time.Millisecond)
	r := bufio.NewReader(server)
	seen := map[int]bool{}
	for range batches {
		line, err := r.ReadString('\n')
		var i, n int
		if _, scan := fmt.Sscanf(line, "set key%d 0 0 %d\r\n", &i, &n); err != nil || scan != nil {
			t.Fatalf("%v, %v: %.60q", err, scan, line)
		}
		got := make([]byte, n)
		if _, err := io.ReadFull(r, got); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, body(i)) || seen[i] {
			t.Errorf("value %d is not what was stored, or came twice", i)
		}
		seen[i] = true
		if rest, err := r.ReadString('\n'); rest != "\r\n" {
			t.Fatalf("%v: %q after a value", err, rest)
		}
		if line, err = r.ReadString('\n'); line != "mn\r\n" {
			t.Fatalf("%v: %q instead of mn", err, line)
		}
		io.WriteString(server, "STORED\r\nMN\r\n")
	}
	wg.Wait()
}

// What breaks a connection reaches everybody who waits on it, and those who come later.
func TestConnBreaks(t *testing.T) {
	for name, tc := range map[string]struct {
		serve func(net.Conn)
		want  string
	}{
		"closed":  {func(s net.Conn) { s.Close() }, errClosed.Error()},
		"garbage": {func(s net.Conn) { io.WriteString(s, "MN\r\nnonsense\r\n") }, errSurprise.Error()},
		"silent":  {func(net.Conn) {}, errTimeout.Error()},
		"cut":     {func(s net.Conn) { io.WriteString(s, "MN\r\nM"); s.Close() }, errClosed.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			c, server := dialed(t)
			errs := make(chan error, 2)
			for range 2 {
				b := newBatch()
				b.noop()
				b.noop()
				go func() { errs <- c.do(b, time.Now().Add(300*time.Millisecond)) }()
			}
			io.ReadFull(server, make([]byte, len("mn\r\n")*4)) // all questions are there
			tc.serve(server)
			for range 2 {
				if err := <-errs; err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("a waiting request got %v, not %s", err, tc.want)
				}
			}
			b := newBatch()
			b.noop()
			if err := c.do(b, time.Now().Add(time.Second)); err == nil || errors.Is(err, errFull) {
				t.Errorf("a request on a broken connection: %v", err)
			}
		})
	}
}

// busy holds its loop up when it is asked to.
type busy struct {
	r       int
	held    chan struct{} // closed when it begins
	holding time.Duration
}

func (b *busy) Poll() bool {
	var one [1]byte
	if n, _ := loop.Read(b.r, one[:]); n != 1 {
		return false
	}
	close(b.held)
	time.Sleep(b.holding)
	return true
}
func (b *busy) Flush()         {}
func (b *busy) End()           {}
func (b *busy) Tick(time.Time) {}
func (b *busy) Waiting() bool  { return false }

// A loop that is held up for longer than the time limit takes what has arrived meanwhile: that it is late is not the
// server's fault. A server that says nothing is found out all the same.
func TestConnOfALoopThatWasHeldUp(t *testing.T) {
	c, server := dialed(t)
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	b := &busy{r: pipe[0], held: make(chan struct{}), holding: 300 * time.Millisecond}
	if err := c.loop.Add(b.r, b, false); err != nil {
		t.Fatal(err)
	}
	defer c.loop.Remove(b.r)
	asked := newBatch()
	asked.noop()
	sent := make(chan error, 1)
	go func() { sent <- c.do(asked, time.Now().Add(150*time.Millisecond)) }()
	if _, err := io.ReadFull(server, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Write(pipe[1], []byte{1}); err != nil {
		t.Fatal(err)
	}
	<-b.held
	if _, err := io.WriteString(server, "MN\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := <-sent; err != nil {
		t.Errorf("an answer in time, on a loop that was late: %v", err)
	}
	silent := newBatch()
	silent.noop()
	if err := c.do(silent, time.Now().Add(50*time.Millisecond)); !errors.Is(err, errTimeout) {
		t.Errorf("without an answer: %v", err)
	}
}
