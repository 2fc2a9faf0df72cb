package loop

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// spawner starts a goroutine for every byte, and looks when it is flushed whether that has run.
type spawner struct {
	g       *Group
	fd      int
	running atomic.Bool
	late    atomic.Int32
	flushed chan struct{}
}

func (s *spawner) Poll() bool {
	var b [1]byte
	if n, errno := Read(s.fd, b[:]); errno != 0 || n == 0 {
		return false
	}
	s.running.Store(true)
	go s.running.Store(false)
	s.g.Soon(s)
	return true
}

func (s *spawner) Flush() {
	if s.running.Load() {
		s.late.Add(1)
	}
	s.flushed <- struct{}{}
}
func (s *spawner) End()           {}
func (s *spawner) Tick(time.Time) {}
func (s *spawner) Waiting() bool  { return false }

// With one P a loop never goes on before the goroutines that it started: one that it left behind when it went to sleep
// would not run until the scheduler's monitor notices, 10 ms and more later.
func TestYield(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	g, err := New(1)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[1])
	s := &spawner{g: g, fd: p[0], flushed: make(chan struct{}, 1)}
	if err := g.loops[0].Add(p[0], s, false); err != nil {
		t.Fatal(err)
	}
	for range 2000 {
		Write(p[1], []byte{1})
		<-s.flushed
	}
	if n := s.late.Load(); n > 0 {
		t.Errorf("%d of 2000 goroutines had not run when the loop went on", n)
	}
}
