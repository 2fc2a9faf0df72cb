package backend

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
)

func expiration(exptime int64) int32 { return int32(min(exptime, math.MaxInt32)) }

// keys are how the server has some keys.
func (w *classic) keys(list []string) []string {
	own := make([]string, len(list))
	for i, k := range list {
		own[i] = w.s.key(k)
	}
	return own
}

// items gets the items of keys, in their order.
func (w *classic) items(keys []string) ([]item, error) {
	keys = w.keys(keys)
	got, err := w.client.GetMulti(keys)
	if err != nil {
		return nil, err
	}
	items, n := make([]item, len(keys)), 0
	for i, k := range keys {
		f := got[k]
		if f == nil {
			continue
		}
		if f.CasID == 0 {
			return nil, fmt.Errorf("%w: an item without a cas number", errSurprise)
		}
		items[i] = item{found: true, value: f.Value, cas: f.CasID, flags: f.Flags}
		n++
	}
	if n < len(got) {
		return nil, fmt.Errorf("%w: items that were not asked for", errSurprise)
	}
	return items, nil
}

func (w *classic) get(_ int, keys []string, deadline time.Time) ([]item, uint64, error) {
	answer, err := classicDo(w, deadline, true, func() (got, error) {
		epoch := w.s.currentEpoch()
		items, err := w.items(keys)
		return got{items, epoch}, err
	})
	if err != nil {
		return nil, 0, w.explain(err)
	}
	return answer.items, answer.epoch, nil
}

// classicRoom is how many bytes of values are asked for with one command.
const classicRoom = 32 << 20

func (w *classic) getWithin(conn int, keys []string, bytes int, deadline time.Time) (items []item, epoch uint64, err error) {
	items = make([]item, 0, len(keys))
	for some := range slices.Chunk(keys, max(1, len(keys)*classicRoom/max(bytes, classicRoom))) {
		got, now, err := w.get(conn, some, deadline)
		if err != nil {
			return nil, 0, err
		}
		if len(items) == 0 {
			epoch = now // the oldest: a cas that is younger than it is void at worst
		}
		items = append(items, got...)
	}
	return items, epoch, nil
}

func (w *classic) look(keys []string, deadline time.Time) ([]item, bool) {
	w.mu.Lock()
	connected := len(w.conns) > 0
	w.mu.Unlock()
	if !connected {
		return nil, false
	}
	w.s.cl.looks.Add(1)
	items, err := classicDo(w, deadline, false, func() ([]item, error) { return w.items(keys) })
	return items, err == nil
}

func (w *classic) lock(p place, value string, exptime int64, deadline time.Time) (locked, error) {
	err := w.do(deadline, true, func() error {
		return w.client.Add(&memcache.Item{Key: w.s.key(p.lock), Value: []byte(value), Expiration: expiration(exptime)})
	})
	if err != nil && !errors.Is(err, memcache.ErrNotStored) {
		return locked{}, w.explain(err)
	}
	items, epoch, err := w.get(p.conn, []string{p.lock, p.data}, deadline)
	if err != nil {
		return locked{}, err
	}
	return locked{items[0], items[1], false, epoch}, nil
}

func (w *classic) store(p place, st storing, deadline time.Time) (stored, error) {
	value := make([]byte, 0, len(st.head)+len(st.body))
	it := &memcache.Item{Key: w.s.key(p.data), Value: append(append(value, st.head...), st.body...), Flags: st.mark, Expiration: expiration(st.exptime), CasID: st.cas}
	err := w.do(deadline, false, func() error {
		switch {
		case st.add:
			return w.client.Add(it)
		case st.epoch != w.s.currentEpoch():
			return memcache.ErrCASConflict
		}
		return w.client.CompareAndSwap(it)
	})
	out, err := w.outcome(err)
	if err != nil || !st.lock {
		return out, err
	}
	keys := []string{p.lock}
	if st.look {
		keys = append(keys, p.mark())
	}
	items, _, err := w.get(p.conn, keys, deadline)
	if err != nil {
		return stored{}, &serverError{label: w.s.label, reason: err, maybe: true}
	}
	out.lock = items[0]
	if st.look {
		out.look = items[1]
	}
	return out, nil
}

func (w *classic) outcome(err error) (stored, error) {
	var r *refusedError
	switch {
	case err == nil:
		return stored{code: codeStored}, nil
	case errors.Is(err, memcache.ErrNotStored):
		return stored{code: codeNotStored}, nil
	case errors.Is(err, memcache.ErrCASConflict):
		return stored{code: codeExists}, nil
	case errors.Is(err, memcache.ErrCacheMiss):
		return stored{code: codeNotFound}, nil
	case errors.As(err, &r):
		return stored{code: codeRefused, words: r.words}, nil
	}
	return stored{}, err
}

func (w *classic) set(_ int, items []keyValue, exptime int64, deadline time.Time) (stored, error) {
	for _, kv := range items {
		err := w.do(deadline, true, func() error {
			return w.client.Set(&memcache.Item{Key: w.s.key(kv.key), Value: kv.value, Expiration: expiration(exptime)})
		})
		if out, err := w.outcome(err); err != nil || out.code != codeStored {
			return out, err
		}
	}
	return stored{code: codeStored}, nil
}

func (w *classic) renew(p place, own func(item) bool, exptime int64, deadline time.Time) (item, error) {
	for {
		items, epoch, err := w.get(p.conn, []string{p.lock}, deadline)
		if err != nil || !own(items[0]) {
			return item{}, err
		}
		out, err := w.swap(p.lock, items[0], epoch, exptime, deadline)
		if err != nil || out {
			return items[0], err
		}
	}
}

// swap stores an item's value again, for another time.
func (w *classic) swap(key string, it item, epoch uint64, exptime int64, deadline time.Time) (bool, error) {
	err := w.do(deadline, false, func() error {
		if epoch != w.s.currentEpoch() {
			return memcache.ErrCASConflict
		}
		return w.client.CompareAndSwap(&memcache.Item{Key: w.s.key(key), Value: it.value, CasID: it.cas, Expiration: expiration(exptime)})
	})
	out, err := w.outcome(err)
	if err == nil && out.code == codeRefused {
		return false, w.s.refused(out.words)
	}
	return out.code == codeStored, err
}

func (w *classic) remove(_ int, key string, cas, epoch uint64, deadline time.Time) (bool, error) {
	return w.swap(key, item{cas: cas}, epoch, atOnce, deadline)
}

func (w *classic) release(h *hold, _ seen, _ bool) { w.s.releaseByToken(h) }

func (w *classic) drop(_ int, keys []string, deadline time.Time) error {
	for _, k := range keys {
		err := w.do(deadline, true, func() error { return w.client.Delete(w.s.key(k)) })
		if err != nil && !errors.Is(err, memcache.ErrCacheMiss) {
			return w.explain(err)
		}
	}
	return nil
}

// try finds out whether the commands do what they say, above all cas.
