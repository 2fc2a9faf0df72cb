package backend

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"
)

// hosts is what this host tells the others of itself, and what it has read of them.
type hosts struct {
	mu   sync.Mutex
	own  HostRecord              // guarded by mu; no ID: nothing is told
	read map[string][]HostRecord // by the server's name; guarded by mu
	wake chan struct{}           // capacity 1
}

// Announce tells the other hosts of this one, now and again until Close. Of the record it takes what it does not know
// itself; a second call replaces what the first one told.
func (c *Cluster) Announce(r HostRecord) {
	r.fit()
	c.hosts.mu.Lock()
	c.hosts.own = r
	c.hosts.mu.Unlock()
	c.announceSoon()
}

func (c *Cluster) announceSoon() {
	select {
	case c.hosts.wake <- struct{}{}:
	default:
	}
}

// Hosts are those that were in the register at the last look, which is at most five minutes ago, this one included. Of
// several records of a mount the newest counts.
func (c *Cluster) Hosts() []HostRecord {
	c.hosts.mu.Lock()
	defer c.hosts.mu.Unlock()
	var all []HostRecord
	for _, list := range c.hosts.read {
		all = append(all, list...)
	}
	slices.SortFunc(all, func(a, b HostRecord) int {
		return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.ID, b.ID), cmp.Compare(b.Seen, a.Seen))
	})
	return slices.CompactFunc(all, func(a, b HostRecord) bool { return a.ID == b.ID })
}

// keepHosts notes this host on all servers now and then, until Close.
func (c *Cluster) keepHosts() {
	defer c.running.Done()
	timer := stopped()
	defer timer.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-c.hosts.wake:
		case <-timer.C:
		}
		next := hostsRefresh
		if !c.noteHost() {
			next = hostsRefresh / 20 // others stored at the same moment, or a server failed
		}
		timer.Reset(next - rand.N(next/8))
	}
}

// noteHost stores this host's record on every server that answers. It reports false where that is to be tried again soon.
func (c *Cluster) noteHost() bool {
	c.hosts.mu.Lock()
	own := c.hosts.own
	c.hosts.mu.Unlock()
	if own.ID == "" {
		return true
	}
	c.known.mu.Lock()
	list := c.known.own
	own.Quorum = "any"
	if c.known.majority {
		own.Quorum = "majority"
	}
	c.known.mu.Unlock()
	own.List, own.Addresses, own.Servers, own.Replicas, own.Prefix = digest(list.identity()), digest(list.addresses()), len(list.Servers), list.Replicas, c.prefix
	s := c.settings.Load()
	own.Lifetime, own.MaxSize, own.Lease = int64(s.Lifetime/time.Second), s.MaxSize, int64(s.Lease/time.Second)
	servers := slices.DeleteFunc(slices.Clone(c.servers()), (*server).down) // one that is up again wakes this
	done := make([]bool, len(servers))
	var wg sync.WaitGroup
	for i, s := range servers {
		wg.Go(func() { done[i] = s.noteHost(own) })
	}
	wg.Wait()
	c.hosts.mu.Lock()
	defer c.hosts.mu.Unlock()
	for name := range c.hosts.read {
		if !slices.ContainsFunc(c.servers(), func(s *server) bool { return s.name == name }) {
			delete(c.hosts.read, name)
		}
	}
	return !slices.Contains(done, false)
}

// noteHost stores a host's record on one server, and keeps what it read there.
func (s *server) noteHost(own HostRecord) bool {
	c := s.cl
	stats, err := s.stats(c.ctx, c.deadline())
	if err != nil {
		return false
	}
	answered := time.Now()
	seconds, err := strconv.ParseInt(stats["time"], 10, 64)
	if err != nil || seconds < 0 || seconds > maxUnixMilli {
		return true // a server that has no clock to tell hosts' notes by
	}
	now := time.Unix(seconds, 0)
	own.Ahead = answered.Sub(now).Milliseconds()
	at := place{c: c, data: hostsKey}
	for try := range 5 {
		if try > 0 {
			time.Sleep(rand.N(time.Duration(try) * 10 * time.Millisecond))
		}
		g, err := s.beginGet(0, []string{at.data}, c.deadline())()
		c.looks.Add(1)
		if err != nil {
			return false
		}
		it := g.items[0]
		var current []byte
		if it.found {
			current = it.value
		}
		store, bad := mergeHosts(current, own, now, s.hostsSize())
		if bad != nil {
			c.log.Warn("a cache server's register of hosts is damaged; what is wrong is taken out", "server", s.name, "err", bad)
		}
		out, err := s.beginStore(at, storing{add: !it.found, cas: it.cas, epoch: g.epoch, head: store, exptime: exptime(hostsGone)}, c.deadline())()
		c.looks.Add(1)
		switch {
		case err == errVoid:
			continue
		case err != nil:
			return false
		case out.code == codeStored:
			all, _ := decodeHosts(store)
			c.hosts.mu.Lock()
			c.hosts.read[s.name] = all
			c.hosts.mu.Unlock()
			return true
		case out.code == codeRefused:
			return true // too large or out of memory: nothing that another try makes better
		}
	}
	return false
}

// hostsSize is the room for the register on a server, in bytes.
func (s *server) hostsSize() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil {
		return minItemMax / 2
	}
	return min(maxHostsSize, s.last.itemMax/2)
}
