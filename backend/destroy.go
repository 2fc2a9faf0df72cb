package backend

import (
	"context"
	"fmt"
	"time"

	"sessfs"
)

// Destroy implements sessfs.Backend. It takes no lock, so it insists until every member has the tombstone, or something
// that was built on it.
func (c *Cluster) Destroy(ctx context.Context, id sessfs.ID) (bool, *sessfs.Holder, error) {
	c.cache.drop(id)
	o := c.operation(id)
	var tomb *found
	own, existed := false, false
	for {
		if err := ctx.Err(); err != nil {
			return false, nil, err
		}
		answers, err := o.get(o.data, o.lock, o.mark())
		if err != nil {
			return false, nil, err
		}
		list := make([]found, len(answers))
		for i, a := range answers {
			list[i] = o.found(a.s, a.items[0], a.epoch)
			answers[i].items = a.items[1:]
		}
		if tomb == nil {
			b, err := best(list)
			switch {
			case err == nil && b == nil:
				return false, holderAmong(answers), nil
			case err == nil && b.rec.state == sessfs.Destroyed:
				tomb = b
			default: // what cannot be read is destroyed too: nothing else gets rid of it
				tomb, own = o.tombstone(b, list), true
			}
		}
		left, buried := o.bury(tomb, list, answers)
		existed = existed || buried && own
		if left == 0 {
			o.c.noteSeen(o.id, tomb.rec.version)
			o.tellOthers(tomb.rec, list)
			return existed, holderAmong(answers), nil
		}
		if o.late() {
			return false, nil, fmt.Errorf("destroying session %s: %w: it was stored again all the time", id.Hash(), sessfs.ErrUnavailable)
		}
	}
}

// burial is how far a tombstone is above what it replaces: no commit that was on its way reaches it, and all above it is
// built on it.
const burial = 1 << 12

// tombstone makes one above the record b; nil: there is none that can be read.
func (o *operation) tombstone(b *found, list []found) *found {
	r := &record{id: o.id, state: sessfs.Destroyed, version: nextVersion(sessfs.Version{}, true), attr: sessfs.Attr{Ctime: time.Now().UnixNano()}, sum: dataSum(nil)}
	if b != nil {
		r.version = nextVersion(b.rec.version, false)
		r.version.Counter += burial
	}
	for _, f := range list {
		r.where = append(r.where, f.s.mark)
	}
	return o.sealedTombstone(r)
}

// sealedTombstone is a tombstone as it is stored.
func (p place) sealedTombstone(r *record) *found {
	value := r.encode()
	if l := p.c.seal.Load(); l.hashes() {
		value = l.seal(recordKind, l.recordAt(p.data), value)
	}
	return &found{item: item{found: true, value: value}, rec: r}
}

// bury stores a tombstone on those members that have nothing better. It returns on how many that did not succeed, and
// whether a session was buried, now or by an attempt whose answer was lost. The locks and marks in answers it replaces by
// those after the tombstone: who takes the lock later reads that.
func (o *operation) bury(tomb *found, list []found, answers []answer) (left int, buried bool) {
	waits := make([]func() (stored, error), len(list))
	n := 0
	for i := range list {
		switch f := &list[i]; {
		case f.rec != nil && f.rec.version == tomb.rec.version:
			buried = true
		case f.rec == nil || f.rec.version.Counter <= tomb.rec.version.Counter:
			waits[i] = o.beginReplace(tomb, f, true)
			n++
		}
	}
	o.c.together(n)
	for i, wait := range waits {
		if wait == nil {
			continue
		}
		f := &list[i]
		out, err := wait()
		switch {
		case err == nil && out.code == codeStored:
			answers[i].items = []item{out.lock, out.look}
			buried = buried || f.item.found && (f.rec == nil || f.rec.state == sessfs.Live)
			if f.rec != nil {
				o.c.dropChunks(f.s, o.place, ref{nonce: f.rec.version.Nonce, chunks: f.rec.chunks()}, time.Now().Add(o.c.settings.Load().Lease))
			}
			continue
		case err == nil && out.code == codeRefused:
			o.failed(f.s, o.c.refusal(o.id, f.s, out, headerSize))
		case err != nil && err != errVoid && !(uncertain(err) && !f.s.down()):
			o.failed(f.s, err)
		}
		left++
	}
	return left, buried
}

// tellOthers stores the tombstone on the candidates that are not members, in the background and when they answer: they may
// have a copy from when they were.
func (o *operation) tellOthers(tomb *record, list []found) {
	copyOf := o.sealedTombstone(tomb)
	until := time.Now().Add(2 * o.c.settings.Load().Lifetime)
	for _, v := range *o.c.views.Load() {
		for _, s := range v.candidates(o.id) {
			if on(list, s) != nil {
				continue
			}
			s.later(task{until: until, do: func(w wire, deadline time.Time) error {
				items, epoch, err := w.get(o.conn, []string{o.data}, deadline)
				if err != nil || !items[0].found {
					return err
				}
				late := o.c.operation(o.id)
				f := late.found(s, items[0], epoch)
				if f.rec != nil && f.rec.version.Counter >= tomb.version.Counter {
					return nil
				}
				_, err = late.beginCopy(copyOf, &f)()
				return err
			}})
		}
	}
}
