package main

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"sessfs"
	"sessfs/internal/admin"
	"sessfs/internal/metrics"
	"sessfs/internal/web"
)

// monitor shows how a daemon does: metrics, health, and the web page with its samples of the last hour.
type monitor struct {
	d       *daemon
	handler http.Handler // of metrics
	history *web.History
	page    http.Handler
	host    string
	public  *admin.Public // nil until start
	ending  atomic.Bool   // the daemon was told to end

	address string // where it is shown; of start, and then of those who reload

	mu     sync.Mutex
	reload metrics.Reload // guarded by mu

	asking  sync.Mutex            // held while the servers are asked
	servers []sessfs.ServerStatus // guarded by asking
	asked   time.Time             // guarded by asking

	end     context.CancelFunc
	running sync.WaitGroup
}

// serversFresh is how old the cache servers' own figures may be: whoever asks this daemon often does not ask them.
const serversFresh = 2 * time.Second

func newMonitor(d *daemon, host string) *monitor {
	m := &monitor{d: d, host: host, history: web.NewHistory(), reload: metrics.Reload{OK: true, At: d.started}}
	m.handler = metrics.Handler(metrics.Registry(m.snapshot))
	m.page = web.Page(web.Source{Host: host, Snapshot: m.snapshot, Locks: d.locks.Locks, History: m.history})
	return m
}

// start shows them at an address, where one is given. An address that cannot be had is no reason not to serve sessions:
// the log says so, and it is tried again.
func (m *monitor) start(control admin.Daemon, address string) {
	m.public = admin.NewPublic(control, m.page, m.host)
	ctx, end := context.WithCancel(context.Background())
	m.end = end
	m.listen(address)
	m.running.Go(func() { m.sample(ctx) })
}

// listen changes the address.
func (m *monitor) listen(address string) {
	if address != m.address {
		m.address = address
		for _, w := range m.d.conf.Warnings() {
			m.d.log.Warn(w)
		}
	}
	if err := m.public.Listen(address); err != nil {
		m.d.log.Error("metrics and the web page cannot be had at their address; sessions are served all the same, and it is tried again", "address", address, "err", err)
	}
}

// sample fills the history while somebody may look at it.
func (m *monitor) sample(ctx context.Context) {
	tick := time.NewTicker(web.Every)
	defer tick.Stop()
	for {
		if m.public.On() {
			m.history.Add(time.Now(), m.snapshot(ctx))
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			m.public.Retry()
		}
	}
}

func (m *monitor) close() {
	if m.end == nil {
		return
	}
	m.public.Close()
	m.end()
	m.running.Wait()
}

// health is what /healthz and /readyz say.
func (m *monitor) health() admin.Health {
	return admin.Health{
		Alive: m.d.loops.Alive,
		Ready: func(ctx context.Context) error {
			if err := m.d.loops.Alive(ctx); err != nil {
				return err
			}
			return m.notReady()
		},
	}
}

var (
	errNotMounted = errors.New("not mounted")
	errEnding     = errors.New("the daemon is ending")
)

// notReady tells why sessions of this host fail.
func (m *monitor) notReady() error {
	switch {
	case m.ending.Load():
		return errEnding
	case !m.mounted():
		return errNotMounted
	case m.d.cluster != nil:
		return m.d.cluster.Ready()
	}
	return nil
}

func (m *monitor) mounted() bool {
	if !m.d.mounted.Load() {
		return false
	}
	select {
	case <-m.d.mount.Done():
		return false
	default:
		return true
	}
}

// snapshot is how the daemon stands.
func (m *monitor) snapshot(ctx context.Context) *metrics.Snapshot {
	d := m.d
	s := &metrics.Snapshot{Version: version, Mountpoint: d.mountpoint, Started: d.started, Mounted: m.mounted(), NotReady: m.notReady(), Locking: d.locks.Stats()}
	s.OldestHold, s.OldestWait = d.locks.Oldest()
	if d.mounted.Load() {
		s.Files = d.mount.Stats()
	}
	if d.cluster != nil {
		c, seals, cache := d.cluster.Copies(), d.cluster.Seals(), d.cluster.Cache()
		s.Seals, s.Cache = &seals, &cache
		s.Copies, s.Servers, s.RoundTrips, s.Waited = &c, m.askServers(ctx), d.cluster.RoundTripTimes(), d.cluster.Waits()
	}
	m.mu.Lock()
	s.Reload = m.reload
	m.mu.Unlock()
	return s
}

// askServers asks the cache servers how they stand, for all who ask at the same time together.
func (m *monitor) askServers(ctx context.Context) []sessfs.ServerStatus {
	m.asking.Lock()
	defer m.asking.Unlock()
	if time.Since(m.asked) > serversFresh {
		m.servers = m.d.cluster.Servers(context.WithoutCancel(ctx))
		m.asked = time.Now()
	}
	return m.servers
}

// reloaded notes that the configuration was taken over, but for so many keys.
func (m *monitor) reloaded(pending int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reload = metrics.Reload{OK: true, At: time.Now(), Pending: pending}
}

// reloadFailed notes that a configuration was not taken over.
func (m *monitor) reloadFailed() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reload.OK = false
}
