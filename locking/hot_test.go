package locking

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"sessfs"
)

const second = int64(time.Second)

func (h *hotList) of(id sessfs.ID) (opened, missing uint32) {
	for i, c := range h.counts {
		if c.id == id && h.totals[i] > 0 {
			return h.totals[i] - c.missing, c.missing
		}
	}
	return 0, 0
}

// What is counted is what was opened in the last minute, to a slice.
func TestHotListForgets(t *testing.T) {
	var h hotList
	begin := 1000 * hotSlice
	for s := int64(0); s < 200; s++ { // one in a second
		h.opened(1, "sess_a", begin+s*second)
	}
	if n, missing := h.of("sess_a"); n < 60 || n > 70 || missing != 0 {
		t.Errorf("%d and %d in the last minute, of one in a second", n, missing)
	}
	h.turn((begin + 230*second) / hotSlice)
	if n, _ := h.of("sess_a"); n < 30 || n > 40 {
		t.Errorf("%d after half a minute of silence", n)
	}
	h.turn((begin + 270*second) / hotSlice)
	if n, _ := h.of("sess_a"); n != 0 || h.counts[0].id != "" {
		t.Errorf("%d after more than a minute of silence, the id is still there: %v", n, h.counts[0].id != "")
	}
	h.opened(1, "sess_a", begin+3600*second)
	if n, _ := h.of("sess_a"); n != 1 {
		t.Errorf("%d after an hour", n)
	}
}

// Among far more sessions than there are slots those that are opened the most are found, and the true count lies between
// what is counted and that with what is missing.
func TestHotListFindsTheHottest(t *testing.T) {
	var h hotList
	r := rand.New(rand.NewPCG(1, 2))
	truth := make(map[uint64]uint32)
	now := 1000 * hotSlice
	for i := range 100_000 {
		key := 1000 + r.Uint64N(20_000)
		if i%10 == 0 {
			key = uint64(1 + i/10%3) // three with a thirtieth each: more than a sixteenth's share of what is left to others
		}
		if i%2 == 0 && i%10 != 0 {
			key = 4
		}
		truth[key]++
		now += int64(500 * time.Microsecond) // 50 s in all: nothing is forgotten
		h.opened(key, sessfs.ID(fmt.Sprint("sess_", key)), now)
	}
	n, missing := h.of("sess_4")
	if n > truth[4] || n+missing < truth[4] || n < truth[4]-truth[4]/100 {
		t.Errorf("the hottest: %d with %d missing, truly %d", n, missing, truth[4])
	}
	for i, c := range h.counts {
		if n, true_ := h.totals[i]-c.missing, truth[h.keys[i]]; n > true_ || h.totals[i] < true_ {
			t.Errorf("%s: %d with %d missing, truly %d", c.id, n, c.missing, true_)
		}
	}
}

func TestHottest(t *testing.T) {
	m := New(servers(t), Options{Host: "a", Settings: Settings{Lease: 2 * time.Second}})
	t.Cleanup(m.Close)
	for n, id := range []sessfs.ID{"sess_once", "sess_twice", "sess_thrice"} {
		for range n + 1 {
			c, _, err := m.Open(ctx, id, true, 1)
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
		}
	}
	got := m.Hottest(2)
	want := []HotSession{{Session: sessfs.ID("sess_thrice").Hash(), Requests: 3}, {Session: sessfs.ID("sess_twice").Hash(), Requests: 2}}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("%+v, not %+v", got, want)
	}
	if n := m.Opened(); n != 6 {
		t.Errorf("%d openings, not 6", n)
	}
}

func TestContention(t *testing.T) {
	b := servers(t)
	here := New(b, Options{Host: "here", Settings: Settings{Lease: 2 * time.Second}})
	there := New(b, Options{Host: "there", Settings: Settings{Lease: 2 * time.Second}})
	t.Cleanup(here.Close)
	t.Cleanup(there.Close)
	open := func(m *Manager, id sessfs.ID, pid uint32) sessfs.Claim {
		c, _, err := m.Open(ctx, id, true, pid)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	lock := func(c sessfs.Claim) {
		if _, err := c.Lock(ctx, sessfs.Exclusive, true); err != nil {
			t.Error(err)
		}
	}
	begun := time.Now()
	lock(open(here, "sess_here", 1))
	lock(open(there, "sess_there", 77))
	done := make(chan struct{}, 3)
	for _, w := range []struct {
		id  sessfs.ID
		pid uint32
	}{{"sess_here", 1_000_000_001}, {"sess_here", 0}, {"sess_there", 1_000_000_003}} {
		c := open(here, w.id, w.pid)
		wait, end := context.WithCancel(ctx)
		go func() {
			c.Lock(wait, sessfs.Exclusive, true)
			done <- struct{}{}
		}()
		t.Cleanup(func() { end(); <-done })
		poll(t, 10*time.Second, func() bool { return len(here.Contention(0, 10).Waits) > 0 })
	}
	const long = 100 * time.Millisecond
	poll(t, 10*time.Second, func() bool {
		c := here.Contention(long, 10)
		return len(c.Held) == 1 && len(c.Elsewhere) == 1 && len(c.Waits) == 3
	})
	c := here.Contention(long, 10)
	h := c.Held[0]
	if h.Session != sessfs.ID("sess_here").Hash() || h.PID != 1 || h.Kind != "exclusive" || h.Waiters != 2 || h.For < long || h.For > time.Since(begun) || h.Longest > h.For || h.Longest <= 0 || h.Process == "" {
		t.Errorf("held here: %+v", h)
	}
	e := c.Elsewhere[0]
	if e.Session != sessfs.ID("sess_there").Hash() || e.Host != "there" || e.PID != 77 || e.Waiters != 1 || e.Longest <= 0 || e.Since.Before(begun.Add(-time.Second)) || e.Since.After(time.Now()) {
		t.Errorf("held elsewhere: %+v", e)
	}
	for i, w := range c.Waits {
		if w.Kind != "exclusive" || w.Process != "" || i > 0 && w.For > c.Waits[i-1].For {
			t.Errorf("waits: %+v", c.Waits)
		}
	}
	if one := here.Contention(0, 1); len(one.Waits) != 1 || one.Waits[0].PID != 1_000_000_001 {
		t.Errorf("the longest wait: %+v", one.Waits)
	}
	if c := here.Contention(time.Hour, 10); len(c.Held) != 0 || len(c.Elsewhere) != 0 {
		t.Errorf("held for an hour: %+v", c)
	}
	if c := there.Contention(long, 10); len(c.Held) != 1 || c.Held[0].Waiters != 0 || len(c.Elsewhere)+len(c.Waits) != 0 {
		t.Errorf("on the other host: %+v", c)
	}
}

func BenchmarkHotList(b *testing.B) {
	ids := make([]sessfs.ID, 100_000)
	for i := range ids {
		ids[i] = sessfs.ID(fmt.Sprint("sess_", i))
	}
	for name, among := range map[string]int{"known": hotSlots, "unknown": len(ids)} {
		b.Run(name, func(b *testing.B) {
			var h hotList
			now := 1000 * hotSlice
			for i := range b.N {
				n := i % among
				h.opened(uint64(n+1), ids[n], now)
				now += 4000
			}
		})
	}
}

func TestNamed(t *testing.T) {
	m := New(servers(t), Options{Host: "a", Settings: Settings{Lease: 2 * time.Second}})
	t.Cleanup(m.Close)
	c, _ := mustOpen(t, m, true)
	if got, ok := m.Named(id.Hash()); !ok || got != id {
		t.Errorf("%s is %q, %v", id.Hash(), got, ok)
	}
	for _, hash := range []string{"", "000000000000", string(id)} {
		if got, ok := m.Named(hash); ok {
			t.Errorf("%s is %q", hash, got)
		}
	}
	c.Close()
	if got, ok := m.Named(id.Hash()); ok {
		t.Errorf("one that is closed: %q", got)
	}
}

// What a slot's former user had is missing for a minute at most.
func TestHotListForgetsWhatIsMissing(t *testing.T) {
	var h hotList
	begin := 1000 * hotSlice
	for i := range uint64(hotSlots) {
		h.opened(i+1, "sess_old", begin)
	}
	h.opened(100, "sess_new", begin+second)
	if n, missing := h.of("sess_new"); n != 1 || missing != 1 {
		t.Fatalf("%d and %d", n, missing)
	}
	for s := int64(0); s < 90; s++ {
		h.opened(100, "sess_new", begin+s*second)
	}
	if n, missing := h.of("sess_new"); n < 60 || n > 70 || missing != 0 {
		t.Errorf("%d and %d after more than a minute", n, missing)
	}
}
