package handover

import (
	"sync"
	"sync/atomic"
	"unsafe"
)

// table is an array of records in the shared memory. Which of them are free stands in the process: a successor goes
// through those that were ever used.
type table[T any] struct {
	recs []T
	used *atomic.Uint32 // how many have ever been used
	// spare is how many ended records are left alone at least, those that ended first are used again first.
	spare int

	mu   sync.Mutex
	free []uint32 // guarded by mu
	head int      // guarded by mu: where free begins
}

func (t *table[T]) init(at []byte, n int, used *atomic.Uint32) {
	t.recs = unsafe.Slice((*T)(unsafe.Pointer(&at[0])), n)
	t.used = used
}

// take returns a record that is free; ok is false where there is none.
func (t *table[T]) take() (i uint32, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(t.free) - t.head
	if u := t.used.Load(); int(u) < len(t.recs) && n <= t.spare {
		t.used.Store(u + 1)
		return u, true
	}
	switch {
	case n == 0:
		return 0, false
	case t.spare == 0: // the last one that ended is in the cache
		i, t.free = t.free[len(t.free)-1], t.free[:len(t.free)-1]
	default:
		i = t.free[t.head]
		if t.head++; t.head > len(t.free)/2 {
			t.free = t.free[:copy(t.free, t.free[t.head:])]
			t.head = 0
		}
	}
	return i, true
}

// put gives a record back.
func (t *table[T]) put(i uint32) {
	t.mu.Lock()
	t.free = append(t.free, i)
	t.mu.Unlock()
}

// trim calls fn for the free records, while nobody can take them.
func (t *table[T]) trim(fn func(rec *T)) {
	for k := 0; ; k++ {
		t.mu.Lock()
		if k >= len(t.free) {
			t.mu.Unlock()
			return
		}
		fn(&t.recs[t.free[k]])
		t.mu.Unlock()
	}
}

// each calls fn for all records that were ever used, of a process before this one: before anything else is done with the
// table. Those for which it says no are free.
func (t *table[T]) each(fn func(i uint32, rec *T) (inUse bool)) {
	for i := range t.used.Load() {
		if !fn(i, &t.recs[i]) {
			t.put(i)
		}
	}
}
