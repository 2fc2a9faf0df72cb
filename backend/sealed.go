package backend

import (
	"errors"
	"fmt"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"sessfs"
)

// seals is what a host counts and remembers of sealed sessions.
type seals struct {
	failures [len(sealReasons)]atomic.Uint64 // in the order of sealReasons
	said     rate.Sometimes
	opened   atomic.Bool // a sealed document of the lists was opened
	seed     maphash.Seed

	mu        sync.Mutex
	now, past map[uint64]uint64 // guarded by mu: the counters of versions, by hashes of ids
	turned    time.Time         // guarded by mu: when past was now
}

// seenMax is how many sessions a host remembers the version of, in each of two maps: about 10 MB when both are full. A
// session is remembered for a lifetime at least, unless more others are used meanwhile.
const seenMax = 1 << 17

// sealReasons are those for which a sealed session is refused, as they are counted.
var sealReasons = [...]string{errAltered.reason, errKey.reason, errPlain.reason, errNoKeys.reason, errOlder.reason}

// Seals tells how sessions are sealed, and what was refused since the start.
type Seals struct {
	Keys        []string          `json:"keys"` // names, the one that seals first; none: nothing is sealed
	AcceptPlain bool              `json:"accept_plain"`
	WritePlain  bool              `json:"write_plain"`
	Refused     map[string]uint64 `json:"refused"` // records, by reason: altered, key, plain, no_keys, rolled_back
}

// Seals returns the figures.
func (c *Cluster) Seals() Seals {
	s := Seals{Keys: []string{}, Refused: make(map[string]uint64)}
	for i, reason := range sealReasons {
		s.Refused[reason] = c.seals.failures[i].Load()
	}
	if l := c.seal.Load(); l != nil {
		s.AcceptPlain, s.WritePlain = l.AcceptPlain, l.WritePlain
		for _, k := range l.Keys {
			s.Keys = append(s.Keys, k.Name)
		}
	}
	return s
}

// SetSeal changes the keys, and with them, at the beginning and the end of the introduction, the names on the servers. Nil:
// nothing is sealed any more.
func (c *Cluster) SetSeal(o *Seal) error {
	c.known.mu.Lock()
	defer c.known.mu.Unlock()
	before := c.hasher()
	if err := c.setSeal(o); err != nil {
		return err
	}
	if (before == nil) == (c.hasher() == nil) {
		c.learnSoon()
		return nil
	}
	own := c.known.own
	list := make([]Server, len(own.Servers))
	for i, s := range own.Servers {
		list[i] = Server(s)
	}
	return c.setServers(list, own.Replicas, c.known.majority)
}

// setSeal checks the keys and takes them.
func (c *Cluster) setSeal(o *Seal) error {
	defer func() { c.cache.forget(time.Now()) }() // what the old keys opened
	if o == nil {
		c.seal.Store(nil)
		return nil
	}
	if err := o.Check(); err != nil {
		return err
	}
	l := newSealing(o, c.prefix)
	if before := c.seal.Load(); before != nil {
		if before.Keys[0].names != o.Keys[0].names {
			return fmt.Errorf("the key %q gives sessions other names on the servers than the keys before: all sessions would be lost; make it with sessfs seal key --like FILE-OF-THE-OLD NEW-FILE", o.Keys[0].Name)
		}
	}
	c.seal.Store(l)
	return nil
}

// hasher is whose hashes stand for names in the keys of this host's own list; nil: the names themselves.
func (c *Cluster) hasher() *sealing {
	if l := c.seal.Load(); l.hashes() {
		return l
	}
	return nil
}

// keyless is the error of a host whose keys are not those of the others: it would neither find their sessions nor share
// their locks. One that has opened a document of theirs before knows better: somebody has written there.
func (c *Cluster) keyless() error {
	if c.seals.opened.Load() {
		return nil
	}
	for _, s := range c.servers() {
		if why := s.foreign.Load(); why != nil {
			return fmt.Errorf("%s: %w: other hosts seal the sessions there, and this one has not their keys; give it the same seal.keys (the list of servers there: %w)", s.label, sessfs.ErrUnavailable, why)
		}
	}
	return nil
}

// openDocument opens the document of the lists; nil: there is none that counts. A foreign one is not to be replaced.
func (s *server) openDocument(b []byte) (document []byte, foreign bool, err error) {
	s.foreign.Store(nil)
	if b == nil {
		return nil, false, nil
	}
	m := &s.cl.seals
	document, k, err := s.cl.seal.Load().open(documentKind, s.cl.prefix+listsMark, b)
	switch {
	case k != nil:
		m.opened.Store(true)
	case err == errNoKeys, err == errKey && !m.opened.Load():
		s.foreign.Store(err.(*sealError))
		return nil, true, err
	}
	return document, false, err
}

// openRecord takes apart what a server has under a record's key, and tells with which key it was sealed; nil: it is not.
func (s *server) openRecord(key string, value []byte) (*record, *SealKey, error) {
	l := s.cl.seal.Load()
	plain, k, err := l.open(recordKind, l.recordAt(key), value)
	if err != nil {
		return nil, nil, err
	}
	r, err := decodeRecord(plain, k == nil)
	return r, k, err
}

// brokenSeal counts and logs a record that was refused, where err is about its seal.
func (c *Cluster) brokenSeal(id sessfs.ID, s *server, err error) {
	var bad *sealError
	if !errors.As(err, &bad) {
		return
	}
	for i, reason := range sealReasons {
		if reason == bad.reason {
			c.seals.failures[i].Add(1)
		}
	}
	c.seals.said.Do(func() {
		c.log.Error("a session's record is refused: somebody altered it on the server, or the hosts' seal.keys differ", "session", id.Hash(), "server", s.name, "reason", bad.reason, "err", bad)
	})
}

// noteSeen remembers that a session has that version at least.
func (c *Cluster) noteSeen(id sessfs.ID, v sessfs.Version) {
	if c.seal.Load() == nil {
		return
	}
	m := &c.seals
	h := maphash.String(m.seed, string(id))
	m.mu.Lock()
	defer m.mu.Unlock()
	m.turn(c.settings.Load().Lifetime)
	m.now[h] = max(m.now[h], m.past[h], v.Counter)
}

// turn forgets what was not used for long. The caller holds mu.
func (m *seals) turn(lifetime time.Duration) {
	if now := time.Now(); m.now == nil || len(m.now) >= seenMax || now.Sub(m.turned) > lifetime {
		m.past, m.now, m.turned = m.now, make(map[uint64]uint64), now
	}
}

// seen is the counter of the last version that this host knows of; 0: it knows of none.
func (c *Cluster) seen(id sessfs.ID) uint64 {
	if c.seal.Load() == nil {
		return 0
	}
	m := &c.seals
	h := maphash.String(m.seed, string(id))
	m.mu.Lock()
	defer m.mu.Unlock()
	return max(m.now[h], m.past[h])
}

// checkSeen refuses a record that is older than what this host knew of before it asked, and remembers its version otherwise.
func (o *operation) checkSeen(f *found) error {
	if f.rec.version.Counter < o.known {
		o.c.brokenSeal(o.id, f.s, errOlder)
		return damaged(o.id, f.s, fmt.Sprintf("%v (version %d, %d was seen)", errOlder, f.rec.version.Counter, o.known))
	}
	o.c.noteSeen(o.id, f.rec.version)
	return nil
}

// nextVersion is the version of a commit on top of base: above all that this host knows of, too.
func (c *Cluster) nextVersion(id sessfs.ID, base *sessfs.Session) sessfs.Version {
	v := nextVersion(base.Version, base.State == sessfs.Missing)
	if known := c.seen(id); known != 0 {
		v.Counter = max(v.Counter, known+1)
	}
	return v
}
