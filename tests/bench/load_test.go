package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The delaying proxy is a process of this program.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "proxy" {
		exit(proxyMain(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// onFiles is a target of PHP's own handler, with the drivers beside it.
func onFiles(t *testing.T) (*target, *lab) {
	t.Helper()
	dir := t.TempDir()
	if err := writeDrivers(dir); err != nil {
		t.Fatal(err)
	}
	sessions := filepath.Join(dir, "sessions")
	if err := os.Mkdir(sessions, 0o700); err != nil {
		t.Fatal(err)
	}
	return &target{places: []place{{"session.save_handler=files", "session.save_path=" + sessions}}}, &lab{dir: dir}
}

func TestCycles(t *testing.T) {
	for _, keep := range []bool{false, true} {
		target, l := onFiles(t)
		s, err := target.measure(context.Background(), l, &scenario{processes: 2, bytes: 100, sessions: 3, keep: keep}, 100*time.Millisecond, "")
		if err != nil {
			t.Fatal(err)
		}
		if s.Done == 0 || s.Rate <= 0 || s.P50 > s.P99 || s.P99 > s.Max {
			t.Errorf("keep %v: %+v", keep, s)
		}
		files, _ := filepath.Glob(filepath.Join(l.dir, "sessions", "sess_*"))
		if len(files) != 6 {
			t.Errorf("2 processes with 3 sessions each made %v", files)
		}
	}
}

func TestContention(t *testing.T) {
	target, l := onFiles(t)
	sc := &scenario{processes: 3, hot: true}
	s, err := target.measure(context.Background(), l, sc, 200*time.Millisecond, "hot")
	if err != nil {
		t.Fatal(err)
	}
	if s.Done == 0 || s.Lost != 0 || s.Failed != 0 {
		t.Errorf("files lose nothing: %+v", s)
	}
	// Increments that somebody else made are seen as what they are: not ours.
	again, err := target.measure(context.Background(), l, sc, 100*time.Millisecond, "hot")
	if err != nil {
		t.Fatal(err)
	}
	if again.Lost != -s.Done {
		t.Errorf("%d were there before, and %d are lost", s.Done, again.Lost)
	}
}

func TestFailuresHaveReasons(t *testing.T) {
	target, l := onFiles(t)
	target.places[0][1] = "session.save_path=" + filepath.Join(l.dir, "nowhere")
	_, err := target.measure(context.Background(), l, &scenario{processes: 1, bytes: 10, sessions: 1}, time.Millisecond, "")
	if err == nil || !strings.Contains(err.Error(), "No such file") {
		t.Errorf("sessions in a directory that is not there: %v", err)
	}
	target.places[0] = place{"session.save_handler=nobody"}
	if _, err := target.measure(context.Background(), l, &scenario{processes: 1, bytes: 10, sessions: 1}, time.Millisecond, ""); err == nil {
		t.Error("an unknown handler did not fail")
	}
}

// A change that is gone at the end is a failure, not a fast handler.
func TestALostChangeIsSeen(t *testing.T) {
	target, l := onFiles(t)
	sc := &scenario{processes: 1, bytes: 10, sessions: 2}
	empty := func() error {
		files, _ := filepath.Glob(filepath.Join(l.dir, "sessions", "sess_*"))
		for _, f := range files {
			if err := os.Truncate(f, 0); err != nil {
				return err
			}
		}
		return nil
	}
	nothing := func() error { return nil }
	answers, err := run(context.Background(), l.dir, time.Minute, sc.loadOf(target, 50*time.Millisecond, ""), nothing, empty)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(answers[0].Reason, "shows 0") {
		t.Errorf("the sessions were emptied, and the driver says %q", answers[0].Reason)
	}
}

func TestInterruptEndsPHP(t *testing.T) {
	target, l := onFiles(t)
	ctx, cancel := context.WithCancel(context.Background())
	sc := &scenario{processes: 2, bytes: 10, sessions: 1}
	begin := func() error { cancel(); return nil }
	if _, err := run(ctx, l.dir, time.Minute, sc.loadOf(target, time.Hour, ""), begin, begin); err != context.Canceled {
		t.Errorf("got %v", err)
	}
	if left := leftovers(l.dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// echo answers with what it is sent, and closes when its client does.
func echo(t *testing.T) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				io.Copy(c, c)
				c.Close()
			}()
		}
	}()
	return &server{addr: l.Addr().String()}
}

func TestProxyDelaysAndKeepsOrder(t *testing.T) {
	const delay = 20 * time.Millisecond
	var s scope
	defer func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}()
	a, b := echo(t), echo(t)
	if err := startProxy(context.Background(), &s, delay, true, a, b); err != nil {
		t.Fatal(err)
	}
	if a.via == a.addr || a.via == b.via {
		t.Fatalf("no addresses of its own: %q and %q", a.via, b.via)
	}
	for _, srv := range []*server{a, b} {
		c, err := net.Dial("tcp", srv.via)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(30 * time.Second))
		for _, least := range []time.Duration{4 * delay, 2 * delay} { // the first is that of the connection too
			start := time.Now()
			io.WriteString(c, "x")
			if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			if d := time.Since(start); d < least {
				t.Errorf("a round trip took %v, less than %v", d, least)
			}
		}
		// More than sockets hold: neither side may wait for the other.
		sent := make([]byte, 20<<20)
		for i := range sent {
			sent[i] = byte(i * 7 >> 3)
		}
		go func() {
			c.Write(sent)
			c.(*net.TCPConn).CloseWrite()
		}()
		got, err := io.ReadAll(c)
		if err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%d bytes came back of %d, the same: %v; %v", len(got), len(sent), bytes.Equal(got, sent), err)
		}
	}
}

func TestProxyPassesRefusalsOn(t *testing.T) {
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	var s scope
	defer s.close()
	gone := &server{addr: (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}).String()}
	if err := startProxy(context.Background(), &s, time.Millisecond, false, gone); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", gone.via)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	if n, err := c.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("nobody listens behind the proxy, and a read got %d bytes, %v", n, err)
	}
}

func TestAWrongRoundTripIsSeen(t *testing.T) {
	for proxy, want := range map[float64]bool{700: true, 930: true, 1050: false, 1120: false, 1200: true} {
		r := rtt{Asked: 1000, Direct: trip{Median: 50}, Proxy: trip{Median: proxy}}
		if r.off() != want {
			t.Errorf("%v µs: off is %v", proxy, r.off())
		}
	}
}
