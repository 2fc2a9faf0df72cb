package backend

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"sessfs"
	"sessfs/internal/loop"
)

// Server is one memcached server.
type Server struct {
	Name    string // what is hashed; must not change while sessions live
	Network string // "tcp" or "unix"; default "tcp"
	Address string // host:port or the path of the socket
	Weight  int    // share of the sessions; default 1
}

// Options of a Cluster.
type Options struct {
	Servers       []Server
	Timeout       time.Duration // longest time of any request; default 1 s
	RetryInterval time.Duration // within which a server that is back is found; default 15 s
	Connections   int           // pipelined, per server; default 1
	Replicas      int           // servers that have a copy of each session; default 1
	Majority      bool          // of two servers both must answer
	Prefix        string        // of all keys
	Lifetime      time.Duration // of a session that is not stored again; default 24 min
	Lease         time.Duration // of a lock that is not renewed; default 10 s
	MaxSize       int64         // bytes of one session; default 16 MiB
	Memory        int64         // bytes of large sessions that are kept in memory; 0: none
	Secure        Secure        // how connections are protected; default not at all
	Log           *slog.Logger
	Seal          *Seal       // how sessions are sealed; nil: not at all
	ForceClassic  bool        // do not use meta commands, even where they work
	Loops         *loop.Group // that serve the connections; nil: one of the Cluster's own
}

// Settings are the options that may change at any time, for requests that begin then.
type Settings struct {
	Timeout       time.Duration
	RetryInterval time.Duration
	Lifetime      time.Duration
	Lease         time.Duration
	MaxSize       int64
	Memory        int64
}

// Cluster implements sessfs.Backend over memcached servers.
type Cluster struct {
	views        atomic.Pointer[[]*view]   // what sessions' servers are chosen from, the present list first
	all          atomic.Pointer[[]*server] // of all views
	known        known
	hosts        hosts
	changes      atomic.Uint64 // of what a set depends on: views, and how old servers are
	mend         chan struct{} // capacity 1: a server needs its copies
	connections  int
	prefix       string
	forceClassic bool
	seal         atomic.Pointer[sealing] // nil: nothing is sealed
	seals        seals
	log          *slog.Logger
	loops        *loop.Group
	ownLoops     bool
	settings     atomic.Pointer[Settings]
	guard        atomic.Pointer[guard]
	usage        usageCache
	cache        cache
	looks        atomic.Uint64 // of the servers' waits those that no request waited for
	mended       atomic.Uint64 // copies that were stored where they were missing or older
	standIns     atomic.Uint64 // locks got on a set in which another server stood in for one that was down
	putBack      atomic.Uint64 // changes that were refused after they were stored on some servers
	lost         atomic.Uint64 // reads of sessions of which no server has a whole copy any more

	ctx     context.Context // ends with Close
	end     context.CancelFunc
	running sync.WaitGroup
	once    sync.Once
}

var _ sessfs.Backend = (*Cluster)(nil)

// New makes a Cluster. It connects when it must, so servers that are down are no error here: see Check.
func New(o Options) (*Cluster, error) {
	if len(o.Servers) == 0 {
		return nil, errors.New("no cache servers are named")
	}
	if err := checkPrefix(o.Prefix); err != nil {
		return nil, err
	}
	if o.Connections == 0 {
		o.Connections = 1
	}
	if o.Connections < 0 || o.Connections > 1024 {
		return nil, fmt.Errorf("%d connections per server are impossible; give 1 to 1024", o.Connections)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	c := &Cluster{prefix: o.Prefix, forceClassic: o.ForceClassic, log: o.Log, connections: o.Connections, mend: make(chan struct{}, 1),
		seals: seals{seed: maphash.MakeSeed(), said: rate.Sometimes{First: 10, Interval: time.Second}}}
	c.cache.init()
	if err := c.setSeal(o.Seal); err != nil {
		return nil, err
	}
	c.ctx, c.end = context.WithCancel(context.Background())
	c.Reconfigure(Settings{Timeout: o.Timeout, RetryInterval: o.RetryInterval, Lifetime: o.Lifetime, Lease: o.Lease, MaxSize: o.MaxSize, Memory: o.Memory})
	if err := o.Secure.Check(); err != nil {
		return nil, err
	}
	c.guard.Store(newGuard(o.Secure, c.log))
	v, err := c.newView(o.Servers, o.Replicas, o.Majority)
	if err != nil {
		return nil, err
	}
	c.known = known{own: listOf(v), majority: v.majority, wake: make(chan struct{}, 1)}
	c.hosts = hosts{read: make(map[string][]HostRecord), wake: make(chan struct{}, 1)}
	c.views.Store(&[]*view{v})
	c.all.Store(&v.servers)
	if c.loops = o.Loops; c.loops == nil {
		if c.loops, err = loop.New(1); err != nil {
			return nil, err
		}
		c.ownLoops = true
	}
	for _, s := range v.servers {
		c.running.Add(1)
		go s.keepHouse()
	}
	c.running.Add(4)
	go c.learn()
	go c.keepHosts()
	go c.keepMending()
	go c.keepForgetting()
	return c, nil
}

// newView checks a list of servers and makes what is needed to use it.
func (c *Cluster) newView(list []Server, replicas int, majority bool) (*view, error) {
	if replicas == 0 {
		replicas = 1
	}
	if replicas < 0 || replicas > maxReplicas || replicas > len(list) {
		return nil, fmt.Errorf("%d copies of each session on %d cache servers are impossible; give 1 to %d", replicas, len(list), min(maxReplicas, len(list)))
	}
	v := &view{replicas: replicas, majority: majority, hasher: c.hasher()}
	seen := make(map[string]bool)
	for _, sv := range list {
		if sv.Network == "" {
			sv.Network = "tcp"
		}
		if sv.Name == "" {
			sv.Name = sv.Address
		}
		if sv.Weight == 0 {
			sv.Weight = 1
		}
		switch {
		case sv.Address == "":
			return nil, fmt.Errorf("cache server %q has no address", sv.Name)
		case sv.Weight < 0:
			return nil, fmt.Errorf("cache server %q has the weight %d; give 1 or more", sv.Name, sv.Weight)
		case seen[sv.Name]:
			return nil, fmt.Errorf("two cache servers are named %q; names decide where sessions live and must differ", sv.Name)
		}
		seen[sv.Name] = true
		v.nodes = append(v.nodes, node{sv.Name, sv.Weight})
		v.servers = append(v.servers, c.oldServer(sv, v.hasher))
	}
	return v, nil
}

// oldServer returns the server that is there already under that name and address, with the same kind of keys, else a new one.
func (c *Cluster) oldServer(sv Server, hasher *sealing) *server {
	if all := c.all.Load(); all != nil {
		for _, s := range *all {
			if s.name == sv.Name && s.network == sv.Network && s.address == sv.Address && (s.hasher != nil) == (hasher != nil) {
				return s
			}
		}
	}
	return c.newServer(sv, hasher)
}

func (c *Cluster) newServer(sv Server, hasher *sealing) *server {
	label := fmt.Sprintf("cache server %s (%s)", sv.Name, sv.Address)
	if sv.Name == sv.Address {
		label = "cache server " + sv.Name
	}
	s := &server{cl: c, name: sv.Name, network: sv.Network, address: sv.Address, label: label, mark: mark32(sv.Name), hasher: hasher,
		conns: make([]*conn, c.connections), epoch: 1, tasks: make(chan task, maxTasks), gone: make(chan struct{}), downed: make(chan struct{}, 1)}
	if hasher != nil {
		s.mark = mark32(sv.Name + hashedMark)
	}
	s.youngUntil.Store(math.MaxInt64) // until it has told
	return s
}

// servers are those of all views.
func (c *Cluster) servers() []*server { return *c.all.Load() }

// Reconfigure changes the settings; zero values mean the defaults.
func (c *Cluster) Reconfigure(s Settings) {
	orDefault(&s.Timeout, time.Second)
	orDefault(&s.RetryInterval, 15*time.Second)
	orDefault(&s.Lifetime, 24*time.Minute)
	orDefault(&s.Lease, 10*time.Second)
	orDefault(&s.MaxSize, 16<<20)
	c.settings.Store(&s)
	c.cache.limit(s.Memory)
}

func orDefault[T int64 | time.Duration](p *T, v T) {
	if *p <= 0 {
		*p = v
	}
}

func (c *Cluster) timeout() time.Duration { return c.settings.Load().Timeout }

func (c *Cluster) deadline() time.Time { return time.Now().Add(c.timeout()) }

// retry is how often a server that is down is asked. It costs no request anything, so it is done more often than
// retry_interval asks for.
func (c *Cluster) retry() time.Duration { return min(c.settings.Load().RetryInterval, time.Second) }

// Check asks every server. The error names each that does not answer, with the reason; it wraps sessfs.ErrUnavailable,
// or sessfs.ErrNotSupported when a server answers and cannot be used.
func (c *Cluster) Check(ctx context.Context) error {
	deadline := c.deadline()
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	servers := c.servers()
	errs := make([]error, len(servers))
	var wg sync.WaitGroup
	for i, s := range servers {
		wg.Go(func() { errs[i] = s.check(deadline) })
	}
	wg.Wait()
	err := errors.Join(errs...)
	if errors.Is(err, sessfs.ErrNotSupported) {
		return fmt.Errorf("%w: %v", sessfs.ErrNotSupported, err)
	}
	return err
}

// check asks one server, whether it is marked down or not.
func (s *server) check(deadline time.Time) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return sessfs.ErrClosed
	}
	var a *attempt
	if s.info == nil {
		a = s.connectLocked()
	}
	s.mu.Unlock()
	var err error
	if a != nil {
		_, err = s.await(a, deadline)
		return err
	}
	w, err := s.wire(deadline)
	if err != nil {
		return err
	}
	_, _, err = w.get(0, []string{s.cl.prefix + probeMark}, deadline)
	return err
}

// Waits is the number of round trips that were waited for, on all servers together.
func (c *Cluster) Waits() (n uint64) {
	looks := c.looks.Load()
	for _, s := range c.servers() {
		n += s.waits.Load()
	}
	return n - min(n, looks)
}

// Close lets queued unlocks go out, for half a second at most, and ends all connections and goroutines.
func (c *Cluster) Close() error {
	c.once.Do(func() {
		deadline := time.Now().Add(min(c.timeout(), 500*time.Millisecond))
		var wg sync.WaitGroup
		for _, s := range c.servers() {
			wg.Go(func() { s.close(deadline) })
		}
		wg.Wait()
		c.end()
		c.running.Wait()
		if c.ownLoops {
			c.loops.Close()
		}
	})
	return nil
}

// place is where a session lives on each of its servers.
type place struct {
	c          *Cluster
	id         sessfs.ID
	conn       int // one session's requests go over one connection, so that an unlock is done before what follows it
	data, lock string
}

func (c *Cluster) place(id sessfs.ID) place {
	name := nameOf(c.prefix, id)
	h := uint32(0)
	for i := range len(id) {
		h = h*31 + uint32(id[i])
	}
	return place{c: c, id: id, conn: int(h % uint32(c.connections)), data: c.prefix + name, lock: c.prefix + lockMark + name}
}

// mark is the key of the mark of those who want the lock.
func (p place) mark() string { return p.c.prefix + waitMark + p.data[len(p.c.prefix):] }

// seen is with which cas an item was seen on a server, between two breaks of its connections.
type seen struct{ epoch, cas uint64 } // cas 0: not known

// copied is one copy of an item.
type copied struct {
	s *server
	seen
}

// ref is what a snapshot's Ref holds.
type ref struct {
	copies []copied
	nonce  uint64 // of the chunks
	chunks int
	where  []uint32
}

// refOf returns the Ref of a snapshot of this Backend, or one that knows nothing.
func refOf(s *sessfs.Session) ref {
	if r, ok := s.Ref.(ref); ok {
		return r
	}
	return ref{}
}

// on is how the copy on a server was seen.
func (r ref) on(s *server) seen {
	for _, c := range r.copies {
		if c.s == s {
			return c.seen
		}
	}
	return seen{}
}

// exptime is how memcached wants a time to live: in seconds, over 30 days as a unix time.
func exptime(d time.Duration) int64 {
	const month = 30 * 24 * 60 * 60
	s := int64((d + time.Second - 1) / time.Second)
	if s >= month {
		return time.Now().Unix() + s
	}
	return max(s, 1)
}
