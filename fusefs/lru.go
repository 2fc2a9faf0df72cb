package fusefs

// lru is a bounded map that forgets what was used least recently. It is not safe for use by several goroutines.
type lru[K comparable, V any] struct {
	max   int
	order ring[*lruEntry[K, V]]
	byKey map[K]*lruEntry[K, V]
}

type lruEntry[K comparable, V any] struct {
	place link[*lruEntry[K, V]]
	key   K
	val   V
}

func newLRU[K comparable, V any](max int) *lru[K, V] {
	l := &lru[K, V]{max: max, byKey: make(map[K]*lruEntry[K, V])}
	l.order.begin()
	return l
}

func (l *lru[K, V]) get(k K) (v V, ok bool) {
	e := l.byKey[k]
	if e == nil {
		return v, false
	}
	l.order.front(&e.place)
	return e.val, true
}

func (l *lru[K, V]) put(k K, v V) {
	e := l.byKey[k]
	if e == nil {
		e = &lruEntry[K, V]{key: k}
		e.place.of = e
		l.byKey[k] = e
	}
	e.val = v
	l.order.front(&e.place)
	if l.order.n > l.max {
		l.remove(l.order.last().of.key)
	}
}

func (l *lru[K, V]) remove(k K) {
	if e := l.byKey[k]; e != nil {
		delete(l.byKey, k)
		l.order.remove(&e.place)
	}
}

func (l *lru[K, V]) each(fn func(K, V)) {
	for k, e := range l.byKey {
		fn(k, e.val)
	}
}
