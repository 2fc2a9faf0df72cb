package backend

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"sessfs"
)

// Each server in turn dies, comes back empty, and gets its copies when the sessions are used: all are always there, with
// one round trip waited for where nothing is to be mended.
func TestEachServerDiesInTurn(t *testing.T) {
	for _, n := range []int{2, 3} {
		t.Run(fmt.Sprint(n, " servers"), func(t *testing.T) {
			mem, o := servers(t, n)
			c := open(t, o)
			ids := many(60)
			for _, id := range ids {
				mustCommit(t, c, id, &sessfs.Session{}, "0", nil)
			}
			for round, m := range mem {
				m.stop()
				for _, id := range ids {
					if !increment(t, c, id) {
						t.Fatal("not stored while a server was dead")
					}
				}
				m.start()
				until(t, "the server is used again", func() bool { return c.Check(ctx) == nil && !c.servers()[round].down() })
				for _, id := range ids {
					l, s := lockSoon(t, c, id)
					c.Unlock(l)
					if string(s.Data) != strconv.Itoa(round+1) {
						t.Fatalf("after %d rounds it has %q", round+1, s.Data)
					}
				}
			}
			if c.mended.Load() == 0 {
				t.Error("nothing was mended")
			}
			for _, id := range ids[:10] {
				if got := copiesOf(t, o, id); got < 2 {
					t.Errorf("%d copies", got)
				}
			}
		})
	}
}

// One host is cut off from a server, another is not: no increment of either is lost, and no lock is held twice.
func TestCutOffFromOneServer(t *testing.T) {
	for cut := range 3 {
		_, o := servers(t, 3)
		a, b := open(t, o), open(t, without(t, o, cut))
		ids := many(6)
		var acknowledged [6]int
		var held [6]sync.Mutex
		var wg sync.WaitGroup
		var mu sync.Mutex
		for _, c := range []*Cluster{a, b, a, b} {
			wg.Go(func() {
				for i := range 10 * len(ids) {
					id := ids[i%len(ids)]
					var l *sessfs.Lease
					var s *sessfs.Session
					for l == nil {
						var err error
						if l, s, err = c.TryLock(ctx, id, holder); err != nil {
							t.Error(err)
							return
						}
					}
					if !held[i%len(ids)].TryLock() {
						t.Error("a lock is held twice")
						return
					}
					n, _ := strconv.Atoi(string(s.Data))
					_, err := c.Commit(ctx, id, s, sessfs.Attr{Ctime: time.Now().UnixNano()}, []byte(strconv.Itoa(n+1)), l)
					held[i%len(ids)].Unlock()
					if err == nil {
						mu.Lock()
						acknowledged[i%len(ids)]++
						mu.Unlock()
					} else {
						t.Error(err)
					}
					c.Unlock(l)
				}
			})
		}
		wg.Wait()
		for i, id := range ids {
			if x, y := value(t, a, id), value(t, b, id); x != acknowledged[i] || y != x {
				t.Errorf("cut off from server %d: %d and %d are there, %d were acknowledged", cut+1, x, y, acknowledged[i])
			}
		}
	}
}

// A server that hung comes back with what it had: older copies lose, and destroyed sessions stay destroyed.
func TestOldCopiesLose(t *testing.T) {
	mem, o := servers(t, 3)
	c := open(t, o)
	ids := many(40)
	for _, id := range ids {
		mustCommit(t, c, id, &sessfs.Session{}, "0", nil)
	}
	mem[0].freeze()
	for i, id := range ids {
		if i%2 == 0 {
			if !increment(t, c, id) {
				t.Fatal("not stored while a server hung")
			}
		} else if was, _, err := c.Destroy(ctx, id); !was || err != nil {
			t.Fatal(was, err)
		}
	}
	mem[0].thaw()
	until(t, "the server is used again", func() bool { return !c.servers()[0].down() })
	d := open(t, o)
	for i, id := range ids {
		s := mustRead(t, d, id)
		if i%2 == 0 && string(s.Data) != "1" || i%2 == 1 && s.State != sessfs.Destroyed {
			t.Fatalf("session %d: %+v", i, s)
		}
	}
	until(t, "it has its copies again", func() bool {
		for _, s := range c.Servers(ctx) {
			if !s.Up || s.ToMend != 0 || s.Young {
				return false
			}
		}
		return true
	})
	mem[1].stop() // now its stand-in's word counts, and what was mended
	mem[1].start()
	for i, id := range ids {
		if s := mustRead(t, d, id); i%2 == 1 && s.State == sessfs.Live {
			t.Fatalf("session %d is back: %+v", i, s)
		}
	}
}

// Two servers of three do not answer: that is said, at once where they are known to be down.
func TestTooFewServers(t *testing.T) {
	mem, o := servers(t, 3)
	c := open(t, o)
	mustCommit(t, c, sid, &sessfs.Session{}, "0", nil)
	mem[0].stop()
	mem[2].stop()
	_, err := c.Read(ctx, sid)
	if !errors.Is(err, sessfs.ErrUnavailable) {
		t.Fatalf("%v", err)
	}
	if _, _, err := c.TryLock(ctx, sid, holder); !errors.Is(err, sessfs.ErrUnavailable) {
		t.Fatalf("%v", err)
	}
	// With two in all the one that is left goes on alone, unless both are asked for.
	mem, o = servers(t, 2)
	c = open(t, o)
	mustCommit(t, c, sid, &sessfs.Session{}, "0", nil)
	o.Majority = true
	m := open(t, o)
	mem[1].stop()
	if !increment(t, c, sid) {
		t.Fatal("the one that is left does not go on")
	}
	if _, _, err := m.TryLock(ctx, sid, holder); !errors.Is(err, sessfs.ErrUnavailable) {
		t.Fatalf("quorum: majority goes on alone: %v", err)
	}
}

// A lock is held while one of its servers restarts empty: nobody else gets it, the holder's change is stored, and the lock
// is put back.
func TestRestartUnderALock(t *testing.T) {
	for n := 2; n <= 3; n++ {
		mem, o := servers(t, n)
		c, d := open(t, o), open(t, o)
		l, s := mustLock(t, c, sid)
		s = mustCommit(t, c, sid, s, "one", l)
		for i, m := range mem {
			m.stop()
			m.start()
			for _, c := range []*Cluster{c, d} {
				c.Check(ctx) // notices it
				until(t, "the server is used again", func() bool { return c.Check(ctx) == nil && !c.servers()[i].down() })
			}
			if other, _, err := d.TryLock(ctx, sid, holder); err != nil || other != nil {
				t.Fatalf("%d servers, %d restarted: another host got the lock (%v)", n, i+1, err)
			}
			if i == 0 {
				if err := c.Renew(ctx, l); err != nil {
					t.Fatalf("renewing: %v", err)
				}
			}
			s = mustCommit(t, c, sid, s, fmt.Sprint("after ", i), l)
		}
		if got := mustRead(t, d, sid); string(got.Data) != fmt.Sprint("after ", n-1) {
			t.Fatalf("%q", got.Data)
		}
		c.Unlock(l)
		until(t, "the lock is free", func() bool { h, err := d.Locked(ctx, sid); return h == nil && err == nil })
	}
}

// A warm request waits for two round trips, however many copies there are.
func TestRoundTripsWithCopies(t *testing.T) {
	for _, replicas := range []int{1, 2, 3} {
		_, o := servers(t, 4)
		o.Replicas = replicas
		c := open(t, o)
		increment(t, c, sid)
		time.Sleep(200 * time.Millisecond) // servers that are connected are asked for their lists of servers
		before := c.Waits()
		for range 50 {
			increment(t, c, sid)
		}
		if got := c.Waits() - before; got != 100 {
			t.Errorf("%d copies: 50 requests waited for %d round trips", replicas, got)
		}
	}
}

// Large sessions have their parts on every server that has a copy.
func TestLargeSessionsHaveCopies(t *testing.T) {
	mem, o := servers(t, 3)
	o.MaxSize = 8 << 20
	c := open(t, o)
	data := make([]byte, 3<<20)
	for i := range data {
		data[i] = byte(i * i >> 7)
	}
	ids := many(6)
	for _, id := range ids {
		mustCommit(t, c, id, &sessfs.Session{}, string(data), nil)
	}
	for _, m := range mem {
		m.stop()
		for _, id := range ids {
			if l, s := lockSoon(t, c, id); string(s.Data) != string(data) {
				t.Fatalf("%d bytes came back", len(s.Data))
			} else {
				c.Unlock(l)
			}
		}
		m.start()
		until(t, "all servers are used", func() bool {
			for _, s := range c.servers() {
				if s.down() {
					return false
				}
			}
			return c.Check(ctx) == nil
		})
		for _, id := range ids {
			l, _ := lockSoon(t, c, id)
			c.Unlock(l)
		}
	}
}

// Two changes without a lock, on top of one version of which each has read another copy: who looked while it was being
// stored found it on one server only. One of them is refused.
func TestChangesOfDifferentCopies(t *testing.T) {
	for _, classic := range []bool{false, true} {
		_, o := servers(t, 2)
		o.ForceClassic = classic
		c := open(t, o)
		mustCommit(t, c, "sess_a", &sessfs.Session{}, "x", nil)
		s := mustRead(t, c, "sess_a")
		all := refOf(s)
		if len(all.copies) != 2 {
			t.Fatalf("%d copies were read", len(all.copies))
		}
		var acknowledged []int
		for i := range 2 {
			one, own := *s, all
			own.copies = all.copies[i : i+1]
			one.Ref = own
			switch _, err := c.Commit(ctx, "sess_a", &one, s.Attr, fmt.Append(nil, i), nil); {
			case err == nil:
				acknowledged = append(acknowledged, i)
			case !errors.Is(err, sessfs.ErrConflict):
				t.Fatal(err)
			}
		}
		if found := mustRead(t, c, "sess_a"); len(acknowledged) != 1 || string(found.Data) != fmt.Sprint(acknowledged[0]) {
			t.Errorf("classic %v: %v were told that they were stored, %q is there", classic, acknowledged, found.Data)
		}
	}
}

// A server that was restarted has lost its lock, and another host's attempt stands there: both are named.
func TestLocksOfSeveralHosts(t *testing.T) {
	mem, o := servers(t, 2)
	c := open(t, o)
	mustCommit(t, c, "sess_a", &sessfs.Session{}, "x", nil)
	l, _ := lockSoon(t, c, "sess_a")
	attempt := encodeLock("attempt", sessfs.Holder{Host: "other", Keep: time.Second})
	mem[0].raw("set sessfs:@sess_a 0 30 %d\r\n%s\r\n", len(attempt), attempt)
	names := func(h *sessfs.Holder) (tokens []string) {
		for x := h; x != nil; x = x.Also {
			tokens = append(tokens, x.Token)
		}
		return tokens
	}
	h, err := c.Locked(ctx, "sess_a")
	if err != nil || !slices.Equal(names(h), []string{"attempt", l.Token}) || h.Of(l.Token) == nil || h.Of("nobody") != nil {
		t.Errorf("%v, %v", names(h), err)
	}
	if _, h, err = c.Destroy(ctx, "sess_a"); err != nil || !slices.Equal(names(h), []string{"attempt", l.Token}) {
		t.Errorf("when it was destroyed: %v, %v", names(h), err)
	}
	c.Unlock(l)
}
