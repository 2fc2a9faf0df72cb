package backend

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"sessfs"
)

// look finds out what those members have of which that is not known: one's own record (an answer was lost), the base (its
// cas changed), or what somebody else stored.
func (m *commit) look() error {
	keys := []string{m.place.data}
	if m.hold != nil {
		keys = append(keys, m.lock, m.mark())
	}
	var parts []*part
	var waits []func() (got, error)
	for _, p := range m.parts {
		if !p.stored && !p.known && !p.free {
			parts, waits = append(parts, p), append(waits, p.s.beginGet(m.conn, keys, m.step()))
		}
	}
	m.c.together(len(parts))
	var bad error
	for i, wait := range waits {
		p := parts[i]
		g, err := wait()
		if err != nil {
			m.failed(p.s, err)
			continue
		}
		if err := m.judge(m.found(p.s, g.items[0], g.epoch), p); err != nil {
			bad = err
		}
		if m.hold != nil {
			if err := m.lockSeen(p, g.items[1], g.items[2]); err != nil {
				bad = err
			}
		}
	}
	return bad
}

// relock puts our lock back on members that miss it: they were restarted, or are new in the set.
func (m *commit) relock() error {
	var servers []*server
	var parts []*part
	for _, p := range m.parts {
		if p.free {
			servers, parts = append(servers, p.s), append(parts, p)
		}
	}
	if len(parts) == 0 {
		return nil
	}
	if len(parts) == len(m.parts) {
		return lockLost(m.id, servers[0], "storing")
	}
	var bad error
	for i, l := range m.putLock(m.hold, servers, m.settings.Lease) {
		p := parts[i]
		switch {
		case l == nil: // failed
			continue
		case !ownLock(l.lock, m.hold.token):
			bad = lockLost(m.id, p.s, "storing")
			continue
		}
		p.free, p.locked = false, p.stored
		if !p.stored {
			if err := m.judge(m.found(p.s, l.data, l.epoch), p); err != nil {
				bad = err
			}
		}
	}
	return bad
}

// judge decides whether what a member has may be replaced.
func (m *commit) judge(f found, p *part) error {
	switch {
	case f.err != nil:
		return f.err
	case f.rec == nil:
		// A session that ran out while its lock was held is stored again.
		if m.base.State != sessfs.Missing && m.hold == nil && !m.follows(p) {
			return m.conflict(f, "it is not there any more")
		}
		p.add, p.known, p.seen = true, true, seen{}
		return nil
	case f.rec.version == m.rec.version:
		p.stored, p.seen = true, seen{f.epoch, f.cas}
		return nil
	case m.follows(p) && f.rec.version.Counter > m.rec.version.Counter && f.rec.sentTo(m.parts[0].s):
		p.stored, p.seen = true, seen{} // built on ours already: it went through the first member, too
		return nil
	}
	if !m.replaces(&f) {
		return m.conflict(f, fmt.Sprintf("version %d is there, %d was read", f.rec.version.Counter, m.base.Version.Counter))
	}
	p.add, p.known, p.seen = false, true, seen{f.epoch, f.cas}
	return nil
}

// replaces tells whether f is what the commit was built on, an older copy, or sent by it before a member failed.
func (m *commit) replaces(f *found) bool {
	for _, r := range m.earlier {
		if r.version == f.rec.version {
			return true
		}
	}
	switch v, base := f.rec.version, m.base.Version; {
	case m.base.State == sessfs.Missing:
		return false
	case v == base:
		return true
	case v.Counter != base.Counter:
		return v.Counter < base.Counter
	case m.hold == nil:
		return false
	}
	// Two of one counter: the base was read under the lock, on members that f's record claims to be on, too.
	for _, c := range m.old.copies {
		if f.rec.sentTo(c.s) {
			return true
		}
	}
	return false
}

func (m *commit) conflict(f found, why string) error {
	if m.winner == nil || f.rec != nil && m.winner.rec == nil {
		m.winner = &f
	}
	return fmt.Errorf("storing session %s on %s: %w: %s", m.id.Hash(), f.s.label, sessfs.ErrConflict, why)
}

// undo tidies up after a commit that failed with err.
func (m *commit) undo(err error) {
	refused := errors.Is(err, sessfs.ErrConflict) || errors.Is(err, sessfs.ErrTooLarge)
	for _, p := range m.parts {
		if !p.stored && refused && p.chunks {
			m.c.dropChunks(p.s, m.place, m.own(), time.Time{})
		}
		if p.stored && m.winner != nil && m.winner.rec != nil {
			m.putBack(p.s)
		}
	}
}

// putBack replaces our record on a member, which nobody was told of, by what somebody else has stored.
func (m *commit) putBack(s *server) {
	mine := append(m.earlier, m.rec)
	s.later(task{do: func(w wire, deadline time.Time) error {
		items, epoch, err := w.get(m.conn, []string{m.place.data}, deadline)
		if err != nil {
			return err
		}
		o := m.c.operation(m.id)
		f := o.found(s, items[0], epoch)
		for _, r := range mine {
			if f.rec != nil && f.rec.version == r.version {
				m.c.putBack.Add(1)
				_, err = o.beginCopy(m.winner, &f)()
			}
		}
		return err
	}})
}

// own is the new record's Ref, without its copies.
func (m *commit) own() ref {
	return ref{nonce: m.rec.version.Nonce, chunks: m.rec.chunks(), where: m.rec.where}
}

// done notes what is on the members now, and tidies up what was.
func (m *commit) done() *sessfs.Session {
	m.c.noteSeen(m.id, m.rec.version)
	own := m.own()
	own.copies = make([]copied, 0, len(m.parts))
	for _, p := range m.parts {
		own.copies = append(own.copies, copied{p.s, p.seen})
		m.c.dropChunks(p.s, m.place, m.old, time.Now().Add(m.settings.Lease)) // readers that have the old manifest get so much time
		for _, r := range m.earlier {
			m.c.dropChunks(p.s, m.place, ref{nonce: r.version.Nonce, chunks: r.chunks()}, time.Time{})
		}
	}
	for _, s := range m.c.servers() {
		if (&record{where: m.old.where}).sentTo(s) && !m.rec.sentTo(s) && !s.down() {
			m.c.dropOlder(s, m.place, m.rec.version)
		}
	}
	if m.c.cache.wants(m.id, len(m.data)) {
		rec := m.rec
		if rec.chunkSize == 0 {
			rec.data = m.data
		}
		k := cached{rec: &rec, data: m.data, copies: own.copies}
		for _, p := range m.parts {
			k.parts = append(k.parts, p.parts)
		}
		m.c.cache.stored(k)
	}
	return &sessfs.Session{State: sessfs.Live, Version: m.rec.version, Attr: m.rec.attr, Data: m.data, Ref: own}
}

// dropOlder deletes a copy that left its session's set, in the background, if it is older than that version; not before
// everything that began earlier has ended, since who reads the servers one after the other would find the session on none.
func (c *Cluster) dropOlder(s *server, p place, v sessfs.Version) {
	s.later(task{at: time.Now().Add(2 * c.timeout()), do: func(w wire, deadline time.Time) error {
		items, epoch, err := w.get(p.conn, []string{p.data}, deadline)
		if err != nil || !items[0].found {
			return err
		}
		r, err := p.decode(s, items[0])
		if err != nil || r.version.Counter >= v.Counter {
			return nil
		}
		if done, err := w.remove(p.conn, p.data, items[0].cas, epoch, deadline); err != nil || !done {
			return err
		}
		c.dropChunks(s, p, ref{nonce: r.version.Nonce, chunks: r.chunks()}, time.Time{})
		return nil
	}})
}

// refusal is the error of a store that the server refused with words. The old record stays.
func (c *Cluster) refusal(id sessfs.ID, s *server, out stored, size int) error {
	if strings.Contains(out.words, "too large") {
		return fmt.Errorf("storing session %s of %d bytes: %w: %s says: %s", id.Hash(), size, sessfs.ErrTooLarge, s.label, out.words)
	}
	s.failures.Add(1)
	return fmt.Errorf("storing session %s of %d bytes: %w", id.Hash(), size, s.refused(out.words))
}
