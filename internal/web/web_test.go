package web

import (
	"context"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sessfs"
	"sessfs/backend"
	"sessfs/fusefs"
	"sessfs/internal/hist"
	"sessfs/internal/metrics"
	"sessfs/locking"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a daemon that is busy.
type world struct {
	begun                time.Time
	n                    uint64
	open, write, waits   hist.Hist
	trips                [2]hist.Hist
	errors, lost, evicts uint64
	notReady             error
	servers              []sessfs.ServerStatus
}

func newWorld(begun time.Time) *world {
	return &world{begun: begun, servers: []sessfs.ServerStatus{
		{Name: "cache1", Address: "10.0.0.11:11211", Up: true, Version: "1.6.18", LimitBytes: 1 << 30},
		{Name: "cache2", Address: "10.0.0.12:11211", Up: true, Version: "1.6.18", LimitBytes: 1 << 30},
	}}
}

// pass lets so many sessions be used, each in about that time.
func (w *world) pass(sessions int, typical time.Duration) {
	w.n += uint64(sessions)
	for range 200 {
		d := time.Duration((0.5 + rand.ExpFloat64()) * float64(typical))
		w.open.Observe(d)
		w.write.Observe(d * 3 / 2)
		w.waits.Observe(20 * d)
		w.trips[0].Observe(d / 2)
		w.trips[1].Observe(d * 2 / 3)
	}
	for i := range w.servers {
		w.servers[i].Bytes = 200<<20 + w.n*100
		w.servers[i].Items = 1000 + w.n/10
		w.servers[i].Evictions = w.evicts
	}
}

func (w *world) snapshot() *metrics.Snapshot {
	s := &metrics.Snapshot{Version: "1.2.3", Mountpoint: "/var/lib/php/sessions", Started: w.begun, Mounted: true, NotReady: w.notReady,
		Files: fusefs.Stats{Operations: map[string]uint64{"OPEN": w.n, "WRITE": w.n, "GETATTR": 2 * w.n},
			Latency:   map[string]hist.Snapshot{"OPEN": w.open.Snapshot(), "WRITE": w.write.Snapshot()},
			OpenFiles: 12, OpenSessions: 11, Errors: w.errors, LostStores: w.lost},
		Locking:    locking.Stats{Leases: 9, Waiting: 2, Commits: w.n, WaitTimes: w.waits.Snapshot()},
		OldestWait: 1500 * time.Millisecond, OldestHold: 2 * time.Second, Copies: &backend.Copies{Replicas: 2, Lists: 1}, RoundTrips: make(map[string]hist.Snapshot)}
	for i, sv := range w.servers {
		s.Servers = append(s.Servers, sv)
		s.RoundTrips[sv.Name] = w.trips[i%2].Snapshot()
	}
	return s
}

// anHour is a page after an hour of changing load.
func anHour(now time.Time) (*world, Source) {
	w := newWorld(now.Add(-Span - 5*time.Minute))
	h := NewHistory()
	for at := w.begun; at.Before(now); at = at.Add(Every) {
		h.Add(at, w.snapshot())
		m := at.Sub(w.begun).Minutes()
		w.pass(int(3000+1500*math.Sin(m/9)+300*rand.Float64()), time.Duration(700+300*math.Sin(m/7))*time.Microsecond)
		if m > 40 && m < 43 {
			w.errors += 2
		}
	}
	w.pass(3000, 700*time.Microsecond)
	locks := []locking.Lock{{Session: "a1b2c3d4e5f6", PID: 4242, Kind: "exclusive", For: 2 * time.Second}, {Session: "a1b2c3d4e5f6", PID: 4243, Kind: "exclusive", Waiting: true, For: 40 * time.Second}}
	return w, Source{Host: "web1", Snapshot: func(context.Context) *metrics.Snapshot { return w.snapshot() },
		Locks: func(int) []locking.Lock { return append([]locking.Lock{}, locks...) }, History: h}
}

func get(t *testing.T, s Source, method, path string) (*http.Response, string) {
	t.Helper()
	rec := httptest.NewRecorder()
	Page(s).ServeHTTP(rec, httptest.NewRequest(method, path, nil))
	b, err := io.ReadAll(rec.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return rec.Result(), string(b)
}

func has(t *testing.T, page string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(page, text) {
			t.Errorf("the page has no %q", text)
		}
	}
}

func TestPage(t *testing.T) {
	w, s := anHour(time.Now())
	res, page := get(t, s, "GET", "/")
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/html; charset=utf-8" || res.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%d %v", res.StatusCode, res.Header)
	}
	has(t, page, "Ready: sessfs on web1", "/var/lib/php/sessions", "version 1.2.3", "up 1 h 5 min", "2 of 2", "cache1", "10.0.0.12:11211", ">OPEN<", "<td>4243</td><td>exclusive, waiting</td><td class=\"n\">40 s</td>")
	for _, c := range charts {
		has(t, page, c.Title)
	}
	// One path of each line has some 360 points, over the hour.
	if n := strings.Count(page, "L"); n < 360*len(charts) {
		t.Errorf("the charts have %d points", n)
	}
	if strings.Contains(page, "NaN") || strings.Contains(page, "Inf") || strings.Contains(page, "a1b2c3") || strings.Contains(page, "style=") || strings.Contains(page, "onload") {
		t.Error("the page has something that it must not have")
	}
	w.notReady, w.lost = errors.New("2 of 2 cache servers are down"), 3
	since := time.Now().Add(-90 * time.Second)
	w.servers[0].Up, w.servers[0].DownSince = false, &since
	w.servers[1].ToMend = 17
	_, page = get(t, s, "GET", "/")
	has(t, page, "Not ready: sessfs on web1", "2 of 2 cache servers are down", "1 of 2", "down for 1 min 30 s", "up, 17 to mend", `<div class="tile bad"><h2>Lost</h2><p class="value">3</p>`)
}

// A daemon that has just started has a page, too, and one without servers.
func TestPageOfNothing(t *testing.T) {
	w := newWorld(time.Now())
	w.servers = nil
	_, page := get(t, Source{Host: "web1", Snapshot: func(context.Context) *metrics.Snapshot {
		s := w.snapshot()
		s.Copies, s.Files.Operations = nil, nil
		return s
	}, Locks: func(int) []locking.Lock { return nil }, History: NewHistory()}, "GET", "/")
	has(t, page, "none yet", "none is held or waited for")
	if strings.Contains(page, "Cache servers") || strings.Contains(page, "NaN") {
		t.Errorf("the page is\n%s", page)
	}
}

// What others choose is text, never markup.
func TestEscaping(t *testing.T) {
	const evil = `"><script>alert(1)</script>'`
	w, s := anHour(time.Now())
	s.Host = evil
	w.servers[0].Name, w.servers[0].Address, w.servers[0].Version = evil, evil+"a", evil
	w.notReady = errors.New(evil)
	inner := s.Snapshot
	s.Snapshot = func(ctx context.Context) *metrics.Snapshot {
		m := inner(ctx)
		m.Mountpoint, m.Files.Operations[evil] = evil, 1
		return m
	}
	_, page := get(t, s, "GET", "/")
	if n := strings.Count(page, "<script"); n != 1 || strings.Contains(page, evil) || !strings.Contains(page, "&lt;script&gt;alert(1)") {
		t.Errorf("%d scripts in\n%s", n, page)
	}
}

func TestOtherPaths(t *testing.T) {
	_, s := anHour(time.Now())
	for _, c := range []struct {
		method, path string
		code         int
		kind         string
	}{
		{"GET", "/style.css", 200, "text/css; charset=utf-8"}, {"GET", "/live.js", 200, "text/javascript; charset=utf-8"}, {"GET", "/icon.svg", 200, "image/svg+xml"},
		{"HEAD", "/", 200, "text/html; charset=utf-8"}, {"POST", "/", 405, ""}, {"DELETE", "/style.css", 405, ""}, {"GET", "/page.html", 404, ""}, {"GET", "/assets/", 404, ""},
	} {
		res, _ := get(t, s, c.method, c.path)
		if res.StatusCode != c.code || c.kind != "" && res.Header.Get("Content-Type") != c.kind {
			t.Errorf("%s %s: %d %s", c.method, c.path, res.StatusCode, res.Header.Get("Content-Type"))
		}
	}
}

// The history forgets what is older than an hour, and takes no more memory after a week than after an hour.
func TestHistoryIsBounded(t *testing.T) {
	w := newWorld(time.Now())
	h := NewHistory()
	at := w.begun
	fill := func(n int) {
		for range n {
			h.Add(at, w.snapshot())
			w.n += 100
			at = at.Add(Every)
		}
	}
	fill(2 * maxSamples)
	before := heap()
	fill(7 * 24 * 360)
	if after := heap(); after > before+256<<10 {
		t.Errorf("the heap grew from %d to %d bytes", before, after)
	}
	list, since := h.view(totals{at, w.snapshot()})
	if len(list) != maxSamples || at.Sub(list[0].at) > Span || at.Sub(since.at) > recent+Every || at.Sub(since.at) < recent {
		t.Errorf("%d samples, the first %v old; rates over %v", len(list), at.Sub(list[0].at), at.Sub(since.at))
	}
	for _, s := range list {
		if s.values[started] != 10 {
			t.Fatalf("%v a second at %v", s.values[started], s.at)
		}
	}
	runtime.KeepAlive(h)
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// Rates and percentiles are of what happened meanwhile; nothing is made up where nothing happened.
func TestBetween(t *testing.T) {
	w := newWorld(time.Now())
	w.servers = append(w.servers, sessfs.ServerStatus{Name: "cache1", Address: "10.0.0.1:1", Leaving: true, Up: false})
	a := totals{w.begun, w.snapshot()}
	quiet := between(a, totals{w.begun.Add(time.Second), w.snapshot()}).values
	if quiet[started] != 0 || !math.IsNaN(float64(quiet[openMost])) || !math.IsNaN(float64(quiet[tripMost])) || quiet[down] != 0 {
		t.Errorf("of a quiet second: %v", quiet)
	}
	w.pass(500, time.Millisecond)
	w.errors, w.lost, w.evicts = 4, 1, 6
	w.servers[0].Evictions, w.servers[1].Evictions = 6, 3
	b := totals{w.begun.Add(10 * time.Second), w.snapshot()}
	v := between(a, b).values
	if v[started] != 50 || v[stored] != 50 || v[failed] != 24 || v[lost] != 6 || v[evicted] != 54 || v[held] != 9 || v[waiting] != 2 {
		t.Errorf("figures are %v", v)
	}
	if v[openHalf] < 0.0005 || v[openHalf] > 0.003 || v[openMost] <= v[openHalf] || v[tripMost] <= v[tripHalf] || v[memory] < 19 || v[memory] > 20 {
		t.Errorf("times and shares are %v", v)
	}
	w.servers[1].Up = false
	if v := between(b, totals{b.at.Add(time.Second), w.snapshot()}).values; v[down] != 1 || v[evicted] != 0 {
		t.Errorf("with a server down: %v", v)
	}
}

func TestFormats(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{number(0), "0"}, {number(0.25), "0.25"}, {number(3), "3"}, {number(12.34), "12.3"}, {number(9999), "9999"}, {number(12345), "12.3 k"}, {number(23e6), "23 M"}, {number(math.NaN()), "–"},
		{seconds(0), "0"}, {seconds(0.00000409), "4 µs"}, {seconds(0.0015), "1.5 ms"}, {seconds(2), "2 s"}, {seconds(200), "3 min 20 s"}, {seconds(math.NaN()), "–"},
		{percent(0), "0 %"}, {percent(99.6), "100 %"}, {bytesOf(0), "0 B"}, {bytesOf(1536), "1.5 KiB"}, {bytesOf(3 << 30), "3 GiB"},
		{span(26*time.Hour + time.Minute), "26 h 1 min"}, {span(50 * time.Hour), "2 d 2 h"}, {span(5 * time.Second), "5 s"},
	} {
		if c.got != c.want {
			t.Errorf("%q, not %q", c.got, c.want)
		}
	}
	for high, want := range map[float64]float64{1: 0.2, 4: 1, 5: 1, 6: 2, 11: 5, 100: 20, 0.001: 0.0002, 838: 200} {
		if got := stepFor(high); math.Abs(got-want) > 1e-12 {
			t.Errorf("the step to %v is %v, not %v", high, got, want)
		}
	}
}

// A gap is a gap, and a sample between two gaps a dot.
func TestTrace(t *testing.T) {
	at := time.Now()
	var list []sample
	for _, v := range []float64{1, 2, math.NaN(), 3, math.NaN(), 4, 5} {
		s := sample{at: at}
		s.values[started] = float32(v)
		list = append(list, s)
		at = at.Add(Every)
	}
	list[6].at = list[6].at.Add(2 * longestGap)
	got := trace(list, started, "line0", true, func(x time.Time) float64 { return x.Sub(list[0].at).Seconds() }, func(y float64) float64 { return y })
	want := `<path class="area" d="M0.0 0.0L0.0 1.0L10.0 2.0L10.0 0.0ZM30.0 0.0L30.0 3.0L30.0 0.0ZM50.0 0.0L50.0 4.0L50.0 0.0ZM120.0 0.0L120.0 5.0L120.0 0.0Z"/>` +
		`<path class="line0" d="M0.0 1.0L10.0 2.0M30.0 3.0M50.0 4.0M120.0 5.0"/>` +
		`<circle class="dot line0" cx="30.0" cy="3.0" r="2.5"/><circle class="dot line0" cx="50.0" cy="4.0" r="2.5"/><circle class="dot line0" cx="120.0" cy="5.0" r="2.5"/>`
	if got != want {
		t.Errorf("the trace is\n%s\nnot\n%s", got, want)
	}
}
