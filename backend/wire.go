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
	lock(p place, value string, exptime int64, deadline time.Time) (lock, data item, epoch uint64, err error)
	// get reads some keys; the answers stand in their order.
	get(conn int, keys []string, deadline time.Time) (items []item, epoch uint64, err error)
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
	release(p place, token string, r ref, wanted bool)
	// drop deletes keys that nobody uses twice.
	drop(conn int, keys []string, deadline time.Time) error
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
	cas   uint64 // of the new item; 0: not known
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

func (w metaWire) lock(p place, value string, exptime int64, deadline time.Time) (lock, data item, epoch uint64, err error) {
	b := newBatch()
	b.repeat = true // adding twice finds one's own
	b.store("add", p.lock, 0, exptime, 0, []byte(value), nil)
	b.get(p.lock, "v c")
	b.get(p.data, "v c")
	if epoch, err = w.s.exchange(b, p.conn, 0, deadline); err != nil {
		return item{}, item{}, 0, err
	}
	for _, r := range b.replies {
		if r.code == codeRefused {
			return b.replies[1].item, item{}, epoch, w.s.refused(r.words)
		}
	}
	lock, data = b.replies[1].item, b.replies[2].item
	b.free()
	return lock, data, epoch, nil
}

func (w metaWire) get(conn int, keys []string, deadline time.Time) ([]item, uint64, error) {
	b := newBatch()
	b.repeat = true
	for _, k := range keys {
		b.get(k, "v c")
	}
	epoch, err := w.s.exchange(b, conn, 0, deadline)
	if err != nil {
		return nil, 0, err
	}
	items := make([]item, len(keys))
	for i, r := range b.replies {
		if r.code == codeRefused {
			return nil, 0, w.s.refused(r.words)
		}
		items[i] = r.item
	}
	b.free()
	return items, epoch, nil
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
		b.get(k, "v")
	}
	s.trips.Add(1)
	if err := c.do(b, deadline); err != nil {
		if errors.Is(err, errTimeout) {
			s.trip(fmt.Errorf("no answer within %v", s.cl.timeout()))
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

func (w metaWire) store(p place, st storing, deadline time.Time) (stored, error) {
	b := newBatch()
	verb, epoch := "cas", st.epoch
	if st.add {
		verb, epoch = "add", 0
	}
	b.store(verb, p.data, st.mark, st.exptime, st.cas, st.head, st.body)
	b.get(p.data, "f c")
	if st.lock {
		b.get(p.lock, "v c")
	}
	if st.look {
		b.get(p.mark(), "v")
	}
	now, err := w.s.exchange(b, p.conn, epoch, deadline)
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

func (w metaWire) set(conn int, items []keyValue, exptime int64, deadline time.Time) (stored, error) {
	b := newBatch()
	b.repeat = true
	for _, kv := range items {
		b.store("set", kv.key, 0, exptime, 0, nil, kv.value)
	}
	epoch, err := w.s.exchange(b, conn, 0, deadline)
	if err != nil {
		return stored{}, err
	}
	for _, r := range b.replies {
		if r.code != codeStored {
			return stored{code: r.code, words: r.words, epoch: epoch}, nil
		}
	}
	return stored{code: codeStored, epoch: epoch}, nil
}

// renew touches before it is known whose lock it is: at worst another's lock lasts one lease longer.
func (w metaWire) renew(p place, _ func(item) bool, exptime int64, deadline time.Time) (item, error) {
	b := newBatch()
	b.repeat = true
	b.touch(p.lock, "v c", exptime)
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
	b.delete(key, cas)
	if _, err := w.s.exchange(b, conn, epoch, deadline); err != nil {
		return false, err
	}
	return b.replies[0].code == codeDone, nil
}

func (w metaWire) drop(conn int, keys []string, deadline time.Time) error {
	b := newBatch()
	b.repeat = true
	for _, k := range keys {
		b.drop(k)
	}
	_, err := w.s.exchange(b, conn, 0, deadline)
	return err
}

func (w metaWire) release(p place, token string, r ref, wanted bool) {
	s := w.s
	s.mu.Lock()
	c, now := s.conns[p.conn], s.epoch
	s.mu.Unlock()
	if r.cas != 0 && r.epoch == now && c != nil {
		b := newBatch()
		b.delete(p.lock, r.cas)
		b.deadline = s.cl.deadline()
		b.after = func(b *batch) {
			// EX: the server moved the item, which changes its cas, or it is another's.
			if b.err != nil || b.replies[0].code == codeExists {
				s.releaseByToken(p, token)
			}
		}
		send := c.sendLater
		if wanted {
			send = c.send
		}
		if send(b) == nil {
			s.trips.Add(1)
			return
		}
	}
	s.releaseByToken(p, token)
}

// releaseByToken frees a lock in the background, if it still has the token.
func (s *server) releaseByToken(p place, token string) {
	now := time.Now()
	var at time.Time
	if s.connected() == nil {
		// It may be restarting this moment: found down by this, it would be closed to requests for a second.
		at = now.Add(100 * time.Millisecond)
	}
	s.later(task{at: at, until: now.Add(s.cl.settings.Load().Lease), do: func(w wire, deadline time.Time) error {
		for range 3 {
			items, epoch, err := w.get(p.conn, []string{p.lock}, deadline)
			if err != nil || !ownLock(items[0], token) {
				return err
			}
			if done, err := w.remove(p.conn, p.lock, items[0].cas, epoch, deadline); done || err != nil {
				return err
			}
		}
		return nil
	}})
}
