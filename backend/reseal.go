package backend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"sessfs"
)

// Sealing anew changes how a record is stored and nothing else: version, content and end stay. So it needs no lock, only
// the item's cas: who stores the session meanwhile seals it with the first key, and who was about to store it finds the
// version that it has read.

// sealPasses is how often a server is looked through: what other hosts store while their configuration is older may be
// sealed with another key.
const sealPasses = 3

// sealAll seals all records that are not sealed with the first key.
func (r *rebalance) sealAll(ctx context.Context) error {
	l := r.c.seal.Load()
	if !l.hashes() {
		return errors.New("nothing can be sealed: seal.keys names no key, or seal.write_plain is on")
	}
	report := &SealReport{Keys: make(map[string]uint64), First: l.Keys[0].Name}
	r.update(func() { r.p.Server, r.p.Text, r.report.Seals = "", "sealing", report })
	_, errs := each(r.c.servers(), func(s *server) (struct{}, error) {
		if err := r.sealServer(ctx, s, l); err != nil {
			return struct{}{}, fmt.Errorf("sealing what is on %s: %w", s.label, err)
		}
		return struct{}{}, nil
	})
	if err := errors.Join(errs...); err != nil {
		return err
	}
	now, life := time.Now(), r.c.settings.Load().Lifetime
	known, _ := r.c.knownLists(now)
	for _, x := range known.alive(now, life) {
		if end := x.ends(life); !x.Hashed && end.After(report.Plain) {
			report.Plain = end
		}
	}
	return nil
}

// sealServer looks through one server until it finds nothing to seal any more.
func (r *rebalance) sealServer(ctx context.Context, s *server, l *sealing) error {
	report := r.report.Seals
	for pass := range sealPasses {
		var sealed, left uint64
		err := s.listItems(ctx, r.pause, listDumps, func(x listed, it item, epoch uint64) error {
			rec, k, err := s.openRecord(x.key, it.value)
			if err != nil {
				r.c.log.Warn("a record cannot be sealed anew: it is damaged", "server", s.name, "err", err)
				left++
				return nil
			}
			if pass == 0 {
				name := ""
				if k != nil {
					name = k.Name
				}
				r.update(func() { report.Keys[name]++ })
			}
			switch {
			case k == l.Keys[0]:
				return nil
			case r.o.DryRun:
				sealed++
				return nil
			}
			if err := r.moves.Wait(ctx); err != nil {
				return err
			}
			done, err := s.sealRecord(l, x, it, epoch, rec)
			if done {
				sealed++
				r.update(func() { r.p.Sealed++ })
			}
			return err
		})
		if err != nil {
			return err
		}
		last := sealed == 0 || r.o.DryRun || pass == sealPasses-1
		r.update(func() {
			if report.Sealed += sealed; last {
				report.Left += left
			}
		})
		if last {
			break
		}
	}
	return nil
}

// sealRecord stores a record and its chunks again, sealed with the first key, where they are what was seen. It reports
// false where they are not: somebody has stored the session meanwhile.
func (s *server) sealRecord(l *sealing, x listed, it item, epoch uint64, rec *record) (bool, error) {
	until := int64(0)
	if !x.expires.IsZero() {
		until = x.expires.Unix()
	}
	conn := s.cl.place(rec.id).conn
	if keys := chunkKeys(s.cl.prefix, rec.version.Nonce, rec.chunks()); len(keys) > 0 {
		if ok, err := s.sealChunks(l, conn, keys, until); err != nil || !ok {
			return false, err
		}
	}
	return s.sealItem(place{c: s.cl, id: rec.id, conn: conn, data: x.key}, it, epoch, uint32(rec.version.Nonce),
		l.seal(recordKind, l.recordAt(x.key), rec.encode(), rec.data), until)
}

// sealChunks does the same with the parts of a large session.
func (s *server) sealChunks(l *sealing, conn int, keys []string, until int64) (bool, error) {
	if until != 0 {
		until += int64(spare / time.Second)
	}
	for part := range slices.Chunk(keys, 8) {
		w, err := s.wire(s.cl.deadline())
		if err != nil {
			return false, err
		}
		items, epoch, err := w.get(conn, part, s.cl.deadline())
		if err != nil {
			return false, err
		}
		for i, it := range items {
			if !it.found {
				return false, nil
			}
			plain, k, err := l.open(chunkKind, part[i], it.value)
			if err != nil || k == l.Keys[0] {
				continue // what is damaged stays so
			}
			if ok, err := s.sealItem(place{c: s.cl, conn: conn, data: part[i]}, it, epoch, 0, l.seal(chunkKind, part[i], plain), until); err != nil || !ok {
				return false, err
			}
		}
	}
	return true, nil
}

// sealItem stores value in the place of an item that was seen.
func (s *server) sealItem(p place, it item, epoch uint64, mark uint32, value []byte, until int64) (bool, error) {
	out, err := s.beginStore(p, storing{cas: it.cas, epoch: epoch, head: value, mark: mark, exptime: until}, s.cl.deadline())()
	switch {
	case err == errVoid || uncertain(err):
		return false, nil // the next pass finds out
	case err != nil:
		return false, err
	case out.code == codeRefused:
		return false, fmt.Errorf("%w: %w", sessfs.ErrUnavailable, s.refused(out.words))
	}
	return out.code == codeStored, nil
}
