package locking

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"sessfs"
)

// A wait asks often after every change of the lease, and ever more rarely while one lease stands.
func TestPace(t *testing.T) {
	p := pace{shortest: time.Millisecond, longest: 25 * time.Millisecond}
	now, asked := int64(0), 0
	for now < int64(20*time.Millisecond) { // a turn of some hand-overs
		now += int64(p.next("a", now, 1))
		asked++
	}
	if asked < 16 || asked > 20 {
		t.Errorf("%d questions in 20 ms", asked)
	}
	last := time.Duration(0)
	for now < int64(time.Second) {
		d := p.next("a", now, 1)
		if d < last || d > 25*time.Millisecond {
			t.Fatalf("%v after %v", d, last)
		}
		if late := time.Duration(now / patience); d > late && d > p.shortest {
			t.Fatalf("a lease of %v may go unnoticed for %v", time.Duration(now), d)
		}
		last, now, asked = d, now+int64(d), asked+1
	}
	if last != 25*time.Millisecond || asked > 120 {
		t.Errorf("%d questions in a second, the last interval is %v", asked, last)
	}
	if d := p.next("b", now, 1); d != time.Millisecond {
		t.Errorf("the next lease is asked for after %v", d)
	}
}

// However many waits a host has, it asks 5,000 times a second at most, be the locks moving or not.
func TestManyWaitsAskMoreRarely(t *testing.T) {
	const waits = 2000
	p := pace{shortest: time.Millisecond, longest: 25 * time.Millisecond}
	for i, token := range []string{"a", "a", "b", "b"} {
		if d := p.next(token, int64(i)*int64(time.Second), waits); d < 400*time.Millisecond || d > time.Second {
			t.Errorf("one of %d waits asks after %v", waits, d)
		}
	}
}

// counted counts the questions that wait for an answer.
type counted struct {
	sessfs.Backend
	reads, tries, polls atomic.Int64
}

func (c *counted) Read(ctx context.Context, id sessfs.ID) (*sessfs.Session, error) {
	c.reads.Add(1)
	return c.Backend.Read(ctx, id)
}

func (c *counted) TryLock(ctx context.Context, id sessfs.ID, h sessfs.Holder) (*sessfs.Lease, *sessfs.Session, error) {
	c.tries.Add(1)
	return c.Backend.TryLock(ctx, id, h)
}

func (c *counted) Locked(ctx context.Context, id sessfs.ID) (*sessfs.Holder, error) {
	c.polls.Add(1)
	return c.Backend.Locked(ctx, id)
}

// The next waiter of this host gets what its predecessor stored, without a question to the servers.
func TestLocalHandOverAsksNothing(t *testing.T) {
	b := &counted{Backend: servers(t)}
	m := New(b, Options{Host: "a", Settings: Settings{Lease: 2 * time.Second}, HandOvers: 1000, Hold: time.Hour, Unasked: time.Hour})
	t.Cleanup(m.Close)
	holder, s := mustOpen(t, m, true)
	if _, err := holder.Lock(ctx, sessfs.Exclusive, true); err != nil {
		t.Fatal(err)
	}
	before := [3]int64{b.reads.Load(), b.tries.Load(), b.polls.Load()}
	for range 20 {
		next, _ := mustOpen(t, m, true)
		got := waitFor(t, m, next)
		stored, err := holder.Commit(ctx, s, s.Attr, append(s.Data[:len(s.Data):len(s.Data)], 'x'))
		if err != nil {
			t.Fatal(err)
		}
		holder.Close()
		if s = <-got; s != stored {
			t.Fatalf("the next holder was given %+v, stored was %+v", s, stored)
		}
		holder = next
	}
	holder.Close()
	if b.tries.Load() != before[1] || b.polls.Load() != before[2] {
		t.Errorf("%d attempts and %d polls in hand-overs", b.tries.Load()-before[1], b.polls.Load()-before[2])
	}
}
