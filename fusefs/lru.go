package fusefs

import "container/list"

// lru is a bounded map that forgets what was used least recently. It is not safe for use by several goroutines.
type lru[K comparable, V any] struct {
	max   int
	order *list.List // of *lruEntry, the most recent first
	byKey map[K]*list.Element
}

type lruEntry[K comparable, V any] struct {
	key K
	val V
}

func newLRU[K comparable, V any](max int) *lru[K, V] {
	return &lru[K, V]{max: max, order: list.New(), byKey: make(map[K]*list.Element)}
}

func (l *lru[K, V]) get(k K) (v V, ok bool) {
	e := l.byKey[k]
	if e == nil {
		return v, false
	}
	l.order.MoveToFront(e)
	return e.Value.(*lruEntry[K, V]).val, true
}

func (l *lru[K, V]) put(k K, v V) {
	if e := l.byKey[k]; e != nil {
		e.Value.(*lruEntry[K, V]).val = v
		l.order.MoveToFront(e)
		return
	}
	l.byKey[k] = l.order.PushFront(&lruEntry[K, V]{k, v})
	if l.order.Len() > l.max {
		oldest := l.order.Back()
		delete(l.byKey, oldest.Value.(*lruEntry[K, V]).key)
		l.order.Remove(oldest)
	}
}

func (l *lru[K, V]) remove(k K) {
	if e := l.byKey[k]; e != nil {
		delete(l.byKey, k)
		l.order.Remove(e)
	}
}

func (l *lru[K, V]) each(fn func(K, V)) {
	for e := l.order.Front(); e != nil; e = e.Next() {
		entry := e.Value.(*lruEntry[K, V])
		fn(entry.key, entry.val)
	}
}
