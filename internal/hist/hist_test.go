package hist

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// Each bound belongs to its bucket, a nanosecond more to the next.
func TestBuckets(t *testing.T) {
	for i, b := range Bounds() {
		for _, d := range []time.Duration{b, b - 1} {
			if got := bucket(d); got != i && !(i > 0 && d == bound(i-1)) {
				t.Errorf("%v is in bucket %d, not %d", d, got, i)
			}
		}
		if got := bucket(b + 1); got != i+1 {
			t.Errorf("%v is in bucket %d, not %d", b+1, got, i+1)
		}
	}
	for d, want := range map[time.Duration]int{0: 0, 1: 0, time.Hour: finite, 1<<63 - 1: finite} {
		if got := bucket(d); got != want {
			t.Errorf("%v is in bucket %d, not %d", d, got, want)
		}
	}
}

// Quantiles are right within their bucket, that is within a factor of two.
func TestQuantile(t *testing.T) {
	var h Hist
	var all []time.Duration
	var sum time.Duration
	for range 10000 {
		d := time.Duration(rand.ExpFloat64() * float64(3*time.Millisecond))
		h.Observe(d)
		all, sum = append(all, d), sum+d
	}
	slices.Sort(all)
	s := h.Snapshot()
	if s.Count != 10000 || s.Sum != sum || s.Mean() != sum/10000 {
		t.Errorf("counted %d of %v, mean %v; not 10000 of %v", s.Count, s.Sum, s.Mean(), sum)
	}
	for _, q := range []float64{0.5, 0.9, 0.99, 0.999} {
		got, want := s.Quantile(q), all[int(q*10000)-1]
		if bucket(got) != bucket(want) {
			t.Errorf("quantile %v is %v, not near %v", q, got, want)
		}
	}
	if got := (Snapshot{}).Quantile(0.99); got != 0 {
		t.Errorf("quantile of nothing: %v", got)
	}
	h = Hist{}
	h.Observe(time.Hour)
	if got := h.Snapshot().Quantile(0.5); got != bound(finite-1) {
		t.Errorf("quantile of an hour: %v", got)
	}
}

func TestArithmetic(t *testing.T) {
	var h Hist
	h.Observe(time.Millisecond)
	h.Observe(-5)
	old := h.Snapshot()
	h.Observe(time.Second)
	h.Observe(time.Millisecond)
	s := h.Snapshot()
	d := s.Sub(old)
	if d.Count != 2 || d.Sum != 1001*time.Millisecond || d.Cumulative()[bound(8)] != 1 || d.Cumulative()[bound(finite-1)] != 2 {
		t.Errorf("the difference is %+v", d)
	}
	if sum := d.Add(old); !slices.Equal(sum.Buckets, s.Buckets) || sum.Count != s.Count || sum.Sum != s.Sum {
		t.Errorf("the sum is %+v, not %+v", sum, s)
	}
	if sum := old.Add(d); !slices.Equal(sum.Buckets, s.Buckets) {
		t.Errorf("the sum is %+v, not %+v", sum, s)
	}
	if again := old.Sub(s); again.Count != old.Count {
		t.Errorf("after a restart: %+v", again)
	}
}

// Nothing is lost between goroutines, and nothing is allocated.
func TestObserve(t *testing.T) {
	var h Hist
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 1000 {
				h.Observe(time.Duration(i) * time.Microsecond)
			}
		})
	}
	wg.Wait()
	if s := h.Snapshot(); s.Count != 4000 || s.Sum != 4*999*500*time.Microsecond {
		t.Errorf("%d of %v", s.Count, s.Sum)
	}
	if n := testing.AllocsPerRun(100, func() { h.Since(Now()) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkSince is what one measured operation costs: two looks at the clock and a count.
func BenchmarkSince(b *testing.B) {
	var h Hist
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			h.Since(Now())
		}
	})
}

func BenchmarkSinceAlone(b *testing.B) {
	var h Hist
	for b.Loop() {
		h.Since(Now())
	}
}
