package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo answers every line with the same line, and tells what it got.
func echo(t *testing.T) (addr string, got chan string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	got = make(chan string, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for in := bufio.NewReader(c); ; {
					line, err := in.ReadString('\n')
					if err != nil {
						return
					}
					got <- strings.TrimSpace(line)
					io.WriteString(c, line)
				}
			}()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String(), got
}

type client struct {
	t *testing.T
	net.Conn
	in *bufio.Reader
}

func dial(t *testing.T, p *Proxy) *client {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	return &client{t, c, bufio.NewReader(c)}
}

func (c *client) say(line string) {
	c.t.Helper()
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) hear(want string) {
	c.t.Helper()
	if got, err := c.in.ReadString('\n'); err != nil || strings.TrimSpace(got) != want {
		c.t.Fatalf("got %q, %v; want %q", got, err, want)
	}
}

// silent: nothing comes for a moment.
func (c *client) silent() {
	c.t.Helper()
	c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if b, err := c.in.ReadByte(); !errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatalf("got %q, %v; want silence", b, err)
	}
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
}

func start(t *testing.T, target string, d Double) *Proxy {
	t.Helper()
	p, err := Listen(target, 1, d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func TestPasses(t *testing.T) {
	addr, _ := echo(t)
	c := dial(t, start(t, addr, nil))
	big := strings.Repeat("x", 1<<20)
	c.say(big)
	c.hear(big)
}

func TestHoldsRequests(t *testing.T) {
	addr, got := echo(t)
	p := start(t, addr, nil)
	c := dial(t, p)
	c.say("one")
	c.hear("one")
	<-got
	p.Set(Mode{HoldRequests: true})
	c.say("two")
	c.silent()
	if len(got) != 0 {
		t.Fatalf("the server got %q", <-got)
	}
	c.Close() // what it had said comes late all the same
	p.Set(Mode{})
	if line := <-got; line != "two" {
		t.Errorf("the server got %q", line)
	}
}

func TestHoldsAnswers(t *testing.T) {
	addr, got := echo(t)
	p := start(t, addr, nil)
	c := dial(t, p)
	p.Set(Mode{HoldAnswers: true})
	c.say("one")
	<-got
	c.silent()
	p.Set(Mode{})
	c.hear("one")
}

func TestDrops(t *testing.T) {
	addr, got := echo(t)
	p := start(t, addr, nil)
	c := dial(t, p)
	c.say("one")
	c.hear("one")
	<-got
	p.Set(Mode{HoldRequests: true})
	c.say("two")
	c.silent()
	p.Drop()
	p.Set(Mode{})
	if _, err := c.in.ReadByte(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after Drop: %v", err)
	}
	d := dial(t, p)
	d.say("three")
	d.hear("three")
	if line := <-got; line != "three" {
		t.Errorf("the server got %q", line)
	}
}

func TestDelays(t *testing.T) {
	addr, _ := echo(t)
	p := start(t, addr, nil)
	p.Set(Mode{Delay: 200 * time.Millisecond})
	c := dial(t, p)
	begin := time.Now()
	c.say("one")
	c.hear("one")
	if d := time.Since(begin); d < 200*time.Millisecond {
		t.Errorf("the answer took %v", d)
	}
}

func TestBreaks(t *testing.T) {
	addr, _ := echo(t)
	const line = "0123456789"
	for how, want := range map[Break]error{Reset: syscall.ECONNRESET, Cut: io.EOF} {
		p := start(t, addr, nil)
		p.Set(Mode{Break: how, Every: 1})
		c := dial(t, p)
		c.say(line)
		b, err := io.ReadAll(c)
		// What was sent before a reset is lost where it was not read yet.
		if how == Cut && (len(b) == 0 || len(b) > len(line)) || !strings.HasPrefix(line, string(b)) || want != io.EOF && !errors.Is(err, want) {
			t.Errorf("break %d: got %q, %v", how, b, err)
		}
		if p.Broken() != 1 {
			t.Errorf("break %d: %d answers were broken", how, p.Broken())
		}
	}
	p := start(t, addr, nil)
	p.Set(Mode{Break: Garble, Every: 1})
	c := dial(t, p)
	c.say(line)
	b := make([]byte, len(line)+1)
	if _, err := io.ReadFull(c, b); err != nil || string(b) == line+"\n" {
		t.Errorf("garbled: got %q, %v", b, err)
	}
}

func TestServerIsAway(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	c, err := net.Dial("tcp", start(t, l.Addr().String(), nil).Addr)
	if err == nil {
		defer c.Close()
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v", err)
	}
}

// A double sees commands and answers whole, however they come.
func TestDouble(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan struct{})
	go func() {
		defer close(served)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		in := bufio.NewReader(c)
		for _, step := range []struct{ want, answer string }{
			{"set k 0 0 4\r\na\r\nb\r\n", "STORED\r\n"},
			{"mg k v O7\r\n", "VA 4 O7\r\na\r\nb\r\n"},
			{"stats\r\n", "STAT a 1\r\nSTAT b 2\r\nEND\r\n"},
			{"gets k\r\n", "VALUE k 0 2 9\r\nxy\r\nEND\r\n"},
		} {
			b := make([]byte, len(step.want))
			if _, err := io.ReadFull(in, b); err != nil || string(b) != step.want {
				fmt.Fprintf(c, "SERVER_ERROR got %q\r\n", b)
				return
			}
			io.WriteString(c, step.answer)
		}
	}()
	double := func(r Request, ask func(Request) ([]byte, error)) ([]byte, error) {
		switch r.Fields[0] {
		case "cas":
			r = r.With(0, "set")
			r.Fields = r.Fields[:5]
		case "md":
			return []byte("HD" + r.Opaque() + "\r\n"), nil
		}
		return ask(r)
	}
	c := dial(t, start(t, l.Addr().String(), double))
	io.WriteString(c, "cas k 0 0 4 99\r\na\r\nb\r\nmd k C5 O6\r\nmg k v O7\r\nstats\r\ngets k\r\n")
	const want = "STORED\r\nHD O6\r\nVA 4 O7\r\na\r\nb\r\nSTAT a 1\r\nSTAT b 2\r\nEND\r\nVALUE k 0 2 9\r\nxy\r\nEND\r\n"
	b := make([]byte, len(want))
	if n, err := io.ReadFull(c, b); err != nil || string(b) != want {
		t.Errorf("got %q, %v", b[:n], err)
	}
	c.Close()
	<-served
}
