package locking

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sessfs"
	"sessfs/backend/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const id = sessfs.ID("sess_test")

var ctx = context.Background()

func servers(t testing.TB) *memory.Backend {
	b := memory.New(memory.Options{Lifetime: time.Minute, Lease: 2 * time.Second, MaxSize: 1 << 20})
	t.Cleanup(func() { b.Close() })
	return b
}

// world is a test with lock.keep off or on.
type world struct {
	*testing.T
	keep time.Duration
}

// eachKeep runs a test without kept leases and with them: all promises hold either way.
func eachKeep(t *testing.T, test func(t world)) {
	for _, keep := range []time.Duration{0, 400 * time.Millisecond} {
		t.Run("keep="+keep.String(), func(t *testing.T) { test(world{t, keep}) })
	}
}

func (w world) host(b sessfs.Backend, name string) *Manager {
	m := New(b, Options{Host: name, Settings: Settings{Lease: 2 * time.Second, Keep: w.keep}})
	w.Cleanup(m.Close)
	return m
}

func mustOpen(t testing.TB, m *Manager, intent bool) (sessfs.Claim, *sessfs.Session) {
	t.Helper()
	c, s, err := m.Open(ctx, id, intent, 1)
	if err != nil {
		t.Fatal(err)
	}
	return c, s
}

// waitFor has c wait for the lock, the only one of m that does; what it is given then comes over the channel.
func waitFor(t testing.TB, m *Manager, c sessfs.Claim) <-chan *sessfs.Session {
	t.Helper()
	got := make(chan *sessfs.Session, 1)
	go func() {
		s, err := c.Lock(ctx, sessfs.Exclusive, true)
		if err != nil {
			t.Error(err)
		}
		got <- s
	}()
	poll(t, 10*time.Second, func() bool { return m.Stats().Waiting == 1 })
	return got
}

// increment does what a PHP request does: open, lock, read, write, close.
func increment(m *Manager, holding *atomic.Int32) error {
	c, s, err := m.Open(ctx, id, true, 1)
	if err != nil {
		return err
	}
	defer c.Close()
	fresh, err := c.Lock(ctx, sessfs.Exclusive, true)
	if err != nil {
		return err
	}
	if fresh != nil {
		s = fresh
	}
	if holding.Add(1) != 1 {
		return errors.New("two holders at a time")
	}
	var n uint64
	if len(s.Data) == 8 {
		n = binary.BigEndian.Uint64(s.Data)
	}
	_, err = c.Commit(ctx, s, s.Attr, binary.BigEndian.AppendUint64(nil, n+1))
	holding.Add(-1)
	return err
}

func TestIncrementsOverThreeHosts(t *testing.T) { eachKeep(t, testIncrementsOverThreeHosts) }

func testIncrementsOverThreeHosts(t world) {
	b := servers(t)
	var wg sync.WaitGroup
	var holding atomic.Int32
	const each = 60
	for _, name := range []string{"a", "b", "c"} {
		m := t.host(b, name)
		for range 3 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for range each {
					if err := increment(m, &holding); err != nil {
						t.Error(err)
						return
					}
				}
			}()
		}
	}
	wg.Wait()
	s, _ := b.Read(ctx, id)
	if n := binary.BigEndian.Uint64(s.Data); n != 9*each {
		t.Fatalf("%d increments are there, want %d", n, 9*each)
	}
}

func TestUnaskedLeaseGoesBack(t *testing.T) { eachKeep(t, testUnaskedLeaseGoesBack) }

func testUnaskedLeaseGoesBack(t world) {
	b := servers(t)
	c, _ := mustOpen(t, t.host(b, "a"), true)
	defer c.Close()
	if h, _ := b.Locked(ctx, id); h == nil {
		t.Fatal("open for writing took no lease")
	}
	poll(t, time.Second, func() bool { h, _ := b.Locked(ctx, id); return h == nil })
	if _, err := c.Lock(ctx, sessfs.Exclusive, true); err != nil {
		t.Fatalf("locking after the lease went back: %v", err)
	}
	if !c.Held() {
		t.Fatal("not held")
	}
}

func poll(t testing.TB, limit time.Duration, done func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("did not happen in", limit)
		}
	}
}

func TestReadersTakeNoLease(t *testing.T) { eachKeep(t, testReadersTakeNoLease) }

func testReadersTakeNoLease(t world) {
	b := servers(t)
	c, _ := mustOpen(t, t.host(b, "a"), false)
	defer c.Close()
	if h, _ := b.Locked(ctx, id); h != nil {
		t.Fatal("an open for reading took the lease")
	}
}

func TestSharedAndTry(t *testing.T) { eachKeep(t, testSharedAndTry) }

func testSharedAndTry(t world) {
	b := servers(t)
	m := t.host(b, "a")
	one, _ := mustOpen(t, m, true)
	two, _ := mustOpen(t, m, true)
	defer one.Close()
	defer two.Close()
	for _, c := range []sessfs.Claim{one, two} {
		if _, err := c.Lock(ctx, sessfs.Shared, false); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := two.Lock(ctx, sessfs.Exclusive, false); !errors.Is(err, sessfs.ErrLocked) {
		t.Fatalf("upgrade against another reader: %v, want ErrLocked", err)
	}
	one.Unlock()
	if _, err := two.Lock(ctx, sessfs.Exclusive, false); err != nil {
		t.Fatalf("two alone: %v", err)
	}
	if _, err := one.Lock(ctx, sessfs.Shared, false); !errors.Is(err, sessfs.ErrLocked) {
		t.Fatalf("shared against exclusive: %v, want ErrLocked", err)
	}
	other, _ := mustOpen(t, t.host(b, "b"), true)
	defer other.Close()
	if _, err := other.Lock(ctx, sessfs.Exclusive, false); !errors.Is(err, sessfs.ErrLocked) {
		t.Fatalf("another host: %v, want ErrLocked", err)
	}
	if other.Err() != nil {
		t.Fatal("LOCK_NB that failed must not poison")
	}
}

func TestCancelledWaitEndsAtOnce(t *testing.T) { eachKeep(t, testCancelledWaitEndsAtOnce) }

func testCancelledWaitEndsAtOnce(t world) {
	b := servers(t)
	holder, _ := mustOpen(t, t.host(b, "a"), true)
	defer holder.Close()
	if _, err := holder.Lock(ctx, sessfs.Exclusive, true); err != nil {
		t.Fatal(err)
	}
	c, _ := mustOpen(t, t.host(b, "b"), true)
	defer c.Close()
	waiting, cancel := context.WithCancel(ctx)
	time.AfterFunc(20*time.Millisecond, cancel)
	start := time.Now()
	if _, err := c.Lock(waiting, sessfs.Exclusive, true); !errors.Is(err, context.Canceled) {
		t.Fatalf("%v, want Canceled", err)
	}
	if time.Since(start) > 5*time.Second { // the holder goes on
		t.Fatal("a cancelled wait lasted", time.Since(start))
	}
	if c.Err() != nil {
		t.Fatalf("a signal must not poison: %v", c.Err())
	}
	holder.Unlock()
	if _, err := c.Lock(ctx, sessfs.Exclusive, true); err != nil {
		t.Fatalf("restarted wait: %v", err)
	}
}

// deaf drops what a host sends from a moment on: the host is cut off or frozen.
type deaf struct {
	sessfs.Backend
	cut atomic.Bool
}

func (d *deaf) Renew(ctx context.Context, l *sessfs.Lease) error {
	if d.cut.Load() {
		return sessfs.ErrUnavailable
	}
	return d.Backend.Renew(ctx, l)
}

func (d *deaf) Unlock(l *sessfs.Lease) {
	if !d.cut.Load() {
		d.Backend.Unlock(l)
	}
}

func TestLostLeasePoisonsItsHolder(t *testing.T) { eachKeep(t, testLostLeasePoisonsItsHolder) }

func testLostLeasePoisonsItsHolder(t world) {
	b := servers(t)
	cut := &deaf{Backend: b}
	frozen, s := mustOpen(t, t.host(cut, "a"), true)
	defer frozen.Close()
	if _, err := frozen.Lock(ctx, sessfs.Exclusive, true); err != nil {
		t.Fatal(err)
	}
	cut.cut.Store(true)
	next, _ := mustOpen(t, t.host(b, "b"), true)
	defer next.Close()
	start := time.Now()
	fresh, err := next.Lock(ctx, sessfs.Exclusive, true)
	if err != nil || fresh == nil {
		t.Fatalf("the lock of a dead host: %v %v", fresh, err)
	}
	if d := time.Since(start); d > 4*time.Second {
		t.Fatalf("a dead host's lock was freed after %v, want one lease (2 s)", d)
	}
	if _, err := frozen.Commit(ctx, s, s.Attr, []byte("late")); !errors.Is(err, sessfs.ErrLockLost) {
		t.Fatalf("a late write: %v, want ErrLockLost", err)
	}
	if frozen.Err() == nil {
		t.Fatal("the claim that lost its lock is not poisoned")
	}
}

func TestRenewedLeaseStands(t *testing.T) { eachKeep(t, testRenewedLeaseStands) }

func testRenewedLeaseStands(t world) {
	b := servers(t)
	c, s := mustOpen(t, t.host(b, "a"), true)
	defer c.Close()
	if _, err := c.Lock(ctx, sessfs.Exclusive, true); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if !c.Held() {
			t.Fatal("the lease was lost while it was renewed")
		}
	}
	if _, err := c.Commit(ctx, s, s.Attr, []byte("x")); err != nil {
		t.Fatal(err)
	}
}

func TestWaiterReadsAgain(t *testing.T) { eachKeep(t, testWaiterReadsAgain) }

func testWaiterReadsAgain(t world) {
	b := servers(t)
	one, two := t.host(b, "a"), t.host(b, "b")
	holder, s := mustOpen(t, one, true)
	if _, err := holder.Lock(ctx, sessfs.Exclusive, true); err != nil {
		t.Fatal(err)
	}
	if s, _ = holder.Commit(ctx, s, s.Attr, []byte("first")); s == nil {
		t.Fatal("no commit")
	}
	waiter, _ := mustOpen(t, two, true)
	defer waiter.Close()
	time.AfterFunc(20*time.Millisecond, func() {
		holder.Close()
		if _, err := one.Destroy(ctx, id); err != nil {
			t.Error(err)
		}
	})
	fresh, err := waiter.Lock(ctx, sessfs.Exclusive, true)
	if err != nil || fresh == nil {
		t.Fatalf("%v %v", fresh, err)
	}
	if fresh.State == sessfs.Live { // it won before the destroy: its write must fail then
		poll(t, time.Second, func() bool { v, _ := b.Read(ctx, id); return v.State == sessfs.Destroyed })
		if _, err := waiter.Commit(ctx, fresh, fresh.Attr, []byte("late")); !errors.Is(err, sessfs.ErrConflict) {
			t.Fatalf("a write on a destroyed session: %v, want ErrConflict", err)
		}
	}
}

// P8: who holds the lock for long after its last write does not leave a session behind that was destroyed meanwhile.
func TestLateHandOverReads(t *testing.T) { eachKeep(t, testLateHandOverReads) }

func testLateHandOverReads(t world) {
	b := servers(t)
	m := t.host(b, "a")
	holder, s := mustOpen(t, m, true)
	if _, err := holder.Lock(ctx, sessfs.Exclusive, true); err != nil {
		t.Fatal(err)
	}
	if _, err := holder.Commit(ctx, s, s.Attr, []byte("secret")); err != nil {
		t.Fatal(err)
	}
	next, _ := mustOpen(t, m, true)
	defer next.Close()
	got := waitFor(t, m, next)
	if existed, err := t.host(b, "b").Destroy(ctx, id); !existed || err != nil {
		t.Fatal(existed, err)
	}
	time.Sleep(2 * fresh)
	holder.Close()
	if s := <-got; s == nil || s.State != sessfs.Destroyed {
		t.Errorf("the next holder was given %+v", s)
	}
}

func TestWaitLimit(t *testing.T) { eachKeep(t, testWaitLimit) }

func testWaitLimit(t world) {
	b := servers(t)
	holder, _ := mustOpen(t, t.host(b, "a"), true)
	defer holder.Close()
	if _, err := holder.Lock(ctx, sessfs.Exclusive, true); err != nil {
		t.Fatal(err)
	}
	m := t.host(b, "b")
	m.Reconfigure(Settings{Lease: 2 * time.Second, Wait: 50 * time.Millisecond})
	c, _ := mustOpen(t, m, true)
	defer c.Close()
	if _, err := c.Lock(ctx, sessfs.Exclusive, true); !errors.Is(err, sessfs.ErrLockTimeout) {
		t.Fatalf("%v, want ErrLockTimeout", err)
	}
	if c.Err() == nil {
		t.Fatal("a claim whose lock could not be got must fail every later call")
	}
}
