package backend

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"sessfs"
)

// ask asks every member of the set that has not answered yet, all at once, until no member is without an answer: where
// one fails or does not count, another stands in. take is given each answer; it reports false after it has noted that
// the member failed (failed) or does not count (weak). It returns the members.
func ask[T any](o *operation, answered func(*server) bool, begin func(*server) func() (T, error), take func(*server, T, error) bool) ([]*server, error) {
	for {
		set, err := o.set()
		if err != nil {
			return nil, err
		}
		var buf [2]func() (T, error)
		waits, n := buf[:0], 0
		for _, s := range set {
			if answered(s) {
				waits = append(waits, nil)
				continue
			}
			waits = append(waits, begin(s))
			n++
		}
		if n == 0 {
			return set, nil
		}
		o.c.together(n)
		all := true
		for i, wait := range waits {
			if wait != nil {
				v, err := wait()
				all = take(set[i], v, err) && all
			}
		}
		// A server that was connected just now may know of other lists, and may turn out to be young.
		if all && o.changes == o.c.changes.Load() {
			return set, nil
		}
	}
}

// answer is what one server has under some keys.
type answer struct {
	s     *server
	items []item
	epoch uint64
}

// get reads keys on all members.
func (o *operation) get(keys ...string) ([]answer, error) {
	var list []answer
	_, err := ask(o,
		func(s *server) bool { return has(list, s) },
		func(s *server) func() (got, error) { return s.beginGet(o.conn, keys, o.step()) },
		func(s *server, g got, err error) bool {
			if err != nil {
				o.failed(s, err)
				return false
			}
			list = append(list, answer{s, g.items, g.epoch})
			return true
		})
	return list, err
}

func has(list []answer, s *server) bool {
	for _, a := range list {
		if a.s == s {
			return true
		}
	}
	return false
}

// found is a session's record as one server has it.
type found struct {
	s *server
	item
	epoch uint64
	rec   *record // nil: nothing is there, or it is damaged
	err   error   // why it cannot be read
}

func (o *operation) found(s *server, it item, epoch uint64) found {
	f := found{s: s, item: it, epoch: epoch}
	if !it.found {
		return f
	}
	if it.kept != nil && it.value == nil {
		f.rec = it.kept.rec
		return f
	}
	if o.last.rec != nil && bytes.Equal(it.value, o.last.value) {
		f.rec = o.last.rec // copies are alike
		return f
	}
	if f.rec, f.err = o.decode(s, it); f.err == nil {
		o.last = f
	}
	return f
}

// read reads the record on all members. One whose record is damaged does not count.
func (o *operation) read() ([]found, error) {
	var list []found
	for {
		if err := o.readInto(&list); err != nil {
			return nil, err
		}
		if again, err := o.untie(list); err != nil || !again {
			return list, err
		}
	}
}

// readInto reads the record on those members that are not in the list.
func (o *operation) readInto(into *[]found) error {
	list := *into
	_, err := ask(o,
		func(s *server) bool { return on(list, s) != nil },
		func(s *server) func() (got, error) { return s.beginGet(o.conn, []string{o.data}, o.step()) },
		func(s *server, g got, err error) bool {
			if err != nil {
				o.failed(s, err)
				return false
			}
			f := o.found(s, g.items[0], g.epoch)
			list = append(list, f)
			if f.err != nil {
				o.weak = append(o.weak, s)
			}
			return f.err == nil
		})
	*into = list
	return err
}

// untie asks for more answers where two records have one counter and neither loses by where they were sent: the servers
// that both were sent to become members, and know.
func (o *operation) untie(list []found) (again bool, err error) {
	for i := range list {
		for j := range list[:i] {
			a, b := &list[i], &list[j]
			if a.rec == nil || b.rec == nil || a.rec.version == b.rec.version || a.rec.version.Counter != b.rec.version.Counter || a.rec.sentTo(b.s) != b.rec.sentTo(a.s) {
				continue
			}
			for _, s := range o.c.servers() {
				if !a.rec.sentTo(s) || !b.rec.sentTo(s) || on(list, s) != nil {
					continue
				}
				if s.down() || slices.Contains(o.out, s) {
					return false, fmt.Errorf("session %s: two hosts have stored it at the same time, and %s knows which counts: %w", o.id.Hash(), s.label, sessfs.ErrUnavailable)
				}
				if !slices.Contains(o.also, s) {
					o.also, again = append(o.also, s), true
				}
			}
		}
	}
	return again, nil
}

func on(list []found, s *server) *found {
	for i := range list {
		if list[i].s == s {
			return &list[i]
		}
	}
	return nil
}

// best is the record that counts; nil when there is none. It is an error when some are damaged and none is not.
func best(list []found) (*found, error) {
	var b *found
	var errs []error
	for i := range list {
		f := &list[i]
		switch {
		case f.err != nil:
			errs = append(errs, f.err)
		case f.rec != nil && (b == nil || better(f, b)):
			b = f
		}
	}
	if b == nil {
		return nil, errors.Join(errs...)
	}
	return b, nil
}

// better tells whether f's record outranks g's. Of two with one counter the one loses that says it was stored where the
// other is: it was not, so nobody was told that it is stored.
func better(f, g *found) bool {
	a, b := f.rec, g.rec
	if a.version.Counter != b.version.Counter {
		return a.version.Counter > b.version.Counter
	}
	if aLoses, bLoses := a.sentTo(g.s), b.sentTo(f.s); aLoses != bLoses {
		return bLoses && a.version != b.version
	}
	return a.version.Nonce > b.version.Nonce
}

// sentTo tells whether the record was sent to a server.
func (r *record) sentTo(s *server) bool {
	for _, w := range r.where {
		if w == s.mark {
			return true
		}
	}
	return false
}

// snapshot makes a session of what the members have. Its chunks are fetched from any of those that have it.
func (o *operation) snapshot(list []found) (*sessfs.Session, error) {
	for {
		b, err := best(list)
		if err != nil {
			return nil, err
		}
		if b == nil {
			return &sessfs.Session{}, nil
		}
		r := b.rec
		if err := o.checkSeen(b); err != nil {
			return nil, err
		}
		s := &sessfs.Session{State: r.state, Version: r.version, Attr: r.attr, Data: r.data}
		if r.state == sessfs.Live && r.data == nil {
			s.Data = []byte{}
		}
		own := ref{nonce: r.version.Nonce, chunks: r.chunks(), where: r.where, copies: make([]copied, 0, len(list))}
		for _, f := range list {
			if f.rec != nil && f.rec.version == r.version {
				own.copies = append(own.copies, copied{f.s, seen{f.epoch, f.cas}})
			}
		}
		s.Ref = own
		if r.chunks() == 0 {
			return s, nil
		}
		if s.Data = keptData(list, r); s.Data != nil {
			return s, nil
		}
		data, why := o.fetchAny(list, r)
		if why == nil {
			s.Data = data
			return s, nil
		}
		// The session may have been stored again since, which takes the old chunks away.
		if list, err = o.read(); err != nil {
			return nil, err
		}
		if now, _ := best(list); now != nil && now.rec.version == r.version {
			if errors.Is(why, sessfs.ErrDamaged) {
				o.c.lost.Add(1)
			}
			return nil, why
		}
	}
}

// keptData is the data of a manifest where the host keeps it and one of its servers has all parts as they were.
func keptData(list []found, r *record) []byte {
	for _, f := range list {
		if f.kept != nil && f.kept.rec.version == r.version {
			return f.kept.data
		}
	}
	return nil
}

// fetchAny fetches the data of a manifest from the first of its servers that has all of it.
func (o *operation) fetchAny(list []found, r *record) ([]byte, error) {
	var errs []error
	for _, f := range list {
		if f.rec == nil || f.rec.version != r.version {
			continue
		}
		data, parts, why, err := o.c.fetchChunks(f.s, o.conn, r, o.step())
		o.parts = []partsSeen{parts}
		switch {
		case err != nil:
			errs = append(errs, err)
		case why != "":
			errs = append(errs, damaged(o.id, f.s, why))
		default:
			return data, nil
		}
	}
	return nil, errors.Join(errs...)
}

// decode takes the record of the session apart.
func (p place) decode(s *server, it item) (*record, error) {
	r, _, err := s.openRecord(p.data, it.value)
	if err != nil {
		s.cl.brokenSeal(p.id, s, err)
		return nil, damaged(p.id, s, err.Error())
	}
	if r.id != p.id {
		return nil, damaged(p.id, s, "foreign: it is another session's record")
	}
	return r, nil
}

func damaged(id sessfs.ID, s *server, why string) error {
	return fmt.Errorf("the record of session %s on %s: %w: %s", id.Hash(), s.label, sessfs.ErrDamaged, why)
}
