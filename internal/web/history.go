// Package web is the daemon's web page: how it does now and how it did in the last hour, for somebody who has no Prometheus at
// hand. It is rendered here, whole, so that it works without scripts; the only script there is fetches it again.
//
// It is shown to everybody who can connect. There is nothing in it of a single session, not even the hash of an id, and
// nothing can be changed.
package web

import (
	"math"
	"sync"
	"time"

	"sessfs"
	"sessfs/fusefs"
	"sessfs/internal/hist"
	"sessfs/internal/metrics"
)

const (
	// Every is how often a sample is to be added to a History.
	Every = 10 * time.Second
	// Span is how far a History goes back.
	Span = time.Hour

	maxSamples = int(Span/Every) + 1
	recent     = time.Minute // over which present rates and percentiles are taken
	maxTotals  = int(recent/Every) + 1
)

// series are the lines of the charts.
type series int

const (
	started  series = iota // per second
	stored                 // per second
	openHalf               // seconds, the median
	openMost               // seconds, 99 %
	storeHalf
	storeMost
	tripHalf // seconds, of the server with the longest
	tripMost
	held // locks
	waiting
	waitMost // seconds, 99 %
	failed   // per minute
	refused
	lost
	memory  // per cent, of the fullest server
	evicted // per minute, on all servers
	down    // servers
	numSeries
)

// sample is a value of each series; NaN where there is none.
type sample struct {
	at     time.Time
	values [numSeries]float32
}

// totals are what a snapshot counts from the daemon's start.
type totals struct {
	at time.Time
	*metrics.Snapshot
}

// History is the samples of the last hour, in a fixed amount of memory.
type History struct {
	mu      sync.Mutex
	samples []sample // guarded by mu; the oldest first, at most maxSamples
	totals  []totals // guarded by mu; those of the last minute, the oldest first
}

// NewHistory makes an empty one.
func NewHistory() *History { return &History{} }

// Add takes a snapshot in.
func (h *History) Add(at time.Time, s *metrics.Snapshot) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := totals{at, s}
	if n := len(h.totals); n > 0 {
		h.samples = appendLast(h.samples, between(h.totals[n-1], now), maxSamples)
	}
	h.totals = appendLast(h.totals, now, maxTotals)
}

// appendLast appends v, and forgets the first where there are more than n.
func appendLast[T any](list []T, v T, n int) []T {
	if len(list) == n {
		copy(list, list[1:])
		list[n-1] = v
		return list
	}
	return append(list, v)
}

// view is the samples, a last one up to now, and the totals that present rates are reckoned from.
func (h *History) view(now totals) (list []sample, since totals) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.samples {
		if now.at.Sub(s.at) <= Span {
			list = append(list, s)
		}
	}
	since = totals{now.Started, &metrics.Snapshot{}}
	if n := len(h.totals); n > 0 {
		since = h.totals[0]
		if last := h.totals[n-1]; now.at.Sub(last.at) >= time.Second {
			list = append(list, between(last, now))
		}
	}
	return list, since
}

// between is what happened from one snapshot to the next.
func between(a, b totals) sample {
	s := sample{at: b.at}
	seconds := b.at.Sub(a.at).Seconds()
	perSecond := func(before, after uint64) float32 {
		if seconds <= 0 || after < before {
			return float32(math.NaN())
		}
		return float32(float64(after-before) / seconds)
	}
	half := func(h hist.Snapshot) float32 { return quantile(h, 0.5) }
	most := func(h hist.Snapshot) float32 { return quantile(h, 0.99) }
	v := &s.values
	v[started] = perSecond(opened(a.Files), opened(b.Files))
	v[stored] = perSecond(a.Locking.Commits, b.Locking.Commits)
	open, store := openTimes(b.Files).Sub(openTimes(a.Files)), b.Files.Latency["WRITE"].Sub(a.Files.Latency["WRITE"])
	v[openHalf], v[openMost], v[storeHalf], v[storeMost] = half(open), most(open), half(store), most(store)
	v[held], v[waiting] = float32(b.Locking.Leases-b.Locking.Kept), float32(b.Locking.Waiting)
	v[waitMost] = most(b.Locking.WaitTimes.Sub(a.Locking.WaitTimes))
	v[failed] = 60 * perSecond(a.Files.Errors, b.Files.Errors)
	v[refused] = 60 * perSecond(a.Locking.Conflicts+a.Files.TooLarge, b.Locking.Conflicts+b.Files.TooLarge)
	v[lost] = 60 * perSecond(lostSessions(a), lostSessions(b))
	v[tripHalf], v[tripMost], v[memory] = float32(math.NaN()), float32(math.NaN()), float32(math.NaN())
	for _, sv := range b.NamedServers() {
		trips := b.RoundTrips[sv.Name].Sub(a.RoundTrips[sv.Name])
		if m := most(trips); !(m <= v[tripMost]) {
			v[tripHalf], v[tripMost] = half(trips), m
		}
		if m := float32(100 * share(sv.Bytes, sv.LimitBytes)); !(m <= v[memory]) && sv.Up {
			v[memory] = m
		}
		if !sv.Up {
			v[down]++
		}
	}
	v[evicted] = 60 * perSecond(0, evictions(a.Servers, b.Servers))
	return s
}

func quantile(h hist.Snapshot, q float64) float32 {
	if h.Count == 0 {
		return float32(math.NaN())
	}
	return float32(h.Quantile(q).Seconds())
}

// opened is how often sessions were opened, made ones included.
func opened(f fusefs.Stats) uint64 { return f.Operations["OPEN"] + f.Operations["CREATE"] }

func openTimes(f fusefs.Stats) hist.Snapshot { return f.Latency["OPEN"].Add(f.Latency["CREATE"]) }

// lostSessions are changes that could not be stored after close, and reads of sessions that no server has whole.
func lostSessions(t totals) uint64 {
	n := t.Files.LostStores
	if t.Copies != nil {
		n += t.Copies.Lost
	}
	return n
}

func share(part, whole uint64) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part) / float64(whole)
}

// evictions is how many items the servers have evicted meanwhile: of those that both snapshots have figures of.
func evictions(before, after []sessfs.ServerStatus) (n uint64) {
	old := make(map[string]uint64)
	for _, s := range before {
		if s.Up {
			old[s.Address] = s.Evictions
		}
	}
	for _, s := range after {
		if o, known := old[s.Address]; known && s.Up && s.Evictions > o {
			n += s.Evictions - o
		}
	}
	return n
}
