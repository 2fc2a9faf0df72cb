package memory

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sessfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T) *Backend {
	b := New(Options{Lifetime: time.Minute, Lease: 2 * time.Second, MaxSize: 1 << 20})
	t.Cleanup(func() { b.Close() })
	return b
}

func TestCommitIsConditional(t *testing.T) {
	b, ctx := open(t), context.Background()
	missing, _ := b.Read(ctx, "sess_a")
	one, err := b.Commit(ctx, "sess_a", missing, sessfs.Attr{Mode: 0o600}, []byte("one"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Commit(ctx, "sess_a", missing, sessfs.Attr{}, []byte("other"), nil); !errors.Is(err, sessfs.ErrConflict) {
		t.Fatalf("a commit on a missing base over a live session: %v, want ErrConflict", err)
	}
	two, err := b.Commit(ctx, "sess_a", one, one.Attr, []byte("two"), nil)
	if err != nil || two.Version.Counter != one.Version.Counter+1 {
		t.Fatalf("second commit: %+v %v", two, err)
	}
	if _, err := b.Commit(ctx, "sess_a", one, one.Attr, []byte("late"), nil); !errors.Is(err, sessfs.ErrConflict) {
		t.Fatalf("a commit on an old version: %v, want ErrConflict", err)
	}
	if _, err := b.Commit(ctx, "sess_a", two, one.Attr, make([]byte, 1<<20+1), nil); !errors.Is(err, sessfs.ErrTooLarge) {
		t.Fatalf("a session over the limit: %v, want ErrTooLarge", err)
	}
	if s, _ := b.Read(ctx, "sess_a"); string(s.Data) != "two" {
		t.Fatalf("read %q, want %q", s.Data, "two")
	}
}

func TestDestroyedStaysDestroyed(t *testing.T) {
	b, ctx := open(t), context.Background()
	if existed, _, _ := b.Destroy(ctx, "sess_a"); existed {
		t.Fatal("a missing session was destroyed")
	}
	live, err := b.Commit(ctx, "sess_a", &sessfs.Session{}, sessfs.Attr{}, []byte("x"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if existed, _, err := b.Destroy(ctx, "sess_a"); !existed || err != nil {
		t.Fatalf("Destroy: %v %v", existed, err)
	}
	if _, err := b.Commit(ctx, "sess_a", live, live.Attr, []byte("late"), nil); !errors.Is(err, sessfs.ErrConflict) {
		t.Fatalf("a late write on a destroyed session: %v, want ErrConflict", err)
	}
	tomb, _ := b.Read(ctx, "sess_a")
	if tomb.State != sessfs.Destroyed {
		t.Fatalf("state %d, want Destroyed", tomb.State)
	}
	if _, err := b.Commit(ctx, "sess_a", tomb, live.Attr, []byte("new"), nil); err != nil {
		t.Fatalf("a new session on the tombstone: %v", err)
	}
}

func TestLeaseExcludesAndEnds(t *testing.T) {
	b, ctx := open(t), context.Background()
	first, _, _ := b.TryLock(ctx, "sess_a", sessfs.Holder{Host: "one", PID: 7})
	if first == nil {
		t.Fatal("no lease on a free lock")
	}
	if second, _, _ := b.TryLock(ctx, "sess_a", sessfs.Holder{Host: "two"}); second != nil {
		t.Fatal("two leases at a time")
	}
	if h, _ := b.Locked(ctx, "sess_a"); h == nil || h.Host != "one" || h.PID != 7 {
		t.Fatalf("holder %+v", h)
	}
	for b.shard("sess_a").items["sess_a"].lock.until > sessfs.Boottime() {
		time.Sleep(10 * time.Millisecond)
	}
	second, _, _ := b.TryLock(ctx, "sess_a", sessfs.Holder{Host: "two"})
	if second == nil {
		t.Fatal("the lease did not end")
	}
	if _, err := b.Commit(ctx, "sess_a", &sessfs.Session{}, sessfs.Attr{}, nil, first); !errors.Is(err, sessfs.ErrLockLost) {
		t.Fatalf("a commit after the lease: %v, want ErrLockLost", err)
	}
	b.Unlock(first)
	if h, _ := b.Locked(ctx, "sess_a"); h == nil || h.Host != "two" {
		t.Fatal("a late unlock freed another's lock")
	}
}

func TestIncrementsByCompareAndSwap(t *testing.T) {
	b, ctx := open(t), context.Background()
	var wg sync.WaitGroup
	for range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for done := 0; done < 50; {
				s, _ := b.Read(ctx, "sess_n")
				if _, err := b.Commit(ctx, "sess_n", s, s.Attr, append([]byte{'x'}, s.Data...), nil); err == nil {
					done++
				}
			}
		}()
	}
	wg.Wait()
	if s, _ := b.Read(ctx, "sess_n"); len(s.Data) != 400 {
		t.Fatalf("%d increments are there, want 400", len(s.Data))
	}
}
