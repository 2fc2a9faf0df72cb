package backend

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	"sessfs"
	"sessfs/internal/hist"
)

// usageFresh is how long figures are answered from memory.
const usageFresh = 5 * time.Second

type usageCache struct {
	mu    sync.Mutex
	usage sessfs.Usage
	at    time.Time
}

// stats asks one server for its figures, on a connection of its own. The request does not go past the breaker.
func (s *server) stats(ctx context.Context, deadline time.Time) (map[string]string, error) {
	if _, err := s.ready(deadline); err != nil {
		return nil, err
	}
	ctx, end := context.WithDeadline(ctx, deadline)
	defer end()
	p, err := s.plain(ctx)
	if err != nil {
		return nil, s.fail(err)
	}
	defer p.nc.Close()
	s.trips.Add(1)
	m, err := p.stats("")
	if err != nil {
		return nil, s.fail(err)
	}
	return m, nil
}

// Usage implements sessfs.Backend, from figures that are at most 5 s old. Servers that do not answer are left out; it
// fails when none does.
func (c *Cluster) Usage(ctx context.Context) (sessfs.Usage, error) {
	c.usage.mu.Lock()
	u, at := c.usage.usage, c.usage.at
	c.usage.mu.Unlock()
	if time.Since(at) < usageFresh {
		return u, nil
	}
	u = sessfs.Usage{}
	var errs []error
	servers := c.servers()
	for _, a := range c.allStats(ctx, servers) {
		if a.err != nil {
			errs = append(errs, a.err)
			continue
		}
		limit, used := number(a.stats, "limit_maxbytes"), number(a.stats, "bytes")
		u.TotalBytes += limit
		u.FreeBytes += limit - min(limit, used)
		u.Items += number(a.stats, "curr_items")
	}
	if len(errs) == len(servers) {
		return u, errors.Join(errs...)
	}
	c.usage.mu.Lock()
	c.usage.usage, c.usage.at = u, time.Now()
	c.usage.mu.Unlock()
	return u, nil
}

type serverStats struct {
	stats map[string]string
	err   error
}

func (c *Cluster) allStats(ctx context.Context, servers []*server) []serverStats {
	all := make([]serverStats, len(servers))
	deadline := c.deadline()
	var wg sync.WaitGroup
	for i, s := range servers {
		wg.Go(func() { all[i].stats, all[i].err = s.stats(ctx, deadline) })
	}
	wg.Wait()
	return all
}

func number(m map[string]string, key string) uint64 {
	n, _ := strconv.ParseUint(m[key], 10, 64)
	return n
}

// RoundTripTimes returns how long round trips took that were answered and waited for, by the configured names of the
// servers: of a server that has moved, to both its addresses.
func (c *Cluster) RoundTripTimes() map[string]hist.Snapshot {
	times := make(map[string]hist.Snapshot)
	for _, s := range c.servers() {
		times[s.name] = times[s.name].Add(s.roundTrips.Snapshot())
	}
	return times
}

// Copies tells what was done to keep sessions on several servers. All but the first two count since the start.
type Copies struct {
	Replicas int    `json:"replicas"`  // copies of each session
	Lists    int    `json:"lists"`     // of servers that sessions are looked for by: more than one after a change
	StandIns uint64 `json:"stand_ins"` // locks that were got with another server in the place of one that is down
	Mended   uint64 `json:"mended"`    // copies that were stored where they were missing or older
	PutBack  uint64 `json:"put_back"`  // refused changes that some servers had stored, and that were replaced there
	Lost     uint64 `json:"lost"`      // reads of sessions of which no server has a whole copy any more
}

// Copies returns the figures.
func (c *Cluster) Copies() Copies {
	views := *c.views.Load()
	return Copies{Replicas: views[0].replicas, Lists: len(views), StandIns: c.standIns.Load(), Mended: c.mended.Load(),
		PutBack: c.putBack.Load(), Lost: c.lost.Load()}
}

// Servers implements sessfs.Backend. Servers that are marked down are not asked.
func (c *Cluster) Servers(ctx context.Context) []sessfs.ServerStatus {
	servers := c.servers()
	var list []sessfs.ServerStatus
	for i, a := range c.allStats(ctx, servers) {
		// While names change it is there twice, once for each kind: it is one server.
		if !slices.ContainsFunc(list, func(s sessfs.ServerStatus) bool { return s.Name == servers[i].name && s.Address == servers[i].address }) {
			list = append(list, servers[i].status(a))
		}
	}
	return list
}

func (s *server) status(a serverStats) sessfs.ServerStatus {
	m := a.stats
	st := sessfs.ServerStatus{Name: s.name, Address: s.address, Up: a.err == nil, Version: m["version"],
		Uptime: time.Duration(number(m, "uptime")) * time.Second, Items: number(m, "curr_items"), Bytes: number(m, "bytes"),
		LimitBytes: number(m, "limit_maxbytes"), Evictions: number(m, "evictions"), Hits: number(m, "get_hits"),
		Misses: number(m, "get_misses"), Connections: number(m, "curr_connections"), RoundTrips: s.trips.Load(),
		Failures: s.failures.Load()}
	st.ToMend = s.mending.left.Load()
	st.Young = st.Up && sessfs.Boottime() < s.youngUntil.Load()
	st.Leaving = !slices.Contains((*s.cl.views.Load())[0].servers, s)
	if how := s.secured.Load(); how != nil && st.Up {
		st.TLS, st.Login = how.tls, how.login
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.since.IsZero() {
		since := s.since
		st.Up, st.DownSince = false, &since
	}
	if !s.restarted.IsZero() {
		restarted := s.restarted
		st.Restarted = &restarted
	}
	if s.reason != nil {
		st.LastError = s.reason.Error()
	}
	if a.err != nil && st.LastError == "" {
		st.LastError = a.err.Error()
	}
	if s.last != nil {
		st.Protocol, st.Version, st.ItemMax = "meta", s.last.version, uint64(s.last.itemMax)
		if s.last.classic != nil {
			st.Protocol = "classic"
		}
	}
	return st
}
