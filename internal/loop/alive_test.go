package loop

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// stuck is a source that keeps its loop until it is let go.
type stuck struct {
	ping
	free chan struct{}
}

func (s stuck) End() { close(s.ping); <-s.free }

// Loops that work give a sign of life; one that hangs does not.
func TestAlive(t *testing.T) {
	g, err := New(2)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	ctx, end := context.WithTimeout(t.Context(), 10*time.Second)
	defer end()
	for range 100 {
		if err := g.Alive(ctx); err != nil {
			t.Fatal(err)
		}
	}
	s := stuck{make(ping), make(chan struct{})}
	g.Loops()[1].End(s)
	<-s.ping
	short, end := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer end()
	if err := g.Alive(short); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "event loop 2 of 2") {
		t.Errorf("with a loop that hangs: %v", err)
	}
	close(s.free)
	if err := g.Alive(ctx); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
