// Package hist counts how long things took, in fixed buckets whose bounds double: cheap enough for every request of the
// kernel (two atomic additions, no allocation), and precise enough for percentiles of what lasts from microseconds to a
// minute.
//
// The bounds are the same for all histograms of all daemons, so that they may be added up.
package hist

import (
	"math/bits"
	"sync/atomic"
	"time"
)

const (
	firstBits = 12 // the first bucket has what took 2^12 ns (4.096 µs) at most
	finite    = 25 // buckets with a bound; the last of them has what took 2^36 ns (68.7 s) at most
	buckets   = finite + 1
)

// Bounds returns the upper bounds, inclusive, of all buckets but the last, which has none.
func Bounds() []time.Duration {
	all := make([]time.Duration, finite)
	for i := range all {
		all[i] = bound(i)
	}
	return all
}

func bound(i int) time.Duration { return 1 << (firstBits + i) }

// Hist is a histogram of durations. The zero value is empty. All methods may be called at any time.
type Hist struct {
	counts [buckets]atomic.Uint64
	sum    atomic.Int64 // nanoseconds
}

// Observe counts one duration; one below zero counts as zero.
func (h *Hist) Observe(d time.Duration) {
	d = max(d, 0)
	h.counts[bucket(d)].Add(1)
	h.sum.Add(int64(d))
}

// Since is Observe for the time since an instant of Now.
func (h *Hist) Since(start Instant) { h.Observe(time.Duration(Now() - start)) }

func bucket(d time.Duration) int {
	if d <= 1<<firstBits {
		return 0
	}
	return min(bits.Len64(uint64(d-1))-firstBits, finite)
}

// Instant is a point in time of the monotonic clock, in nanoseconds since the process began.
type Instant int64

var epoch = time.Now()

// Now is the present Instant, for half of what time.Now costs.
func Now() Instant { return Instant(time.Since(epoch)) }

// Snapshot is what a histogram had counted.
type Snapshot struct {
	Count   uint64        `json:"count"`
	Sum     time.Duration `json:"sum_ns"`
	Buckets []uint64      `json:"buckets"` // bucket i: 2^(12+i) ns at most and more than the one before; those that are empty to the end are left out
}

// Snapshot returns what was counted so far.
func (h *Hist) Snapshot() Snapshot {
	var s Snapshot
	var all [buckets]uint64
	used := 0
	for i := range all {
		if all[i] = h.counts[i].Load(); all[i] > 0 {
			s.Count += all[i]
			used = i + 1
		}
	}
	s.Buckets = append([]uint64{}, all[:used]...)
	s.Sum = time.Duration(h.sum.Load())
	return s
}

// Sub is what was counted since an earlier snapshot. Where that is of another process, it is what this one counted in all.
func (s Snapshot) Sub(old Snapshot) Snapshot {
	if old.Count > s.Count || len(old.Buckets) > len(s.Buckets) {
		return s
	}
	d := Snapshot{Count: s.Count - old.Count, Sum: s.Sum - old.Sum, Buckets: append([]uint64{}, s.Buckets...)}
	for i, n := range old.Buckets {
		if n > d.Buckets[i] {
			return s
		}
		d.Buckets[i] -= n
	}
	return d
}

// Add is what two histograms have counted together.
func (s Snapshot) Add(t Snapshot) Snapshot {
	if len(s.Buckets) < len(t.Buckets) {
		s, t = t, s
	}
	sum := Snapshot{Count: s.Count + t.Count, Sum: s.Sum + t.Sum, Buckets: append([]uint64{}, s.Buckets...)}
	for i, n := range t.Buckets {
		sum.Buckets[i] += n
	}
	return sum
}

// Mean is the average; 0 where nothing was counted.
func (s Snapshot) Mean() time.Duration {
	if s.Count == 0 {
		return 0
	}
	return s.Sum / time.Duration(s.Count)
}

// Quantile is the duration that a share q of all did not exceed, as a straight line through its bucket has it, as
// Prometheus' histogram_quantile does; 0 where nothing was counted, the last bound where it is longer than that.
func (s Snapshot) Quantile(q float64) time.Duration {
	rank := q * float64(s.Count)
	below := 0.0
	for i, n := range s.Buckets {
		if n > 0 && below+float64(n) >= rank {
			if i == finite {
				break
			}
			low := time.Duration(0)
			if i > 0 {
				low = bound(i - 1)
			}
			return low + time.Duration(float64(bound(i)-low)*(rank-below)/float64(n))
		}
		below += float64(n)
	}
	if s.Count == 0 {
		return 0
	}
	return bound(finite - 1)
}

// Cumulative returns, for each of Bounds, how many took that long or less.
func (s Snapshot) Cumulative() map[time.Duration]uint64 {
	all := make(map[time.Duration]uint64, finite)
	below := uint64(0)
	for i := range finite {
		if i < len(s.Buckets) {
			below += s.Buckets[i]
		}
		all[bound(i)] = below
	}
	return all
}
