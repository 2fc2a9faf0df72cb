package backendtest

import (
	"fmt"
	"time"

	"sessfs"
)

const keep = 700 * time.Millisecond

func (e *env) tryKeep(id sessfs.ID, host string) (*sessfs.Lease, *sessfs.Session) {
	e.Helper()
	l, s, err := e.b.TryLock(e.ctx, id, sessfs.Holder{Host: host, Since: time.Now(), Keep: keep})
	if err != nil {
		e.Fatalf("TryLock: %v", err)
	}
	return l, s
}

func (e *env) mark(id sessfs.ID, token string) {
	e.Helper()
	if err := e.b.Mark(e.ctx, id, token); err != nil {
		e.Fatalf("Mark: %v", err)
	}
}

func (e *env) locked(id sessfs.ID) *sessfs.Holder {
	e.Helper()
	h, err := e.b.Locked(e.ctx, id)
	if err != nil {
		e.Fatalf("Locked: %v", err)
	}
	return h
}

// A mark is seen by the commits and looks of the lease that it was left for, and by no other.
func (e *env) marks() {
	const id = "sess_a"
	one, s := e.tryLock(id, "one")
	if h := e.locked(id); h.Token != one.Token || h.Answered || h.Keep != 0 {
		e.Fatalf("holder %+v of the lease %q", h, one.Token)
	}
	e.mark(id, "another")
	commit := func(what string, look, want bool) {
		e.Helper()
		l := *one
		l.Look = look
		s = e.commit(id, s, []byte(what), &l)
		if l.Marked != want {
			e.Fatalf("%s: the commit says %v", what, l.Marked)
		}
	}
	commit("another's mark", true, false)
	e.mark(id, one.Token)
	e.mark(id, one.Token)
	commit("not looked", false, false)
	commit("marked", true, true)
	var leases []*sessfs.Lease
	var want []bool
	var since []time.Time
	for i := range 600 {
		since = append(since, time.Now())
		l, _ := e.tryLock(sessfs.ID(fmt.Sprintf("sess_%d \xff", i)), "one")
		if i%7 == 0 {
			e.mark(l.ID, l.Token)
		}
		leases, want = append(leases, l), append(want, i%7 == 0)
		if err := e.b.Renew(e.ctx, one); err != nil {
			e.Fatal(err)
		}
	}
	e.mark(id, one.Token) // which has ended on a slow machine
	leases, want = append(leases, one), append(want, true)
	got := e.b.Marked(e.ctx, leases)
	if len(got) != len(want) {
		e.Fatalf("%d answers for %d leases", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] && (i == len(want)-1 || time.Since(since[i]) < Lease) { // on a slow machine the first ones have ended
			e.Fatalf("lease %d of %d: marked %v", i, len(leases), got[i])
		}
	}
	e.b.Answer(one)
	e.until("the mark is answered", func() bool { return e.locked(id).Answered })
	commit("answered", true, false)
	if got := e.b.Marked(e.ctx, []*sessfs.Lease{one}); got[0] {
		e.Fatal("an answered mark is still one")
	}
	e.b.Unlock(one)
	e.until("it is free", func() bool { return e.locked(id) == nil })
	next, _ := e.tryLock(id, "two")
	if h := e.locked(id); h.Token != next.Token || h.Answered {
		e.Fatalf("the next holder %+v has the answer of the last one", h)
	}
	if got := e.b.Marked(e.ctx, []*sessfs.Lease{next}); got[0] {
		e.Fatal("the next lease has the mark of the last one")
	}
}

// Who destroys or breaks learns who may keep the lease, and a broken one is marked.
func (e *env) keptLease() {
	const id = "sess_a"
	if _, h, err := e.b.Destroy(e.ctx, id); h != nil || err != nil {
		e.Fatal(h, err)
	}
	l, s := e.tryKeep(id, "one ü")
	for range 10 {
		if e.b.Unbroken(l) {
			break // a backend may still be making connections, and not know one from the other
		}
		e.b.Unlock(l)
		e.until("it is free", func() bool { return e.locked(id) == nil })
		l, s = e.tryKeep(id, "one ü")
	}
	if l.Keep != keep || !e.b.Unbroken(l) {
		e.Fatalf("the lease %+v, unbroken %v", l, e.b.Unbroken(l))
	}
	kept := func(h *sessfs.Holder) bool {
		return h != nil && h.Keep == keep && h.Host == "one ü" && h.Token == l.Token
	}
	if existed, h, err := e.b.Destroy(e.ctx, id); existed || !kept(h) || err != nil {
		e.Fatalf("Destroy of a missing session: %v %+v %v", existed, h, err)
	}
	e.commit(id, s, []byte("x"), l)
	for _, want := range []bool{true, false} {
		if existed, h, err := e.b.Destroy(e.ctx, id); existed != want || !kept(h) || err != nil {
			e.Fatalf("Destroy: %v %+v %v", existed, h, err)
		}
	}
	if h, err := e.b.Break(e.ctx, id); !kept(h) || err != nil {
		e.Fatalf("Break: %+v %v", h, err)
	}
	if !e.b.Marked(e.ctx, []*sessfs.Lease{l})[0] {
		e.Fatal("the host of a lease that was broken is told nothing")
	}
	if e.locked(id) != nil {
		e.Fatal("a mark is taken for a lock")
	}
	if s := e.read(id); s.State != sessfs.Destroyed {
		e.Fatalf("%+v is there", s)
	}
}
