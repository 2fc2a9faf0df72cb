package backend

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"sessfs"
)

// Read implements sessfs.Backend.
func (c *Cluster) Read(ctx context.Context, id sessfs.ID) (*sessfs.Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p, deadline := c.place(id), c.deadline()
	w, err := p.s.wire(deadline)
	if err != nil {
		return nil, err
	}
	items, epoch, err := w.get(p.conn, []string{p.data}, deadline)
	if err != nil {
		return nil, err
	}
	return c.session(w, p, items[0], epoch, deadline)
}

// nextVersion is the version of a commit on top of base.
func nextVersion(base sessfs.Version, missing bool) sessfs.Version {
	counter := base.Counter + 1
	if missing {
		counter = uint64(time.Now().UnixMilli())
	}
	return sessfs.Version{Counter: counter, Nonce: rand.Uint64()}
}

// commit is one Commit under way.
type commit struct {
	c        *Cluster
	p        place
	deadline time.Time
	base     *sessfs.Session
	lease    *sessfs.Lease
	rec      record
	st       storing
	old      ref // of the record that is replaced
	known    bool
}

// Commit implements sessfs.Backend.
func (c *Cluster) Commit(ctx context.Context, id sessfs.ID, base *sessfs.Session, attr sessfs.Attr, data []byte, lease *sessfs.Lease) (*sessfs.Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	o, p, deadline := c.settings.Load(), c.place(id), c.deadline()
	if int64(len(data)) > o.MaxSize || len(data) > maxData {
		return nil, fmt.Errorf("storing session %s of %d bytes: %w: session.max_size is %d", id.Hash(), len(data), sessfs.ErrTooLarge, o.MaxSize)
	}
	in, err := p.s.ready(deadline)
	if err != nil {
		return nil, err
	}
	w, err := p.s.wire(deadline)
	if err != nil {
		return nil, err
	}
	m := &commit{c: c, p: p, deadline: deadline, base: base, lease: lease, old: refOf(base)}
	m.rec = record{id: id, state: sessfs.Live, version: nextVersion(base.Version, base.State == sessfs.Missing), attr: attr,
		length: len(data), sum: dataSum(data)}
	m.st = storing{body: data, mark: uint32(m.rec.version.Nonce), exptime: exptime(o.Lifetime), lock: lease != nil, look: lease != nil && lease.Look}
	if headerSize+len(id)+len(data) > in.room(len(p.data)) {
		m.rec.chunkSize, m.st.body = c.chunkRoom(in), nil
		if m.rec.chunks() > maxChunks {
			return nil, fmt.Errorf("storing session %s of %d bytes: %w: %s takes parts of %d bytes", id.Hash(), len(data), sessfs.ErrTooLarge, p.s.label, m.rec.chunkSize)
		}
		if err := c.putChunks(w, p, &m.rec, data, o.Lifetime, deadline); err != nil {
			c.dropChunks(p, m.own(), time.Time{})
			return nil, err
		}
	}
	m.st.head = m.rec.encode()
	m.st.add = base.State == sessfs.Missing
	m.st.cas, m.st.epoch = m.old.cas, m.old.epoch
	m.known = m.st.add || m.st.cas != 0
	done, err := m.run(w)
	switch {
	case err == nil:
		c.dropChunks(p, m.old, time.Now().Add(o.Lease)) // readers that have the old manifest get so much time
		own := m.own()
		own.epoch, own.cas = done.epoch, done.cas
		return &sessfs.Session{State: sessfs.Live, Version: m.rec.version, Attr: attr, Data: data, Ref: own}, nil
	case errors.Is(err, sessfs.ErrConflict), errors.Is(err, sessfs.ErrTooLarge):
		c.dropChunks(p, m.own(), time.Time{})
	}
	return nil, err
}

// own is the new record's Ref, without a cas.
func (m *commit) own() ref { return ref{nonce: m.rec.version.Nonce, chunks: m.rec.chunks()} }

// run stores until it is certain what came of it.
func (m *commit) run(w wire) (stored, error) {
	var last error
	for range 5 {
		if !m.known {
			done, err := m.look(w)
			if err != nil || done.code == codeStored {
				return done, err
			}
		}
		out, err := w.store(m.p, m.st, m.deadline)
		m.known = false // whatever comes next begins with a look
		switch {
		case err == errVoid:
			continue
		case uncertain(err) && time.Now().Before(m.deadline):
			last = err
			// The server may be another one by now, with other abilities.
			if w, err = m.p.s.wire(m.deadline); err != nil {
				return stored{}, last
			}
			continue
		case err != nil:
			return stored{}, err
		}
		if m.lease != nil && !ownLock(out.lock, m.lease.Token) {
			return stored{}, lockLost(m.p, "storing")
		}
		if m.st.look {
			m.lease.Marked = marks(out.look, m.lease.Token)
		}
		switch out.code {
		case codeStored:
			return out, nil
		case codeRefused:
			return stored{}, m.c.refusal(m.p, out, m.rec.length)
		}
	}
	if last == nil {
		last = m.p.s.fail(errors.New("the session's record kept changing its place"))
	}
	return stored{}, last
}

// look finds out what the server has: one's own record (an answer was lost), the base (its cas changed), or what somebody
// else stored.
func (m *commit) look(w wire) (stored, error) {
	keys := []string{m.p.data}
	if m.lease != nil {
		keys = append(keys, m.p.lock, m.p.mark())
	}
	items, epoch, err := w.get(m.p.conn, keys, m.deadline)
	if err != nil {
		return stored{}, err
	}
	if m.lease != nil && !ownLock(items[1], m.lease.Token) {
		return stored{}, lockLost(m.p, "storing")
	}
	if m.st.look {
		m.lease.Marked = marks(items[2], m.lease.Token)
	}
	it := items[0]
	if !it.found {
		// A session that ran out while its lock was held is stored again.
		if m.base.State == sessfs.Missing || (m.base.State == sessfs.Live && m.lease != nil) {
			m.st.add = true
			return stored{}, nil
		}
		return stored{}, fmt.Errorf("storing session %s on %s: %w: it is not there any more", m.p.id.Hash(), m.p.s.label, sessfs.ErrConflict)
	}
	r, err := m.p.decode(it)
	switch {
	case err != nil:
		return stored{}, err
	case r.version == m.rec.version:
		return stored{code: codeStored, cas: it.cas, epoch: epoch}, nil
	case r.version != m.base.Version || m.base.State == sessfs.Missing:
		return stored{}, fmt.Errorf("storing session %s on %s: %w: version %d is there, %d was read", m.p.id.Hash(), m.p.s.label,
			sessfs.ErrConflict, r.version.Counter, m.base.Version.Counter)
	}
	m.st.add, m.st.cas, m.st.epoch = false, it.cas, epoch
	m.old = ref{nonce: r.version.Nonce, chunks: r.chunks()}
	return stored{}, nil
}

// refusal is the error of a store that the server refused with words. The old record stays.
func (c *Cluster) refusal(p place, out stored, size int) error {
	if strings.Contains(out.words, "too large") {
		return fmt.Errorf("storing session %s of %d bytes: %w: %s says: %s", p.id.Hash(), size, sessfs.ErrTooLarge, p.s.label, out.words)
	}
	p.s.failures.Add(1)
	return fmt.Errorf("storing session %s of %d bytes: %w", p.id.Hash(), size, p.s.refused(out.words))
}

// Destroy implements sessfs.Backend. It takes no lock, so it insists: what somebody stores meanwhile is destroyed too.
func (c *Cluster) Destroy(ctx context.Context, id sessfs.ID) (bool, *sessfs.Holder, error) {
	o, p, deadline := c.settings.Load(), c.place(id), c.deadline()
	var own sessfs.Version // of the last tombstone sent, whose answer may be lost
	for {
		if err := ctx.Err(); err != nil {
			return false, nil, err
		}
		w, err := p.s.wire(deadline)
		if err != nil {
			return false, nil, err
		}
		items, epoch, err := w.get(p.conn, []string{p.data, p.lock}, deadline)
		if err != nil {
			return false, nil, err
		}
		if !items[0].found {
			return false, holderOf(items[1], item{}), nil
		}
		// A record that cannot be read is destroyed too: nothing else gets rid of it.
		r, err := p.decode(items[0])
		if err == nil && r.state == sessfs.Destroyed {
			return r.version == own, holderOf(items[1], item{}), nil
		}
		old := ref{}
		own = nextVersion(sessfs.Version{}, true)
		if err == nil {
			own = nextVersion(r.version, false)
			old = ref{nonce: r.version.Nonce, chunks: r.chunks()}
		}
		tomb := record{id: id, state: sessfs.Destroyed, version: own, sum: dataSum(nil)}
		out, err := w.store(p, storing{cas: items[0].cas, epoch: epoch, head: tomb.encode(), mark: uint32(own.Nonce), exptime: exptime(2 * o.Lifetime), lock: true}, deadline)
		switch {
		case err == nil && out.code == codeStored:
			c.dropChunks(p, old, time.Now().Add(o.Lease))
			return true, holderOf(out.lock, item{}), nil
		case err == nil && out.code == codeRefused:
			return false, nil, c.refusal(p, out, headerSize)
		case err != nil && err != errVoid && !uncertain(err):
			return false, nil, err
		}
		if time.Now().After(deadline) {
			return false, nil, fmt.Errorf("destroying session %s: %w", id.Hash(), p.s.fail(errTimeout))
		}
	}
}
