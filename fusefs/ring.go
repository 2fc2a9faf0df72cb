package fusefs

// link is a place in a ring, and stands in what it orders: no allocation for being moved. The zero link is in no ring.
type link[T any] struct {
	prev, next *link[T]
	of         T
}

// ring is the order in which things were used, the least recently used last. It must be begun before use.
type ring[T any] struct {
	root link[T]
	n    int
}

func (r *ring[T]) begin() { r.root.prev, r.root.next = &r.root, &r.root }

// in reports whether l is in a ring.
func (l *link[T]) in() bool { return l.next != nil }

// front makes l the first, whether it was in r or not.
func (r *ring[T]) front(l *link[T]) {
	if l.in() {
		l.prev.next, l.next.prev = l.next, l.prev
		r.n--
	}
	l.prev, l.next = &r.root, r.root.next
	l.prev.next, l.next.prev = l, l
	r.n++
}

// remove takes l out, where it is in.
func (r *ring[T]) remove(l *link[T]) {
	if l.in() {
		l.prev.next, l.next.prev = l.next, l.prev
		l.prev, l.next = nil, nil
		r.n--
	}
}

// last is the least recently used; nil when the ring is empty.
func (r *ring[T]) last() *link[T] {
	if r.n == 0 {
		return nil
	}
	return r.root.prev
}
