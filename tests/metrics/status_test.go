package metrics

import (
	"testing"
	"time"

	"sessfs/internal/hist"
	"sessfs/internal/testkit"
)

// `sessfs status --json` has the histograms, and they have every request, wait and round trip, once.
func TestStatusHasHistograms(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := testkit.StartPHP(t, s.Host, nil, hold, "counted", "300")
	b := testkit.StartPHP(t, s.Host, nil, hold, "counted", "300")
	a.Wait(t, time.Minute)
	b.Wait(t, time.Minute)
	for range 20 {
		testkit.PHP(t, s.Host, start+`$_SESSION['v'] = 1; session_write_close();`, "one")
	}
	var f struct {
		Files struct {
			Operations map[string]uint64
			Latency    map[string]hist.Snapshot
		}
		Locking struct {
			Waits     uint64
			WaitTimes hist.Snapshot `json:"wait_times"`
		}
		RoundTrips     uint64                   `json:"round_trips_waited"`
		RoundTripTimes map[string]hist.Snapshot `json:"round_trip_times"`
	}
	testkit.Until(t, 10*time.Second, "all requests are answered", func() bool {
		s.Status(&f)
		return f.Files.Latency["RELEASE"].Count == f.Files.Operations["RELEASE"]
	})
	for _, op := range []string{"OPEN", "GETATTR", "SETLKW", "READ", "WRITE", "LOOKUP", "CREATE"} {
		if n := f.Files.Operations[op]; f.Files.Latency[op].Count != n || n == 0 {
			t.Errorf("%s: %d requests, %d times", op, n, f.Files.Latency[op].Count)
		}
	}
	if w := f.Locking.WaitTimes; w.Count != f.Locking.Waits || w.Count == 0 || w.Sum < 200*time.Millisecond || w.Quantile(1) < 200*time.Millisecond {
		t.Errorf("%d waits, times %+v", f.Locking.Waits, w)
	}
	if l := f.Files.Latency["SETLKW"]; l.Sum < f.Locking.WaitTimes.Sum {
		t.Errorf("SETLKW took %v, the waits for locks %v", l.Sum, f.Locking.WaitTimes.Sum)
	}
	if l := f.Files.Latency["GETATTR"]; l.Mean() > 50*time.Millisecond || l.Sum <= 0 {
		t.Errorf("GETATTR took %v", l.Mean())
	}
	var trips uint64
	for name, h := range f.RoundTripTimes {
		if h.Count == 0 || h.Quantile(0.5) <= 0 {
			t.Errorf("round trips to %s: %+v", name, h)
		}
		trips += h.Count
	}
	if len(f.RoundTripTimes) != 2 || trips < f.RoundTrips {
		t.Errorf("%d servers, %d round trips timed, %d waited for", len(f.RoundTripTimes), trips, f.RoundTrips)
	}
}
