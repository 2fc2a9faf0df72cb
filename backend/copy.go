package backend

import (
	"errors"
	"time"

	"sessfs"
)

// beginCopy stores the record of from in the place of to, if that still is what was seen. Chunks go first. What it returns
// waits for the outcome.
func (o *operation) beginCopy(from, to *found) func() (stored, error) {
	if from.rec.chunks() == 0 {
		return o.beginReplace(from, to, false)
	}
	return background(func() (stored, error) {
		data, _, why, err := o.c.fetchChunks(from.s, o.conn, from.rec, o.step())
		if err == nil && why != "" {
			err = damaged(o.id, from.s, why)
		}
		if err != nil {
			// The part that is missing is not this member's fault: whoever needs the data finds out.
			if errors.Is(err, sessfs.ErrDamaged) {
				return o.beginReplace(from, to, false)()
			}
			return stored{}, err
		}
		if _, err := o.c.putChunks(to.s, o.place, from.rec, data, o.c.remaining(from.rec), o.step()); err != nil {
			return stored{}, err
		}
		return o.beginReplace(from, to, false)()
	})
}

// beginReplace stores the item of from in the place of to, if that still is what was seen, and reads the lock and its mark
// after that where that is asked for.
func (o *operation) beginReplace(from, to *found, lock bool) func() (stored, error) {
	if to.item.found && to.cas == 0 {
		return func() (stored, error) { return stored{}, errVoid }
	}
	return to.s.beginStore(o.place, storing{add: !to.item.found, cas: to.cas, epoch: to.epoch, body: o.c.raw(from),
		mark: uint32(from.rec.version.Nonce), exptime: exptime(o.c.remaining(from.rec)), lock: lock, look: lock}, o.step())
}

// raw is the item's value. Of one that was asked for by its cas it is made again.
func (c *Cluster) raw(f *found) []byte {
	if f.value != nil || f.kept == nil {
		return f.value
	}
	l, place := c.seal.Load(), c.place(f.rec.id)
	if l.hashes() {
		return l.seal(recordKind, l.recordAt(place.data), f.rec.encode(), f.rec.data)
	}
	rec := *f.rec
	if rec.chunkSize == 0 {
		rec.sum = dataSum(rec.data) // it was sealed before, perhaps
	}
	return append(rec.encode(), rec.data...)
}

// remaining is how long a copy of a record shall live: it ends when the record does.
func (c *Cluster) remaining(r *record) time.Duration {
	life := c.settings.Load().Lifetime
	if r.state == sessfs.Destroyed {
		return 2 * life
	}
	return min(max(r.attr.Remaining(life), time.Minute), life) // the clocks of hosts differ
}
