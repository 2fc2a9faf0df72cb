package metrics

import (
	"context"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"sessfs/internal/hist"
)

// scrapeTime is the longest time that a snapshot may take, for servers that do not answer.
const scrapeTime = 8 * time.Second

// collector translates snapshots. It implements prometheus.Collector.
type collector struct {
	snapshot func(context.Context) *Snapshot
}

var _ prometheus.Collector = collector{}

// Registry has the metrics of a daemon whose snapshots that function takes, and those of its process.
func Registry(snapshot func(context.Context) *Snapshot) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collector{snapshot}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// maxScrapes is how many scrapes are answered at a time; one more gets 503.
const maxScrapes = 8

// Handler answers scrapes.
func Handler(r *prometheus.Registry) http.Handler {
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes, Timeout: scrapeTime + 2*time.Second})
}

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range all {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	ctx, end := context.WithTimeout(context.Background(), scrapeTime)
	defer end()
	e := emitter(ch)
	s := c.snapshot(ctx)
	e.daemon(s)
	e.files(s)
	e.locks(s)
	e.copies(s)
	for _, sv := range s.NamedServers() {
		e.server(sv, s.RoundTrips[sv.Name])
	}
}

// emitter sends metrics.
type emitter chan<- prometheus.Metric

func (e emitter) gauge(d *prometheus.Desc, v float64, labels ...string) {
	e <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (e emitter) counter(d *prometheus.Desc, v uint64, labels ...string) {
	e <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
}

func (e emitter) histogram(d *prometheus.Desc, s hist.Snapshot, labels ...string) {
	buckets := make(map[float64]uint64)
	for bound, n := range s.Cumulative() {
		buckets[bound.Seconds()] = n
	}
	e <- prometheus.MustNewConstHistogram(d, s.Count, s.Sum.Seconds(), buckets, labels...)
}

func (e emitter) yes(d *prometheus.Desc, is bool, labels ...string) {
	v := 0.0
	if is {
		v = 1
	}
	e.gauge(d, v, labels...)
}

func (e emitter) daemon(s *Snapshot) {
	e.gauge(buildInfo, 1, s.Version, runtime.Version())
	e.yes(mounted, s.Mounted)
	e.yes(ready, s.NotReady == nil)
	e.yes(reloadOK, s.Reload.OK)
	e.gauge(reloadTime, float64(s.Reload.At.UnixMilli())/1000)
	e.gauge(reloadPending, float64(s.Reload.Pending))
}

func (e emitter) files(s *Snapshot) {
	f := &s.Files
	for op, n := range f.Operations {
		e.counter(requests, n, op)
	}
	for op, h := range f.Latency {
		e.histogram(requestDuration, h, op)
	}
	e.counter(failures, f.Errors)
	e.counter(lookupsWaited, f.Lookups)
	e.gauge(openHandles, float64(f.OpenFiles))
	e.gauge(openSessions, float64(f.OpenSessions))
	e.gauge(nodes, float64(f.Nodes))
	e.counter(stored, s.Locking.Commits)
	e.counter(conflicts, s.Locking.Conflicts)
	e.counter(tooLarge, f.TooLarge)
	e.counter(opensRefused, f.Refused)
	e.counter(lostChanges, f.LostStores)
}

func (e emitter) locks(s *Snapshot) {
	l := &s.Locking
	e.gauge(locksHeld, float64(l.Leases-l.Kept))
	e.gauge(locksKept, float64(l.Kept))
	e.gauge(lockWaiters, float64(l.Waiting))
	e.histogram(lockWait, l.WaitTimes)
	e.gauge(oldestHold, s.OldestHold.Seconds())
	e.gauge(oldestWait, s.OldestWait.Seconds())
	e.counter(locksLost, l.LocksLost)
}

func (e emitter) copies(s *Snapshot) {
	c := s.Copies
	if c == nil {
		return
	}
	e.counter(roundTripsWaited, s.Waited)
	e.gauge(replicas, float64(c.Replicas))
	e.gauge(lists, float64(c.Lists))
	e.counter(standIns, c.StandIns)
	e.counter(mended, c.Mended)
	e.counter(putBack, c.PutBack)
	e.counter(lostReads, c.Lost)
	e.gauge(cacheBytes, float64(s.Cache.Bytes))
	e.counter(cacheAnswers, s.Cache.Current, "current")
	e.counter(cacheAnswers, s.Cache.Changed, "changed")
	e.gauge(sealKeys, float64(len(s.Seals.Keys)))
	e.yes(sealPlain, s.Seals.AcceptPlain)
	for reason, n := range s.Seals.Refused {
		e.counter(sealRefused, n, reason)
	}
}
