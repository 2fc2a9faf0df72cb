package loop

import (
	"context"
	"fmt"
	"time"
)

// ping is a Source that is only ended.
type ping chan struct{}

func (ping) Poll() bool     { return false }
func (ping) Flush()         {}
func (ping) Tick(time.Time) {}
func (ping) Waiting() bool  { return false }
func (p ping) End()         { close(p) }

// Alive asks each loop for a sign of life. The error, once ctx has ended, names the one that gave none.
func (g *Group) Alive(ctx context.Context) error {
	pings := make([]ping, len(g.loops))
	for i, l := range g.loops {
		pings[i] = make(ping)
		l.End(pings[i])
	}
	for i, p := range pings {
		select {
		case <-p:
		case <-ctx.Done():
			return fmt.Errorf("event loop %d of %d does not answer: %w", i+1, len(g.loops), ctx.Err())
		}
	}
	return nil
}
