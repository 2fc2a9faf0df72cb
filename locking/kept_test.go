package locking

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"sessfs"
	"sessfs/backend/memory"
)

// lasting is servers and settings under which nothing ends by itself while a test runs.
func lasting(t *testing.T) (*memory.Backend, Settings) {
	b := memory.New(memory.Options{Lifetime: time.Hour, Lease: time.Hour, MaxSize: 1 << 20})
	t.Cleanup(func() { b.Close() })
	return b, Settings{Lease: time.Hour, Keep: 10 * time.Minute}
}

func manager(t *testing.T, b sessfs.Backend, name string, s Settings) *Manager {
	m := New(b, Options{Host: name, Settings: s})
	t.Cleanup(m.Close)
	return m
}

// request is a PHP request that stores data, and returns what it found.
func request(t testing.TB, m *Manager, id sessfs.ID, data string) *sessfs.Session {
	t.Helper()
	c, s, err := m.Open(ctx, id, true, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fresh, err := c.Lock(ctx, sessfs.Exclusive, true)
	if err != nil {
		t.Fatal(err)
	}
	if fresh != nil {
		s = fresh
	}
	if data != "" {
		if _, err := c.Commit(ctx, s, s.Attr, []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestWarmRequestAsksNothing(t *testing.T) {
	m, s := lasting(t)
	b := &counted{Backend: m}
	host := manager(t, b, "a", s)
	for i := range 50 {
		found := request(t, host, id, fmt.Sprint(i))
		if i > 0 && string(found.Data) != fmt.Sprint(i-1) {
			t.Fatalf("request %d found %q", i, found.Data)
		}
	}
	request(t, host, id, "") // one that stores nothing
	request(t, host, id, "last")
	if b.tries.Load() != 1 || b.reads.Load() != 0 || b.polls.Load() != 0 {
		t.Errorf("%d attempts, %d reads, %d polls", b.tries.Load(), b.reads.Load(), b.polls.Load())
	}
	if n := host.Stats().Kept; n != 1 {
		t.Errorf("%d leases are kept", n)
	}
	host.Close()
	if h, _ := m.Locked(ctx, id); h != nil {
		t.Error("the end of the daemon left a lease behind")
	}
}

// A waiter elsewhere gets a kept lease long before it ends.
func TestMarkBringsAKeptLeaseBack(t *testing.T) {
	b, s := lasting(t)
	one, two := manager(t, b, "a", s), manager(t, b, "b", s)
	for i := range 4 {
		request(t, one, id, fmt.Sprint("one", i))
		if found := request(t, two, id, fmt.Sprint("two", i)); string(found.Data) != fmt.Sprint("one", i) {
			t.Fatalf("the other host found %q", found.Data)
		}
	}
}

// LOCK_NB, and changes by path, do not fail because of a lease that nobody uses.
func TestKeptLeaseIsNobodysLock(t *testing.T) {
	b, s := lasting(t)
	one, two := manager(t, b, "a", s), manager(t, b, "b", s)
	request(t, one, id, "x")
	c, _ := mustOpen(t, two, true)
	if _, err := c.Lock(ctx, sessfs.Exclusive, false); err != nil {
		t.Fatalf("LOCK_NB: %v", err)
	}
	other, _ := mustOpen(t, one, true)
	if _, err := other.Lock(ctx, sessfs.Exclusive, false); !errors.Is(err, sessfs.ErrLocked) {
		t.Fatalf("LOCK_NB while it is held: %v", err)
	}
	other.Close()
	c.Close()
	v, err := one.Read(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := one.Commit(ctx, id, v, v.Attr, v.Data); err != nil {
		t.Fatalf("a change by path: %v", err)
	}
}

// P8: when Destroy has returned no keeper serves the session any more.
func TestDestroyWaitsForKeepers(t *testing.T) {
	b, s := lasting(t)
	one, two := manager(t, b, "a", s), manager(t, b, "b", s)
	for name, hold := range map[string]bool{"kept": false, "in use": true} {
		t.Run(name, func(t *testing.T) {
			request(t, one, id, "secret")
			var c sessfs.Claim
			if hold {
				c, _ = mustOpen(t, one, true)
				if _, err := c.Lock(ctx, sessfs.Exclusive, true); err != nil {
					t.Fatal(err)
				}
			}
			if existed, err := two.Destroy(ctx, id); !existed || err != nil {
				t.Fatal(existed, err)
			}
			if hold {
				c.Close()
			}
			if found := request(t, one, id, "new"); found.State != sessfs.Destroyed {
				t.Errorf("after the session was destroyed its keeper found %+v", found)
			}
		})
	}
}

// unmarked loses all marks.
type unmarked struct{ sessfs.Backend }

func (u unmarked) Mark(context.Context, sessfs.ID, string) error { return nil }
func (u unmarked) Marked(_ context.Context, l []*sessfs.Lease) []bool {
	return make([]bool, len(l))
}

// The same where no mark ever arrives: the time alone decides.
func TestDestroyWithLostMarks(t *testing.T) {
	b, s := lasting(t)
	s.Keep = 300 * time.Millisecond
	one, two := manager(t, unmarked{b}, "a", s), manager(t, unmarked{b}, "b", s)
	request(t, one, id, "secret")
	c, _ := mustOpen(t, one, true) // it keeps the lease in use
	defer c.Close()
	if _, err := c.Lock(ctx, sessfs.Exclusive, true); err != nil {
		t.Fatal(err)
	}
	if existed, err := two.Destroy(ctx, id); !existed || err != nil {
		t.Fatal(existed, err)
	}
	c.Close()
	if found := request(t, one, id, ""); found.State != sessfs.Destroyed {
		t.Errorf("after the session was destroyed its keeper found %+v", found)
	}
}

// A host may destroy what it keeps itself, and waits for nobody.
func TestDestroyOfOnesOwn(t *testing.T) {
	m, s := lasting(t)
	b := &counted{Backend: m}
	host := manager(t, b, "a", s)
	request(t, host, id, "secret")
	if existed, err := host.Destroy(ctx, id); !existed || err != nil {
		t.Fatal(existed, err)
	}
	if b.polls.Load() != 0 {
		t.Error("it asked who has the lock")
	}
	if found := request(t, host, id, "new"); found.State != sessfs.Destroyed {
		t.Errorf("found %+v", found)
	}
}

func TestKeptLeasesAreBounded(t *testing.T) {
	b, s := lasting(t)
	m := New(b, Options{Host: "a", Settings: s, KeptMax: shards, KeptBytes: 1000})
	t.Cleanup(m.Close)
	kept := func() (n int64) {
		for i := range 20 * shards {
			if h, _ := b.Locked(ctx, sessfs.ID(fmt.Sprint("sess_", i))); h != nil {
				n++
			}
		}
		return n
	}
	for i := range 20 * shards {
		request(t, m, sessfs.ID(fmt.Sprint("sess_", i)), "x")
	}
	last := sessfs.ID(fmt.Sprint("sess_", 20*shards-1))
	if n := m.Stats().Kept; n == 0 || n > shards || n != kept() || m.kept.Load() != n {
		t.Errorf("%d leases are kept, %d locks stand, %d bytes", n, kept(), m.kept.Load())
	}
	if h, _ := b.Locked(ctx, last); h == nil {
		t.Error("the latest went back instead of the oldest")
	}
	request(t, m, "sess_large", string(make([]byte, 1001)))
	if h, _ := b.Locked(ctx, "sess_large"); h != nil {
		t.Error("a session that is larger than all the room is kept")
	}
	m.Reconfigure(Settings{Lease: s.Lease})
	poll(t, 10*time.Second, func() bool { return m.Stats().Kept == 0 && kept() == 0 })
	if n := m.kept.Load(); n != 0 {
		t.Errorf("%d bytes are left in the books", n)
	}
}

// `sessfs unlock` ends a kept lease: its host learns of it.
func TestBreakOfAKeptLease(t *testing.T) {
	b, s := lasting(t)
	m := manager(t, b, "a", s)
	request(t, m, id, "x")
	if h, err := b.Break(ctx, id); h == nil || err != nil {
		t.Fatal(h, err)
	}
	poll(t, 10*time.Second, func() bool { return m.Stats().Kept == 0 })
	request(t, m, id, "y")
}

// broken is a host whose connection to the server broke.
type broken struct{ sessfs.Backend }

func (broken) Unbroken(*sessfs.Lease) bool { return false }

func TestNothingIsServedOverABrokenConnection(t *testing.T) {
	m, s := lasting(t)
	b := &counted{Backend: broken{m}}
	host := manager(t, b, "a", s)
	request(t, host, id, "x")
	request(t, host, id, "y")
	if b.tries.Load() != 2 {
		t.Errorf("%d attempts for two requests", b.tries.Load())
	}
}

// A kept lease that nobody uses is not renewed; one that is used again and again, each time for a moment, is.
func TestRenewalOfKeptLeases(t *testing.T) {
	for name, used := range map[string]bool{"unused": false, "used": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const lease = 6 * time.Second // renewed after 2 s where it is used
			servers := memory.New(memory.Options{Lifetime: time.Minute, Lease: lease, MaxSize: 1 << 20})
			t.Cleanup(func() { servers.Close() })
			b := &renewed{Backend: servers}
			m := manager(t, b, "a", Settings{Lease: lease, Keep: 3 * time.Second})
			request(t, m, id, "x")
			for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
				if used {
					request(t, m, id, "x") // fails when the lease ends under it
				}
			}
			if (b.n.Load() > 0) != used {
				t.Errorf("%d renewals", b.n.Load())
			}
			if lost := m.Stats().LocksLost; lost != 0 {
				t.Errorf("%d locks were lost", lost)
			}
		})
	}
}

type renewed struct {
	sessfs.Backend
	n atomic.Int64
}

func (r *renewed) Renew(ctx context.Context, l *sessfs.Lease) error {
	r.n.Add(1)
	return r.Backend.Renew(ctx, l)
}

// A host that comes back for the lock again and again learns that another waits, and lets it have its turn.
func TestReturningHostLetsOthersIn(t *testing.T) {
	eachKeep(t, func(t world) {
		b := servers(t)
		one, two := t.host(b, "a"), t.host(b, "b")
		holder, _ := mustOpen(t, one, true)
		if _, err := holder.Lock(ctx, sessfs.Exclusive, true); err != nil {
			t.Fatal(err)
		}
		waiter, _ := mustOpen(t, two, true)
		defer waiter.Close()
		got := make(chan error, 1)
		go func() {
			_, err := waiter.Lock(ctx, sessfs.Exclusive, true)
			got <- err
		}()
		poll(t, 10*time.Second, func() bool { return two.Stats().Waiting == 1 })
		holder.Close()
		done := make(chan int, 1)
		stop := make(chan struct{})
		go func() {
			n := 0
			for ; ; n++ {
				select {
				case <-stop:
					done <- n
					return
				default:
				}
				c, s, err := one.Open(ctx, id, true, 1)
				if err != nil {
					continue
				}
				if fresh, err := c.Lock(ctx, sessfs.Exclusive, true); err == nil {
					if fresh != nil {
						s = fresh
					}
					time.Sleep(2 * time.Millisecond)
					c.Commit(ctx, s, s.Attr, nil)
				}
				c.Close()
			}
		}()
		if err := <-got; err != nil {
			t.Error(err)
		}
		waiter.Close()
		close(stop)
		if n := <-done; n > 500 {
			t.Errorf("%d turns of one host before the other had one", n)
		}
	})
}

func TestLookAfter(t *testing.T) {
	now, looks, last := time.Duration(0), 0, time.Duration(0)
	for now < time.Second {
		d := lookAfter(now)
		if d < last || d > lookMax || d < lookMin {
			t.Fatalf("%v after %v unused", d, now)
		}
		now, last, looks = now+d, d, looks+1
	}
	if last != lookMax || looks > 20 {
		t.Errorf("%d looks in a second, the last after %v", looks, last)
	}
}
