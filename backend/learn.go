package backend

import (
	"slices"
	"strings"
	"sync"
	"time"

	"sessfs"
)

// known is what this host knows of the lists of servers that hosts use (lists.go). The document of a server is read when
// it is connected, before anything else is asked of it, and again now and then.
type known struct {
	mu       sync.Mutex
	own      list    // that of the configuration
	majority bool    // its quorum
	history  history // what was learned
	wake     chan struct{}
}

// listOf is a view as hosts tell each other of it.
func listOf(v *view) list {
	l := list{Replicas: v.replicas, Hashed: v.hasher != nil}
	for i, s := range v.servers {
		l.Servers = append(l.Servers, listServer{Name: s.name, Network: s.network, Address: s.address, Weight: v.nodes[i].weight})
	}
	return newHistory([]list{l})[0]
}

// SetServers changes the list of servers. Those that it leaves out are used beside it for as long as sessions may live
// there alone, which all hosts reckon by what they tell each other on the servers.
func (c *Cluster) SetServers(servers []Server, replicas int, majority bool) error {
	c.known.mu.Lock()
	defer c.known.mu.Unlock()
	return c.setServers(servers, replicas, majority)
}

// setServers is SetServers for those who hold known.mu.
func (c *Cluster) setServers(servers []Server, replicas int, majority bool) error {
	v, err := c.newView(servers, replicas, majority)
	if err != nil {
		return err
	}
	now := time.Now()
	before := c.known.own
	before.Used = now.UnixMilli()
	c.known.history = c.known.history.merge(history{before})
	c.known.own, c.known.majority = listOf(v), majority
	c.rebuild(v, now)
	c.learnSoon()
	c.announceSoon()
	return nil
}

// learnSoon has the documents of all servers read and written.
func (c *Cluster) learnSoon() {
	select {
	case c.known.wake <- struct{}{}:
	default:
	}
}

// learnFrom takes over what a server that is being connected knows, and notes whether it may have forgotten locks.
func (c *Cluster) learnFrom(s *server, in *info) {
	var left time.Duration
	if !in.started.IsZero() {
		left = max(c.settings.Load().Lease+time.Second-time.Since(in.started), 0)
	}
	s.youngUntil.Store(sessfs.Boottime() + int64(left))
	c.changes.Add(1)
	c.known.mu.Lock()
	defer c.known.mu.Unlock()
	c.merge(s, in.lists, time.Now())
	c.rebuild((*c.views.Load())[0], time.Now())
}

// merge takes over a server's document. It returns what is to be stored there instead; nil: nothing. The caller holds known.mu.
func (c *Cluster) merge(s *server, document []byte, now time.Time) []byte {
	l := c.seal.Load()
	document, foreign, err := s.openDocument(document)
	if foreign {
		return nil // the other hosts need it
	}
	if err != nil {
		c.log.Warn("a cache server's record of the server lists is not sealed as it should be; it is replaced", "server", s.name, "err", err)
	}
	merged, store, left, err := mergeInto(document, c.known.history, c.known.own, now, c.settings.Load().Lifetime)
	if err != nil {
		c.log.Warn("a cache server's record of the server lists is damaged; it is replaced", "server", s.name, "err", err)
	}
	if left > 0 {
		c.log.Warn("there were more server lists within a session's lifetime than have room; sessions that only the oldest name may not be found", "left_out", left)
	}
	c.known.history = merged
	if store != nil && l.hashes() {
		store = l.seal(documentKind, c.prefix+listsMark, store)
	}
	return store
}

// rebuild makes the views from the present list and those that sessions may live by. The caller holds known.mu.
func (c *Cluster) rebuild(present *view, now time.Time) {
	views := []*view{present}
	pool := slices.Clone(c.servers())
	pool = slices.DeleteFunc(pool, func(s *server) bool {
		return slices.ContainsFunc(present.servers, func(p *server) bool { return p.name == s.name && (p.hasher == nil) == (s.hasher == nil) })
	})
	pool = append(pool, present.servers...)
	for _, l := range c.known.history.alive(now, c.settings.Load().Lifetime) {
		if l.identity() == c.known.own.identity() {
			continue
		}
		v := &view{replicas: l.Replicas, majority: c.known.majority}
		if l.Hashed {
			if v.hasher = c.seal.Load(); v.hasher == nil {
				continue // see keyless
			}
		}
		for _, ls := range l.Servers {
			at := slices.IndexFunc(pool, func(s *server) bool { return s.name == ls.Name && (s.hasher == nil) == (v.hasher == nil) })
			if at < 0 {
				at = len(pool)
				pool = append(pool, c.newServer(Server(ls), v.hasher))
			}
			v.nodes, v.servers = append(v.nodes, node{ls.Name, ls.Weight}), append(v.servers, pool[at])
		}
		views = append(views, v)
	}
	c.use(views)
}

// use replaces the views, starts the servers that are new and ends those that are not needed any more. The caller holds
// known.mu.
func (c *Cluster) use(views []*view) {
	if c.ctx.Err() != nil || slices.EqualFunc(*c.views.Load(), views, (*view).same) {
		return
	}
	var all []*server
	for _, v := range views {
		for _, s := range v.servers {
			if !slices.Contains(all, s) {
				all = append(all, s)
			}
		}
	}
	before := c.servers()
	for _, s := range all {
		if !slices.Contains(before, s) {
			c.running.Add(1)
			go s.keepHouse()
		}
	}
	c.all.Store(&all)
	c.views.Store(&views)
	c.changes.Add(1)
	for _, s := range before {
		if !slices.Contains(all, s) {
			c.running.Add(1)
			go func() {
				defer c.running.Done()
				s.close(c.deadline())
			}()
		}
	}
	c.log.Info("the server lists that sessions are looked for by have changed", "lists", len(views), "present", names(views[0].servers), "all", names(all))
}

// same tells whether two views place sessions alike, on the same connections.
func (v *view) same(w *view) bool {
	return v.replicas == w.replicas && v.majority == w.majority && slices.Equal(v.nodes, w.nodes) && slices.Equal(v.servers, w.servers)
}

func names(servers []*server) string {
	var list []string
	for _, s := range servers {
		list = append(list, s.name)
	}
	return strings.Join(list, ", ")
}

// learn reads and writes the documents now and then, until Close.
func (c *Cluster) learn() {
	defer c.running.Done()
	timer := time.NewTimer(listRefresh / 2)
	defer timer.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-c.known.wake:
		case <-timer.C:
		}
		c.exchangeLists()
		timer.Reset(listRefresh / 2)
	}
}

// exchangeLists learns from every server that answers, and tells each what it does not know.
func (c *Cluster) exchangeLists() {
	at := place{c: c, data: c.prefix + listsMark}
	for range 3 { // somebody else may store at the same time; new servers may be learned of
		servers := slices.DeleteFunc(slices.Clone(c.servers()), func(s *server) bool { return s.connected() == nil })
		if len(servers) == 0 {
			return
		}
		c.looks.Add(uint64(len(servers)))
		answers, errs := each(servers, func(s *server) (got, error) { return s.beginGet(0, []string{at.data}, c.deadline())() })
		c.known.mu.Lock()
		now := time.Now()
		stores := make([][]byte, len(servers))
		for range 2 { // what the last one knows is news for the first
			for i, s := range servers {
				if errs[i] == nil {
					stores[i] = c.merge(s, answers[i].items[0].value, now)
				}
			}
		}
		c.rebuild((*c.views.Load())[0], now)
		c.known.mu.Unlock()
		again := false
		for i, s := range servers {
			if stores[i] == nil || errs[i] != nil {
				continue
			}
			it := answers[i].items[0]
			c.looks.Add(1)
			out, err := s.beginStore(at, storing{add: !it.found, cas: it.cas, epoch: answers[i].epoch, head: stores[i],
				exptime: exptime(c.settings.Load().Lifetime + 10*listRefresh)}, c.deadline())()
			again = again || err == nil && out.code != codeStored || err == errVoid
		}
		if !again && len(c.servers()) == len(servers) {
			return
		}
	}
}

// knownLists returns the lists that this host knows of, and its own.
func (c *Cluster) knownLists(now time.Time) (history, list) {
	c.known.mu.Lock()
	defer c.known.mu.Unlock()
	own := c.known.own
	own.Used = now.UnixMilli()
	return c.known.history.merge(history{own}), own
}

// adopt takes over a history that says that lists are not needed any more, and tells the other hosts.
func (c *Cluster) adopt(h history) {
	c.known.mu.Lock()
	defer c.known.mu.Unlock()
	c.known.history = c.known.history.merge(h)
	c.rebuild((*c.views.Load())[0], time.Now())
	c.learnSoon()
}
