package top

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sessfs/internal/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// screen is a terminal that remembers what was written.
type screen struct {
	mu      sync.Mutex
	frames  []string
	entered int
	left    int
	keys    chan []byte
	resized chan struct{}
	width   atomic.Int64
}

func newScreen() *screen {
	s := &screen{keys: make(chan []byte), resized: make(chan struct{})}
	s.width.Store(80)
	return s
}

func (s *screen) Enter() error { s.entered++; return nil }
func (s *screen) Leave()       { s.left++ }
func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frames = append(s.frames, string(b))
	return len(b), nil
}
func (s *screen) Size() (int, int)         { return int(s.width.Load()), 24 }
func (s *screen) Keys() <-chan []byte      { return s.keys }
func (s *screen) Resized() <-chan struct{} { return s.resized }

// shows waits until what is shown has a text, or has it no more.
func (s *screen) shows(t *testing.T, what string, want bool) {
	t.Helper()
	end := time.Now().Add(10 * time.Second)
	for {
		s.mu.Lock()
		last := ""
		if len(s.frames) > 0 {
			last = s.frames[len(s.frames)-1]
		}
		s.mu.Unlock()
		if last != "" && strings.Contains(last, what) == want {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%q is shown: %v, wanted %v:\n%s", what, !want, want, last)
		}
		time.Sleep(time.Millisecond)
	}
}

// source is a daemon that counts how often it was asked.
type source struct {
	mu    sync.Mutex
	asked int
	err   error
}

func (s *source) ask(context.Context) (*status.Report, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	return &status.Report{Host: "web1", Mountpoint: "/s", Store: "embedded", PID: 1, Uptime: time.Duration(s.asked) * time.Second, Requests: uint64(s.asked)}, s.err
}

func (s *source) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *source) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

func TestLive(t *testing.T) {
	s, d := newScreen(), &source{}
	done := make(chan error)
	go func() {
		done <- Live(context.Background(), s, Options{Ask: d.ask, Interval: 5 * time.Millisecond})
	}()
	s.shows(t, "requests 1.0/s", true)
	d.fail(errors.New("it is gone"))
	s.shows(t, "does not answer", true)
	s.shows(t, "requests 1.0/s", true) // the last figures stay
	d.fail(nil)
	s.shows(t, "does not answer", false)
	s.keys <- []byte("h")
	s.shows(t, "this help", true)
	s.keys <- []byte("\x1b[A")
	s.keys <- []byte("q") // ends the help
	s.shows(t, "this help", false)
	s.keys <- []byte("s")
	s.shows(t, "sort: p99", true)
	s.width.Store(30)
	s.resized <- struct{}{}
	s.shows(t, "sort: p99", false)
	s.width.Store(80)
	s.keys <- []byte("p")
	s.shows(t, "PAUSED", true)
	asked := d.count()
	time.Sleep(50 * time.Millisecond)
	if more := d.count() - asked; more > 1 {
		t.Errorf("asked %d times while paused", more)
	}
	s.keys <- []byte("p")
	s.shows(t, "PAUSED", false)
	select {
	case err := <-done:
		t.Fatalf("it has ended: %v", err)
	default:
	}
	s.keys <- []byte("q")
	if err := <-done; err != nil || s.entered != 1 || s.left != 1 {
		t.Errorf("ended with %v, entered %d times, left %d times", err, s.entered, s.left)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.frames {
		if strings.Count(f, "\n") != strings.Count(f, "\r\n") || strings.HasSuffix(f, "\n\x1b[J") {
			t.Errorf("a raw terminal cannot show %q", f)
		}
	}
}

// Whatever ends it, the terminal is left, and no goroutine stays.
func TestTheTerminalIsLeft(t *testing.T) {
	signalled, end := context.WithCancel(context.Background())
	end()
	well := (&source{}).ask
	gone := newScreen()
	close(gone.keys)
	for name, c := range map[string]struct {
		ctx      context.Context
		s        *screen
		ask      func(context.Context) (*status.Report, error)
		sizeless bool
		panics   bool
	}{
		"a signal":           {signalled, newScreen(), well, false, false},
		"a terminal gone":    {context.Background(), gone, well, false, false},
		"a panic in asking":  {context.Background(), newScreen(), func(context.Context) (*status.Report, error) { panic("asking") }, false, true},
		"a panic in drawing": {context.Background(), newScreen(), well, true, true},
		"a daemon that hangs": {signalled, newScreen(), func(ctx context.Context) (*status.Report, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if p := recover(); (p != nil) != c.panics {
					t.Errorf("panicked with %v", p)
				}
				if c.s.entered != 1 || c.s.left != 1 {
					t.Errorf("entered %d times, left %d times", c.s.entered, c.s.left)
				}
			}()
			var on Terminal = c.s
			if c.sizeless {
				on = panicking{c.s}
			}
			if err := Live(c.ctx, on, Options{Ask: c.ask, Interval: time.Millisecond}); err != nil {
				t.Error(err)
			}
		})
	}
}

// panicking cannot tell its size.
type panicking struct{ *screen }

func (panicking) Size() (int, int) { panic("no size") }

// A daemon that takes its time is said to.
func TestSilentDaemon(t *testing.T) {
	l := live{t: newScreen(), asked: time.Now().Add(-patience - time.Second)}
	l.draw()
	l.t.(*screen).shows(t, "does not answer for 4s: no answer to the last question", true)
}

func TestBatch(t *testing.T) {
	var out strings.Builder
	d := &source{}
	o := Options{Ask: d.ask, Interval: time.Millisecond}
	if err := Batch(context.Background(), &out, o, 2, 100); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "requests 1.0/s"); n != 2 || strings.Contains(out.String(), "\x1b") || strings.Contains(out.String(), "q quit") {
		t.Errorf("%d snapshots:\n%s", n, out.String())
	}
	d.fail(errors.New("it is gone"))
	if err := Batch(context.Background(), &out, o, 1, 100); err == nil || !strings.Contains(err.Error(), "it is gone") {
		t.Errorf("without a daemon: %v", err)
	}
	out.Reset()
	failing := Options{Interval: time.Millisecond, Ask: func(ctx context.Context) (*status.Report, error) {
		defer d.fail(errors.New("it is gone"))
		return d.ask(ctx)
	}}
	d.fail(nil)
	if err := Batch(context.Background(), &out, failing, 2, 100); err == nil || strings.Count(out.String(), "does not answer") != 2 || strings.Contains(out.String(), "requests") {
		t.Errorf("a daemon that goes: %v\n%s", err, out.String())
	}
	ctx, end := context.WithCancel(context.Background())
	end()
	d.fail(nil)
	o.Interval = time.Hour
	if err := Batch(ctx, &out, o, 1, 100); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}
