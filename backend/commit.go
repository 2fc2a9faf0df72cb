package backend

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"sessfs"
)

// commit is one Commit under way.
type commit struct {
	operation
	settings *Settings
	base     *sessfs.Session
	old      ref // of the record that is replaced
	lease    *sessfs.Lease
	hold     *hold // of the lease; nil: without a lock
	data     []byte
	seal     *sealing
	rec      record
	head     []byte   // what is stored under the session's key,
	body     []byte   // in two parts
	earlier  []record // sent before a member failed
	parts    []*part  // in the order of their names
	loose    bool     // a connection may still be sending them
	winner   *found   // what somebody else has stored
}

// part is what a commit knows of one member.
type part struct {
	s *server
	seen
	add    bool // nothing is there
	known  bool // add and seen hold
	stored bool
	locked bool      // the lock was ours after that
	free   bool      // the lock was missing, or was not asked for yet
	chunks bool      // they are there,
	parts  partsSeen // as that
}

// nextVersion is the version of a commit on top of base.
func nextVersion(base sessfs.Version, missing bool) sessfs.Version {
	counter := base.Counter + 1
	if missing {
		counter = uint64(time.Now().UnixMilli())
	}
	return sessfs.Version{Counter: counter, Nonce: rand.Uint64()}
}

// Commit implements sessfs.Backend.
func (c *Cluster) Commit(ctx context.Context, id sessfs.ID, base *sessfs.Session, attr sessfs.Attr, data []byte, lease *sessfs.Lease) (*sessfs.Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m := &commit{operation: c.operation(id), settings: c.settings.Load(), base: base, old: refOf(base), lease: lease, data: data, seal: c.seal.Load()}
	if lease != nil {
		m.hold, _ = lease.Ref.(*hold)
		lease.Marked = lease.Marked && !lease.Look
	}
	if int64(len(data)) > m.settings.MaxSize || len(data) > maxData {
		return nil, fmt.Errorf("storing session %s of %d bytes: %w: session.max_size is %d", id.Hash(), len(data), sessfs.ErrTooLarge, m.settings.MaxSize)
	}
	m.rec = record{id: id, state: sessfs.Live, version: c.nextVersion(id, base), attr: attr, length: len(data)}
	if err := m.begin(); err != nil {
		return nil, err
	}
	err := m.run()
	if m.hold != nil {
		m.freeLeft(m.hold)
	}
	if err != nil {
		m.undo(err)
		return nil, err
	}
	if m.seal.hashes() && !m.loose {
		reuse(m.body)
	}
	return m.done(), nil
}

// begin chooses the members: those of the lock, or of the set. Without a lock it is the set's first member that decides
// between two that store at the same time, whatever copies each of them has read.
func (m *commit) begin() error {
	var members []copied
	if m.hold != nil {
		members = m.hold.list()
	} else {
		set, err := m.set()
		if err != nil {
			return err
		}
		for _, s := range set {
			members = append(members, copied{s, m.old.on(s)})
		}
	}
	failed := false
	for _, c := range members {
		p := &part{s: c.s, seen: m.old.on(c.s), add: m.base.State == sessfs.Missing}
		p.known = p.add || p.cas != 0
		if c.s.down() {
			m.failed(c.s, c.s.downError())
			failed = true
		}
		m.parts = append(m.parts, p)
	}
	if failed || len(members) == 0 {
		return m.choose()
	}
	return m.prepare()
}

// choose changes the members after some failed. Those that did not fail stay, the set's are added.
func (m *commit) choose() error {
	var servers []*server
	for _, p := range m.parts {
		servers = append(servers, p.s)
	}
	servers, err := m.replace(servers, m.hold)
	if err != nil {
		return err
	}
	var parts []*part
	for _, s := range servers {
		i := slices.IndexFunc(m.parts, func(p *part) bool { return p.s == s })
		if i < 0 {
			parts = append(parts, &part{s: s, free: m.hold != nil})
		} else {
			parts = append(parts, m.parts[i])
		}
	}
	m.parts = parts
	if slices.ContainsFunc(parts, func(p *part) bool { return p.stored }) || len(m.earlier) > 0 {
		// Some have this version, of which nobody may be told: only the next one is on all.
		m.earlier = append(m.earlier, m.rec)
		m.rec.version = nextVersion(m.rec.version, false)
	}
	for _, p := range parts {
		if p.stored {
			p.known = p.cas != 0
		}
		p.stored, p.locked, p.chunks = false, false, false
	}
	return m.prepare()
}

// prepare makes the record for the members as they are.
func (m *commit) prepare() error {
	m.rec.where = make([]uint32, 0, len(m.parts))
	room, chunk := maxData, maxData
	for _, p := range m.parts {
		in, err := p.s.ready(m.step())
		if err != nil {
			m.failed(p.s, err)
			return m.choose()
		}
		room, chunk = min(room, in.room(max(len(m.place.data), len(m.c.prefix)+hashedLen))-m.seal.overhead()), min(chunk, m.c.chunkRoom(in)-m.seal.overhead())
		m.rec.where = append(m.rec.where, p.s.mark)
	}
	m.rec.chunkSize = 0
	if m.rec.prefix()+len(m.data) > room {
		m.rec.chunkSize = chunk
		if m.rec.chunks() > maxChunks {
			return fmt.Errorf("storing session %s of %d bytes: %w: its servers take parts of %d bytes", m.id.Hash(), len(m.data), sessfs.ErrTooLarge, chunk)
		}
	}
	if m.rec.chunkSize != 0 || !m.seal.hashes() { // else its seal vouches for the data
		m.rec.sum = dataSum(m.data)
	}
	m.head, m.body = m.rec.encode(), nil
	if m.rec.chunkSize == 0 {
		m.body = m.data
	}
	if m.seal.hashes() {
		m.head, m.body = nil, m.seal.seal(recordKind, m.seal.recordAt(m.place.data), m.head, m.body) // the head is copied
	}
	return nil
}

// run stores until it is certain what came of it.
func (m *commit) run() error {
	for try := 0; try < 10 && (try == 0 || !m.late()); try++ {
		failed := len(m.out)
		if err := m.tryOnce(); err != nil {
			return err
		}
		switch {
		case len(m.out) > failed:
			if err := m.choose(); err != nil {
				return err
			}
		case m.complete():
			return nil
		}
	}
	return fmt.Errorf("storing session %s: %w: %w", m.id.Hash(), sessfs.ErrUnavailable, errors.Join(append(m.errs, errTimeout)...))
}

var steps = [...]func(*commit) error{(*commit).sendChunks, (*commit).look, (*commit).relock, (*commit).send, (*commit).relock}

// tryOnce does what is left to do on the members, until one fails.
func (m *commit) tryOnce() error {
	failed := len(m.out)
	for _, step := range steps {
		if err := step(m); err != nil || len(m.out) > failed {
			return err
		}
	}
	return nil
}

// complete tells whether every member has stored the session, and had our lock after that.
func (m *commit) complete() bool {
	return !slices.ContainsFunc(m.parts, func(p *part) bool { return !p.stored || m.hold != nil && !p.locked })
}

// sendChunks stores the parts of a large session on those members that have none.
func (m *commit) sendChunks() error {
	if m.rec.chunkSize == 0 {
		return nil
	}
	var to []*part
	var servers []*server
	for _, p := range m.parts {
		if !p.chunks {
			to, servers = append(to, p), append(servers, p.s)
		}
	}
	if len(to) == 0 {
		return nil
	}
	m.c.together(len(to))
	seen, errs := each(servers, func(s *server) (partsSeen, error) {
		return m.c.putChunks(s, m.place, &m.rec, m.data, m.rec.attr.Remaining(m.settings.Lifetime), m.step())
	})
	for i, err := range errs {
		switch {
		case errors.Is(err, sessfs.ErrTooLarge):
			return err
		case err != nil:
			m.failed(servers[i], err)
		default:
			to[i].chunks, to[i].parts = true, seen[i]
		}
	}
	return nil
}

// send stores the record on those members that do not have it, and reads their locks after that.
func (m *commit) send() error {
	st := storing{head: m.head, body: m.body, mark: uint32(m.rec.version.Nonce), exptime: exptime(m.rec.attr.Remaining(m.settings.Lifetime)), lock: m.hold != nil, look: m.lease != nil && m.lease.Look}
	var buf [2]func() (stored, error)
	waits, n := buf[:0], 0
	for _, p := range m.parts {
		if p.stored || !p.known || !m.turn(p) {
			waits = append(waits, nil)
			continue
		}
		st := st
		st.add, st.cas, st.epoch = p.add, p.cas, p.epoch
		waits = append(waits, p.s.beginStore(m.place, st, m.step()))
		n++
	}
	m.c.together(n)
	var bad error
	for i, wait := range waits {
		if wait == nil {
			continue
		}
		out, err := wait()
		if err = m.sent(m.parts[i], out, err); err != nil {
			bad = err
		}
	}
	return bad
}

// turn tells whether a member may store the session now. Without a lock the first member decides between those that store
// at the same time; the others follow it.
func (m *commit) turn(p *part) bool { return m.hold != nil || p == m.parts[0] || m.parts[0].stored }

// follows tells whether the first member has decided, without a lock, and p is another.
func (m *commit) follows(p *part) bool {
	return m.hold == nil && p != m.parts[0] && m.parts[0].stored
}

// sent notes what became of a store. An error ends the commit.
func (m *commit) sent(p *part, out stored, err error) error {
	p.known = false // whatever comes next begins with a look
	m.loose = m.loose || err != nil || out.code != codeStored
	switch {
	case err == errVoid, uncertain(err) && !p.s.down():
		return nil // what is there?
	case err != nil:
		m.failed(p.s, err)
		return nil
	}
	switch out.code {
	case codeStored:
		p.stored, p.add, p.seen = true, false, seen{out.epoch, out.cas}
		p.known = p.cas != 0
	case codeRefused:
		err := m.c.refusal(m.id, p.s, out, m.rec.length)
		if errors.Is(err, sessfs.ErrTooLarge) {
			return err
		}
		m.failed(p.s, err)
	}
	if m.hold == nil {
		return nil
	}
	return m.lockSeen(p, out.lock, out.look)
}

// lockSeen notes what a member says about the lock.
func (m *commit) lockSeen(p *part, lock, look item) error {
	p.locked = ownLock(lock, m.hold.token)
	p.free = !p.locked
	if m.lease.Look && marks(look, m.lease.Token) {
		m.lease.Marked = true
	}
	if p.locked || len(m.parts) > 1 {
		return nil
	}
	return lockLost(m.id, p.s, "storing")
}
