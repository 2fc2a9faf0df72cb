package backend

import (
	lru "container/list"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sessfs"
)

// A visitor's requests often come to the host that had the last one. Of large sessions that do, a host keeps what it has
// read or stored last, and asks for the item's cas and flags alone with the lock: where they are what they were, nobody
// has stored anything since, and the value need not travel (nor, where it is sealed, be opened) again. The answer is the
// server's, got with the lock, so nothing is served that was not asked for.
//
// Where somebody else has stored the session meanwhile the question is lost, and one round trip with it. So a session is
// asked for like that only after it has come back unchanged cacheTrust times in a row.
//
// Of a session in parts the manifest is read, and its parts are asked for by their cas with it.
const (
	cacheAbove = 16 << 10 // bytes of data; below it the question costs as much as the value
	cacheTrust = 2
	cacheEntry = 512 // bytes that an entry counts without its data
	cacheIdle  = 5 * time.Minute
)

// cache is what a host keeps of large sessions.
type cache struct {
	current, changed atomic.Uint64 // questions, by their answers
	above            atomic.Int64  // cacheAbove, but in tests
	most             atomic.Int64  // bytes

	mu      sync.Mutex
	entries map[sessfs.ID]*lru.Element // guarded by mu: of *cacheItem
	order   lru.List                   // guarded by mu: the last one used first
	bytes   int64                      // guarded by mu
}

// cacheItem is what is known of one session. The caller of what uses it holds cache.mu.
type cacheItem struct {
	id      sessfs.ID
	version sessfs.Version // that was seen last
	same    int            // times in a row that nobody else had stored it
	used    time.Time
	kept    *cached // nil: not yet
}

// cached is a session as it was read or stored. It never changes.
type cached struct {
	rec    *record
	data   []byte // of the record, or of its parts
	copies []copied
	parts  []partsSeen
}

func (c *cache) init() {
	c.entries = make(map[sessfs.ID]*lru.Element)
	c.above.Store(cacheAbove)
}

// chunks are the keys of its parts; none: it is in one piece, or nil.
func (k *cached) chunks() []string {
	if k == nil || k.rec.chunks() == 0 {
		return nil
	}
	return chunkKeys(k.copies[0].s.cl.prefix, k.rec.version.Nonce, k.rec.chunks())
}

// is tells whether answers without values, of the record and its parts, are those of what a server had.
func (k *cached) is(s *server, epoch uint64, answers []reply) bool {
	it, at, parts := answers[0].item, ref{copies: k.copies}.on(s), k.partsOn(s)
	if !it.found || it.cas != at.cas || at.epoch != epoch || it.flags != uint32(k.rec.version.Nonce) {
		return false
	}
	for i, r := range answers[1:] {
		if !r.item.found || r.item.cas != parts.cas[i] || parts.epoch != epoch {
			return false
		}
	}
	return true
}

func (k *cached) partsOn(s *server) partsSeen {
	for _, at := range k.parts {
		if at.s == s && len(at.cas) == k.rec.chunks() && !slices.Contains(at.cas, 0) {
			return at
		}
	}
	return partsSeen{}
}

// ask returns what a server can be asked for by its cas; nil: values are to be asked for.
func (c *cache) ask(id sessfs.ID, s *server) *cached {
	k := c.find(id)
	if k == nil {
		return nil
	}
	at := ref{copies: k.copies}.on(s)
	if at.cas == 0 || at.epoch != s.currentEpoch() || k.rec.chunks() > 0 && k.partsOn(s).cas == nil {
		return nil
	}
	return k
}

func (c *cache) find(id sessfs.ID) *cached {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[id]; e != nil {
		return e.Value.(*cacheItem).kept
	}
	return nil
}

// wants tells whether a session of a size is worth keeping, and forgets one that is not any more.
func (c *cache) wants(id sessfs.ID, size int) bool {
	if int64(size) >= c.above.Load() {
		return true
	}
	c.drop(id)
	return false
}

// drop forgets a session.
func (c *cache) drop(id sessfs.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(c.entries[id])
}

// saw notes what was read under the lock.
func (c *cache) saw(k cached) { c.note(k, false) }

// stored notes what was stored on top of what was seen last.
func (c *cache) stored(k cached) { c.note(k, true) }

func (c *cache) note(k cached, own bool) {
	askable := slices.ContainsFunc(k.copies, func(at copied) bool {
		_, meta := at.s.connected().(metaWire)
		return meta && at.cas != 0
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[k.rec.id]
	if e == nil {
		e = c.order.PushFront(&cacheItem{id: k.rec.id})
		c.entries[k.rec.id] = e
		c.bytes += cacheEntry
	}
	c.order.MoveToFront(e)
	it := e.Value.(*cacheItem)
	switch {
	case own:
	case it.version == k.rec.version:
		it.same = min(it.same+1, cacheTrust)
	default:
		it.same = 0
	}
	it.version, it.used = k.rec.version, time.Now()
	c.keep(it, nil)
	if askable && it.same == cacheTrust && int64(cap(k.data)) <= c.most.Load()/2 {
		c.keep(it, &k)
	}
	c.shrink()
}

// limit changes how much is kept.
func (c *cache) limit(bytes int64) {
	c.most.Store(max(bytes, 0))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shrink()
}

// shrink forgets those used least recently. The caller holds mu.
func (c *cache) shrink() {
	for c.bytes > c.most.Load() {
		c.remove(c.order.Back())
	}
}

// keep replaces what is kept. The caller holds mu.
func (c *cache) keep(it *cacheItem, k *cached) {
	if it.kept != nil {
		c.bytes -= int64(cap(it.kept.data))
	}
	if it.kept = k; k != nil {
		c.bytes += int64(cap(k.data))
	}
}

// remove forgets an entry; nil: none. The caller holds mu.
func (c *cache) remove(e *lru.Element) {
	if e == nil {
		return
	}
	it := c.order.Remove(e).(*cacheItem)
	c.keep(it, nil)
	c.bytes -= cacheEntry
	delete(c.entries, it.id)
}

// distrust forgets what turned out to be changed by somebody else.
func (c *cache) distrust(id sessfs.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[id]; e != nil {
		it := e.Value.(*cacheItem)
		it.same = 0
		c.keep(it, nil)
	}
}

// forget forgets those that were not used since a time.
func (c *cache) forget(since time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for e := c.order.Back(); e != nil && !e.Value.(*cacheItem).used.After(since); e = c.order.Back() {
		c.remove(e)
	}
}

// keepForgetting forgets sessions that are not used any more.
func (c *Cluster) keepForgetting() {
	defer c.running.Done()
	every(c.ctx, cacheIdle/5, func() { c.cache.forget(time.Now().Add(-cacheIdle)) })
}

// Cache tells what was asked of large sessions that a host has in memory.
type Cache struct {
	Sessions int    `json:"sessions"` // that are known
	Bytes    int64  `json:"bytes"`    // of memory
	Current  uint64 `json:"current"`  // answers by which the session in memory is the last one, since the start
	Changed  uint64 `json:"changed"`  // answers by which it is not
}

// Cache returns the figures.
func (c *Cluster) Cache() Cache {
	m := &c.cache
	m.mu.Lock()
	defer m.mu.Unlock()
	return Cache{Sessions: len(m.entries), Bytes: m.bytes, Current: m.current.Load(), Changed: m.changed.Load()}
}
