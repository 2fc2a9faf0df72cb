package backend

import (
	"errors"
	"fmt"
	"time"

	"sessfs"
)

// wire is what the rest needs of a server: implemented with meta commands (metaWire) and with the classic ones (classic).
// Errors are serverErrors, errVoid and sessfs.ErrClosed.
type wire interface {
	// lock adds the lock item with value unless there is one, then reads the lock and the record. What was read
	// counts as read under the lock if the lock's value turns out to be the caller's.
	lock(p place, value string, exptime int64, deadline time.Time) (locked, error)
	// get reads some keys; the answers stand in their order.
	get(conn int, keys []string, deadline time.Time) (items []item, epoch uint64, err error)
	// getWithin is get of values that have so many bytes together at most. The server's word does not count: one that sends
	// more fails.
	getWithin(conn int, keys []string, bytes int, deadline time.Time) (items []item, epoch uint64, err error)
	// look reads keys over a connection that stands, and makes none: no request waits for the answer, so it shall not be
	// what finds out that a server is gone for a moment.
	look(keys []string, deadline time.Time) (items []item, ok bool)
	// store adds or swaps an item, and reads the lock after that.
	store(p place, st storing, deadline time.Time) (stored, error)
	// set stores items unconditionally, under keys that nobody else uses.
	set(conn int, items []keyValue, exptime int64, deadline time.Time) (stored, error)
	// renew makes the item at key last longer if it has the value, and returns what is there.
	renew(p place, value func(item) bool, exptime int64, deadline time.Time) (item, error)
	// remove deletes an item if it still has that cas of that epoch.
	remove(conn int, key string, cas, epoch uint64, deadline time.Time) (bool, error)
	// release deletes the lock item without waiting, by its cas while that means something, else by its token. One that
	// somebody wants goes out at once.
	release(h *hold, at seen, wanted bool)
	// drop deletes keys that nobody uses twice.
	drop(conn int, keys []string, deadline time.Time) error
}

// locked is what was read with an attempt to get a lock.
type locked struct {
	lock, data item
	changed    bool // what was kept is not current, and the value of data was not asked for
	epoch      uint64
}

// storing is a conditional store.
type storing struct {
	add        bool // only if there is nothing; else only if cas is still that, in that epoch
	cas, epoch uint64
	head, body []byte
	mark       uint32 // the item's flags: a part of the nonce, by which a new cas is known as one's own
	exptime    int64
	lock       bool // read the lock afterwards
	look       bool // read the mark of those who want it, too
}

// stored is what became of it.
type stored struct {
	code  code // codeStored, codeNotStored, codeExists, codeNotFound or codeRefused
	words string
	lock  item
	look  item
	cas   uint64   // of the new item; 0: not known
	parts []uint64 // set: of all new items; nil: not known
	epoch uint64
}

type keyValue struct {
	key   string
	value []byte
}

// wire connects where need be.
func (s *server) wire(deadline time.Time) (wire, error) {
	in, err := s.ready(deadline)
	if err != nil {
		return nil, err
	}
	if in.classic != nil {
		return in.classic, nil
	}
	return metaWire{s}, nil
}

// refused is the error of a server that answered with words instead of doing it.
func (s *server) refused(words string) error {
	return fmt.Errorf("%s: %w: it refuses: %s", s.label, sessfs.ErrUnavailable, words)
}

type metaWire struct{ s *server }

// beginLock sends what lock asks. What it returns waits for the answer. known is what the host keeps of the session, nil: nothing;
// where that is not current, the answer has no record.
func (w metaWire) beginLock(known *cached, p place, value string, exptime int64, deadline time.Time) func() (locked, error) {
	b := newBatch()
	b.repeat = true // adding twice finds one's own
	lock := w.s.key(p.lock)
	b.store("add", lock, 0, exptime, 0, []byte(value), nil)
	b.get(lock, "v c")
	parts := known.chunks()
	what := "v c"
	switch {
	case len(parts) > 0:
		what = "v f c"
	case known != nil:
		what = "f c"
	}
	b.get(w.s.key(p.data), what)
	for _, key := range parts {
		b.get(w.s.key(key), "c")
	}
	f := w.s.launch(b, p.conn, 0, deadline)
	return func() (locked, error) {
		epoch, err := f.land()
		if err != nil {
			return locked{}, err
		}
		for _, r := range b.replies {
			if r.code == codeRefused {
				return locked{}, w.s.refused(r.words)
			}
		}
		l := locked{lock: b.replies[1].item, data: b.replies[2].item, epoch: epoch}
		current := known != nil && known.is(w.s, epoch, b.replies[2:])
		b.free()
		switch cache := &w.s.cl.cache; {
		case known == nil || !l.data.found:
		case current:
			l.data.kept = known
			cache.current.Add(1)
		default:
			cache.changed.Add(1)
			cache.distrust(p.id)
			l.changed = len(parts) == 0
		}
		return l, nil
	}
}

func (w metaWire) lock(p place, value string, exptime int64, deadline time.Time) (locked, error) {
	return w.beginLock(nil, p, value, exptime, deadline)()
}

// beginGet sends what get asks.
func (w metaWire) beginGet(conn int, keys []string, deadline time.Time) func() (got, error) {
	return w.beginGetWithin(conn, keys, 0, deadline)
}

// beginGetWithin sends what getWithin asks; 0: as many bytes as the items can have.
func (w metaWire) beginGetWithin(conn int, keys []string, bytes int, deadline time.Time) func() (got, error) {
	b := newBatch()
	b.repeat, b.limit = true, bytes
	for _, k := range keys {
		b.get(w.s.key(k), "v c")
	}
	f := w.s.launch(b, conn, 0, deadline)
	return func() (got, error) {
		epoch, err := f.land()
		if err != nil {
			return got{}, err
		}
		items := make([]item, len(b.replies))
		for i, r := range b.replies {
			if r.code == codeRefused {
				return got{}, w.s.refused(r.words)
			}
			items[i] = r.item
		}
		b.free()
		return got{items, epoch}, nil
	}
}

func (w metaWire) get(conn int, keys []string, deadline time.Time) ([]item, uint64, error) {
	g, err := w.beginGet(conn, keys, deadline)()
	return g.items, g.epoch, err
}

func (w metaWire) getWithin(conn int, keys []string, bytes int, deadline time.Time) ([]item, uint64, error) {
	g, err := w.beginGetWithin(conn, keys, bytes, deadline)()
	return g.items, g.epoch, err
}

func (w metaWire) look(keys []string, deadline time.Time) ([]item, bool) {
	s := w.s
	s.mu.Lock()
	c := s.conns[0]
	s.mu.Unlock()
	if c == nil {
		return nil, false
	}
	b := newBatch()
	for _, k := range keys {
		b.get(s.key(k), "v")
	}
	s.trips.Add(1)
	if err := c.do(b, deadline); err != nil {
		if errors.Is(err, errTimeout) {
			s.trip(err)
		}
		return nil, false
	}
	items := make([]item, len(keys))
	for i, r := range b.replies {
		items[i] = r.item
	}
	b.free()
	return items, true
}

// beginStore sends what store asks.
func (w metaWire) beginStore(p place, st storing, deadline time.Time) func() (stored, error) {
	b := newBatch()
	verb, epoch := "cas", st.epoch
	if st.add {
		verb, epoch = "add", 0
	}
	data := w.s.key(p.data)
	b.store(verb, data, st.mark, st.exptime, st.cas, st.head, st.body)
	b.get(data, "f c")
	if st.lock {
		b.get(w.s.key(p.lock), "v c")
	}
	if st.look {
		b.get(w.s.key(p.mark()), "v")
	}
	f := w.s.launch(b, p.conn, epoch, deadline)
	return func() (stored, error) {
		now, err := f.land()
		if err != nil {
			return stored{}, err
		}
		out := stored{code: b.replies[0].code, words: b.replies[0].words, epoch: now}
		if i := b.replies[1].item; i.found && i.flags == st.mark {
			out.cas = i.cas
		}
		if st.lock {
			if b.replies[2].code == codeRefused {
				return stored{}, &serverError{label: w.s.label, reason: w.s.refused(b.replies[2].words), maybe: true}
			}
			out.lock = b.replies[2].item
		}
		if st.look {
			out.look = b.replies[len(b.replies)-1].item // refused: no mark
		}
		b.free()
		return out, nil
	}
}

func (w metaWire) store(p place, st storing, deadline time.Time) (stored, error) {
	return w.beginStore(p, st, deadline)()
}

func (w metaWire) set(conn int, items []keyValue, exptime int64, deadline time.Time) (stored, error) {
	b := newBatch()
	b.repeat = true
	for _, kv := range items {
		b.store("set", w.s.key(kv.key), 0, exptime, 0, nil, kv.value)
	}
	for _, kv := range items {
		b.get(w.s.key(kv.key), "c")
	}
	epoch, err := w.s.exchange(b, conn, 0, deadline)
	if err != nil {
		return stored{}, err
	}
	out := stored{code: codeStored, parts: make([]uint64, 0, len(items)), epoch: epoch}
	for i, r := range b.replies[:len(items)] {
		if r.code != codeStored {
			return stored{code: r.code, words: r.words, epoch: epoch}, nil
		}
		out.parts = append(out.parts, b.replies[len(items)+i].item.cas)
	}
	return out, nil
}

// renew touches before it is known whose lock it is: at worst another's lock lasts one lease longer.
func (w metaWire) renew(p place, _ func(item) bool, exptime int64, deadline time.Time) (item, error) {
	b := newBatch()
	b.repeat = true
	b.touch(w.s.key(p.lock), "v c", exptime)
	if _, err := w.s.exchange(b, p.conn, 0, deadline); err != nil {
		return item{}, err
	}
	if r := b.replies[0]; r.code == codeRefused {
		return item{}, w.s.refused(r.words)
	}
	return b.replies[0].item, nil
}

func (w metaWire) remove(conn int, key string, cas, epoch uint64, deadline time.Time) (bool, error) {
	b := newBatch()
	b.delete(w.s.key(key), cas)
	if _, err := w.s.exchange(b, conn, epoch, deadline); err != nil {
		return false, err
	}
	return b.replies[0].code == codeDone, nil
}

func (w metaWire) drop(conn int, keys []string, deadline time.Time) error {
	b := newBatch()
	b.repeat = true
	for _, k := range keys {
		b.drop(w.s.key(k))
	}
	_, err := w.s.exchange(b, conn, 0, deadline)
	return err
}
