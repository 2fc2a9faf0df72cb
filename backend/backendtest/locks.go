package backendtest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sessfs"
)

func (e *env) lock() {
	const id = "sess_a"
	e.commit(id, &sessfs.Session{}, []byte("x"), nil)
	since := time.Now()
	one, s := e.tryLock(id, "one ü\r\n")
	if one == nil || string(s.Data) != "x" {
		e.Fatalf("no lease on a free lock, or no session: %+v", s)
	}
	if left := time.Duration(one.Deadline - sessfs.Boottime()); left <= 0 || left > Lease {
		e.Fatalf("the lease ends in %v", left)
	}
	two, s := e.tryLock(id, "two")
	if two != nil || string(s.Data) != "x" {
		e.Fatalf("two leases at a time, or no session: %+v", s)
	}
	h, err := e.b.Locked(e.ctx, id)
	if err != nil || h == nil || h.Host != "one ü\r\n" || h.PID != 7 || h.Boot != "b" || h.Since.Sub(since).Abs() > time.Second {
		e.Fatalf("holder %+v, %v", h, err)
	}
	if other, _ := e.tryLock("sess_b", "two"); other == nil {
		e.Fatal("the lock of one session excludes another")
	}
	e.b.Unlock(one)
	e.until("the lock is free", func() bool {
		two, _ = e.tryLock(id, "two")
		return two != nil
	})
	e.b.Unlock(one) // a second time, and too late
	time.Sleep(50 * time.Millisecond)
	if h := e.holder(id); h != "two" {
		e.Fatalf("a late unlock freed another's lock: holder %q", h)
	}
}

func (e *env) leaseEnds() {
	const id = "sess_a"
	one, _ := e.tryLock(id, "one")
	var two *sessfs.Lease
	e.until("the lease ends", func() bool {
		two, _ = e.tryLock(id, "two")
		return two != nil
	})
	if sessfs.Boottime() < one.Deadline {
		e.Fatal("the lock ended before its holder knew")
	}
	e.refuse(sessfs.ErrLockLost, id, &sessfs.Session{}, one)
	if err := e.b.Renew(e.ctx, one); !errors.Is(err, sessfs.ErrLockLost) {
		e.Fatalf("Renew of a lost lease: %v", err)
	}
	e.b.Unlock(one)
	time.Sleep(50 * time.Millisecond)
	if h := e.holder(id); h != "two" {
		e.Fatalf("holder %q after a late unlock", h)
	}
}

func (e *env) renew() {
	const id = "sess_a"
	l, _ := e.tryLock(id, "one")
	for end := time.Now().Add(2 * Lease); time.Now().Before(end); time.Sleep(Lease / 4) {
		before := l.Deadline
		if err := e.b.Renew(e.ctx, l); err != nil || l.Deadline <= before {
			e.Fatalf("Renew: %v, deadline %d after %d", err, l.Deadline, before)
		}
	}
	if h := e.holder(id); h != "one" {
		e.Fatalf("holder %q", h)
	}
	e.b.Unlock(l)
	e.until("it is free", func() bool { return e.holder(id) == "" })
}

func (e *env) breakLock() {
	const id = "sess_a"
	if h, err := e.b.Break(e.ctx, id); h != nil || err != nil {
		e.Fatalf("Break of a free lock: %+v %v", h, err)
	}
	l, s := e.tryLock(id, "one")
	h, err := e.b.Break(e.ctx, id)
	if err != nil || h == nil || h.Host != "one" {
		e.Fatalf("Break: %+v %v", h, err)
	}
	if h := e.holder(id); h != "" {
		e.Fatalf("holder %q", h)
	}
	e.refuse(sessfs.ErrLockLost, id, s, l)
}

func (e *env) commitUnderLostLease() {
	const id = "sess_a"
	l, s := e.tryLock(id, "one")
	s = e.commit(id, s, []byte("x"), l)
	if _, err := e.b.Break(e.ctx, id); err != nil {
		e.Fatal(err)
	}
	if other, _ := e.tryLock(id, "two"); other == nil {
		e.Fatal("not free")
	}
	e.refuse(sessfs.ErrLockLost, id, s, l)
}

func (e *env) expiredWhileLocked() {
	const id = "sess_a"
	l, s := e.tryLock(id, "one")
	s = e.commit(id, s, []byte("x"), l)
	e.until("the session runs out", func() bool {
		if err := e.b.Renew(e.ctx, l); err != nil {
			e.Fatal(err)
		}
		return e.read(id).State == sessfs.Missing
	})
	e.commit(id, s, []byte("again"), l)
	if s := e.read(id); string(s.Data) != "again" {
		e.Fatalf("read %q", s.Data)
	}
}

// endsByAge: a session that was changed some time ago has so much less left.
func (e *env) endsByAge() {
	for id, data := range map[sessfs.ID]string{"sess_a": "x", "sess_b": strings.Repeat("x", MaxSize)} {
		old := attr
		old.Ctime = time.Now().Add(-long + short).UnixNano()
		if _, err := e.b.Commit(e.ctx, id, &sessfs.Session{}, old, []byte(data), nil); err != nil {
			e.Fatal(err)
		}
	}
	e.commit("sess_c", &sessfs.Session{}, []byte("x"), nil)
	e.until("the old sessions run out", func() bool {
		return e.read("sess_a").State == sessfs.Missing && e.read("sess_b").State == sessfs.Missing
	})
	if e.read("sess_c").State != sessfs.Live {
		e.Fatal("a new session ran out with the old ones")
	}
}

func (e *env) expires() {
	s := e.commit("sess_a", &sessfs.Session{}, []byte("x"), nil)
	e.commit("sess_b", &sessfs.Session{}, []byte("x"), nil)
	if _, _, err := e.b.Destroy(e.ctx, "sess_b"); err != nil {
		e.Fatal(err)
	}
	e.until("the session runs out", func() bool { return e.read("sess_a").State == sessfs.Missing })
	if s := e.read("sess_b"); s.State != sessfs.Destroyed {
		e.Fatal("a tombstone lives no longer than a session")
	}
	e.refuse(sessfs.ErrConflict, "sess_a", s, nil)
}

func (e *env) exclusion() {
	const id, workers, rounds = "sess_n", 8, 25
	var inside atomic.Int32
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			for done := 0; done < rounds; {
				l, s, err := e.b.TryLock(e.ctx, id, sessfs.Holder{Host: fmt.Sprint(i)})
				if err != nil {
					e.Error(err)
					return
				}
				if l == nil {
					time.Sleep(rand.N(2 * time.Millisecond))
					continue
				}
				if inside.Add(1) != 1 {
					e.Error("two holders at a time")
				}
				_, err = e.b.Commit(e.ctx, id, s, attr, append(bytes.Clone(s.Data), 'x'), l)
				inside.Add(-1)
				e.b.Unlock(l)
				if err != nil {
					e.Error(err)
					return
				}
				done++
			}
		})
	}
	wg.Wait()
	if s := e.read(id); len(s.Data) != workers*rounds {
		e.Fatalf("%d increments are there, want %d", len(s.Data), workers*rounds)
	}
}

func (e *env) compareAndSwap() {
	const id, workers, rounds = "sess_n", 8, 25
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for done := 0; done < rounds; {
				s, err := e.b.Read(e.ctx, id)
				if err != nil {
					e.Error(err)
					return
				}
				switch _, err := e.b.Commit(e.ctx, id, s, attr, append(bytes.Clone(s.Data), 'x'), nil); {
				case err == nil:
					done++
				case !errors.Is(err, sessfs.ErrConflict):
					e.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if s := e.read(id); len(s.Data) != workers*rounds {
		e.Fatalf("%d increments are there, want %d", len(s.Data), workers*rounds)
	}
}
