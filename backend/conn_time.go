package backend

import (
	"slices"
	"time"
)

// Tick implements loop.Source: it breaks the connection when somebody has waited for too long.
func (c *conn) Tick(now time.Time) {
	if c.queued.Load() == 0 {
		return
	}
	c.mu.Lock()
	late := slices.ContainsFunc(c.sent, func(b *batch) bool { return !b.deadline.IsZero() && now.After(b.deadline) })
	// A loop that was held up, as on a host without a free processor, finds the time over before it has looked at what has
	// arrived meanwhile. It gets the time to look, and as long as that brings answers there may be more.
	answers, rounds := c.answers.Load(), c.loop.Rounds()
	if late && (c.late.IsZero() || answers != c.lateAnswers) {
		c.lateAnswers, c.lateRounds = answers, rounds
	}
	switch {
	case !late:
		c.late = time.Time{}
	case c.late.IsZero():
		c.late = now
	}
	held := late && rounds < c.lateRounds+2 && now.Sub(c.late) < maxHeld
	c.mu.Unlock()
	if late && !held {
		c.fail(errTimeout)
	}
}

// maxHeld is how long after their time answers are taken that were there before.
const maxHeld = time.Second

// Waiting implements loop.Source.
func (c *conn) Waiting() bool { return c.queued.Load() > 0 }
