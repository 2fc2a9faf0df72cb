package locking

import "sessfs"

// queue is the lock of one session among the claims of this host: first come, first served, as flock(2). It is a pure
// state machine: no I/O, no goroutines, no clock.
type queue struct {
	holders []*claim // one exclusive, or any number of shared
	kind    sessfs.LockKind
	waiters []*waiter
}

// waiter is one call of Lock that has not been granted.
type waiter struct {
	claim   *claim
	kind    sessfs.LockKind
	granted chan grant // capacity 1
	try     bool       // LOCK_NB: gets ErrLocked where another host has the lease, see Manager.seen
	since   int64      // Boottime
	absent  int64      // not 0: its call was interrupted; it keeps its place until then (Boottime), and is passed over
}

// grant answers a waiter. Without err it holds the lock now.
type grant struct {
	session *sessfs.Session // what stands there now; nil: it must be read
	err     error
}

func (q *queue) holds(c *claim) bool {
	for _, h := range q.holders {
		if h == c {
			return true
		}
	}
	return false
}

// free reports whether a claim could hold the lock now with that kind, nobody waiting.
func (q *queue) free(kind sessfs.LockKind) bool {
	return len(q.holders) == 0 || q.kind == sessfs.Shared && kind == sessfs.Shared
}

// grant makes c a holder. The caller has seen that it is free.
func (q *queue) grant(c *claim, kind sessfs.LockKind) {
	q.holders = append(q.holders, c)
	q.kind = kind
}

// release takes c from the holders and reports whether it was one.
func (q *queue) release(c *claim) bool {
	for i, h := range q.holders {
		if h == c {
			q.holders = append(q.holders[:i], q.holders[i+1:]...)
			return true
		}
	}
	return false
}

// push adds a waiter. One whose claim kept a place gets that place, and true is returned.
func (q *queue) push(w *waiter) (kept bool) {
	for i, x := range q.waiters {
		if x.claim == w.claim && x.absent != 0 {
			q.waiters[i] = w
			return true
		}
	}
	q.waiters = append(q.waiters, w)
	return false
}

// remove takes a waiter out and reports whether it was there.
func (q *queue) remove(w *waiter) bool {
	for i, x := range q.waiters {
		if x == w {
			q.waiters = append(q.waiters[:i], q.waiters[i+1:]...)
			return true
		}
	}
	return false
}

// take removes the waiters for which out says so and returns them.
func (q *queue) take(out func(*waiter) bool) (taken []*waiter) {
	keep := q.waiters[:0]
	for _, w := range q.waiters {
		if out(w) {
			taken = append(taken, w)
		} else {
			keep = append(keep, w)
		}
	}
	clear(q.waiters[len(keep):])
	q.waiters = keep
	return taken
}

// next takes the waiters out that can hold the lock now, in their order: one exclusive, or all shared up to the first
// exclusive. Absent ones are passed over and keep their place.
func (q *queue) next() (granted []*waiter) {
	for i := 0; i < len(q.waiters); {
		w := q.waiters[i]
		if w.absent != 0 {
			i++
			continue
		}
		if !q.free(w.kind) {
			break
		}
		q.grant(w.claim, w.kind)
		q.waiters = append(q.waiters[:i], q.waiters[i+1:]...)
		granted = append(granted, w)
	}
	return granted
}

// count is the number of calls of Lock that are waiting, the absent ones apart.
func (q *queue) count() (n int) {
	for _, w := range q.waiters {
		if w.absent == 0 {
			n++
		}
	}
	return n
}

// waiting reports whether a call of Lock is waiting, the absent ones apart.
func (q *queue) waiting() bool {
	for _, w := range q.waiters {
		if w.absent == 0 {
			return true
		}
	}
	return false
}
