package loop

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pipeSource reads numbers from a pipe and echoes what it was told to flush.
type pipeSource struct {
	l       *Loop
	fd      int
	got     chan byte
	flushes atomic.Int32
	ends    atomic.Int32
	ticks   atomic.Int32
	waiting atomic.Bool
	removed chan struct{}
}

func (s *pipeSource) Poll() bool {
	if s.fd < 0 {
		return false
	}
	var b [1]byte
	n, errno := Read(s.fd, b[:])
	switch {
	case errno == unix.EAGAIN:
		return false
	case errno != 0 || n == 0:
		s.l.Remove(s.fd)
		unix.Close(s.fd)
		s.fd = -1
		close(s.removed)
		return true
	}
	s.got <- b[0]
	return true
}
func (s *pipeSource) Flush()         { s.flushes.Add(1) }
func (s *pipeSource) End()           { s.ends.Add(1) }
func (s *pipeSource) Tick(time.Time) { s.ticks.Add(1) }
func (s *pipeSource) Waiting() bool  { return s.waiting.Load() }

func start(t *testing.T) (*Loop, *pipeSource, int) {
	g, err := New(2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	l := g.Loops()[1]
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	s := &pipeSource{l: l, fd: p[0], got: make(chan byte, 1000), removed: make(chan struct{})}
	if err := l.Add(p[0], s, false); err != nil {
		t.Fatal(err)
	}
	return l, s, p[1]
}

func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// Events reach their source, also after the loop has slept for long, and its end is seen.
func TestEvents(t *testing.T) {
	_, s, w := start(t)
	for i := range 200 {
		if i == 100 {
			time.Sleep(50 * time.Millisecond) // it sleeps in the kernel now, without its P
		}
		Write(w, []byte{byte(i)})
		if got := <-s.got; got != byte(i) {
			t.Fatalf("%d instead of %d", got, i)
		}
	}
	unix.Close(w)
	<-s.removed
}

// Every call of Soon leads to a Flush after it, whoever calls and whether the loop sleeps or not.
func TestSoon(t *testing.T) {
	l, s, w := start(t)
	defer unix.Close(w)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 500 {
				before := s.flushes.Load()
				l.group.Soon(s)
				within(t, "a flush", func() bool { return s.flushes.Load() > before })
			}
		})
	}
	wg.Wait()
}

// Every call of End leads to one of the source's.
func TestEnd(t *testing.T) {
	l, s, w := start(t)
	defer unix.Close(w)
	for i := range int32(100) {
		l.End(s)
		within(t, "End", func() bool { return s.ends.Load() == i+1 })
	}
}

// Sources that wait for something are ticked, others let the loop sleep.
func TestTick(t *testing.T) {
	l, s, w := start(t)
	defer unix.Close(w)
	time.Sleep(3 * TickEvery)
	idle := s.ticks.Load()
	s.waiting.Store(true)
	l.group.Soon(s)
	within(t, "ticks of a source that waits", func() bool { return s.ticks.Load() > idle+5 })
}

// Close ends a loop that sleeps and one that is busy.
func TestClose(t *testing.T) {
	for range 50 {
		l, err := New(2)
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
	}
}
