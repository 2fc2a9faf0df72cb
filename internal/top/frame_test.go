package top

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"sessfs"
	"sessfs/fusefs"
	"sessfs/internal/hist"
	"sessfs/internal/status"
	"sessfs/locking"
)

var now = time.Date(2026, 3, 4, 12, 31, 5, 0, time.UTC)

func ago(d time.Duration) *time.Time {
	t := now.Add(-d)
	return &t
}

// times are n durations of d, and one of 100 times that.
func times(n int, d time.Duration) hist.Snapshot {
	var h hist.Hist
	for range n {
		h.Observe(d)
	}
	h.Observe(100 * d)
	return h.Snapshot()
}

// busy is a view of a mount with all kinds of things going on.
func busy() View {
	before := &status.Report{Version: "v1.2.3", Host: "web1", PID: 7, Mountpoint: "/var/lib/php/sessions", Started: now.Add(-76 * time.Hour), Uptime: 76 * time.Hour, Store: "memcached",
		Servers: []sessfs.ServerStatus{
			{Name: "cache1", Address: "10.0.0.1:11211", Up: true, Protocol: "meta", RoundTrips: 1000, Hits: 5000, Bytes: 300 << 20, LimitBytes: 1 << 30},
			{Name: "cache2", Address: "10.0.0.2:11211", Up: true, Protocol: "meta", RoundTrips: 1000, Hits: 5000, Bytes: 310 << 20, LimitBytes: 1 << 30},
			{Name: "cache3", Address: "10.0.0.3:11211"}},
		Files:          fusefs.Stats{Operations: map[string]uint64{"INIT": 1, "LOOKUP": 100, "OPEN": 100, "WRITE": 100, "SETLKW": 100, "RELEASE": 100, "GETATTR": 200, "CREATE": 3}, Latency: map[string]hist.Snapshot{}},
		RoundTripTimes: map[string]hist.Snapshot{}, Requests: 100}
	last := *before
	last.Uptime += 2 * time.Second
	last.Servers = []sessfs.ServerStatus{
		{Name: "cache1", Address: "10.0.0.1:11211", Up: true, Protocol: "meta", RoundTrips: 3000, Hits: 9000, Bytes: 301 << 20, LimitBytes: 1 << 30},
		{Name: "cache2", Address: "10.0.0.2:11211", Up: true, Protocol: "meta", RoundTrips: 3002, Hits: 9000, Bytes: 311 << 20, LimitBytes: 1 << 30, ToMend: 1234},
		{Name: "cache3", Address: "10.0.0.3:11211", DownSince: ago(42 * time.Second), LastError: "dial tcp 10.0.0.3:11211: connect: connection refused"}}
	last.RoundTripTimes = map[string]hist.Snapshot{"cache1": times(2000, 200*time.Microsecond), "cache2": times(2000, 300*time.Microsecond)}
	last.Files = fusefs.Stats{OpenFiles: 14, OpenSessions: 12, Errors: 3, LastError: ago(41 * time.Second), Operations: map[string]uint64{"INIT": 1, "LOOKUP": 2100, "OPEN": 2100, "WRITE": 2100, "SETLKW": 2100, "RELEASE": 2100, "GETATTR": 4200, "CREATE": 23},
		Latency: map[string]hist.Snapshot{"OPEN": times(1999, 400*time.Microsecond), "SETLKW": times(1999, 20*time.Microsecond)}}
	last.Requests = 2100
	last.Locking = locking.Stats{Leases: 5, Kept: 2, Waiting: 4, Waits: 40}
	const a, b, c = "aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc"
	last.Locks = []locking.Lock{{Session: a, PID: 4001, Kind: "exclusive", For: 42 * time.Second}, {Session: a, PID: 4002, Kind: "exclusive", Waiting: true, For: 30 * time.Second},
		{Session: a, PID: 4003, Kind: "exclusive", Waiting: true, For: 20 * time.Second}, {Session: b, PID: 4004, Kind: "exclusive", Waiting: true, For: 12 * time.Second}}
	last.Contention = locking.Contention{
		Held: []locking.HeldLock{{Session: a, PID: 4001, Process: "php-fpm8.2", Kind: "exclusive", For: 42 * time.Second, Waiters: 2, Longest: 30 * time.Second},
			{Session: c, PID: 4005, Process: "php\x1b[2Jé", Kind: "exclusive", For: 3 * time.Second}},
		Elsewhere: []locking.RemoteLock{{Session: b, Host: "web2", PID: 88, Since: now.Add(-15 * time.Second), Waiters: 1, Longest: 12 * time.Second}},
		Waits:     []locking.Wait{{Session: a, PID: 4002, Process: "php-fpm8.2", Kind: "exclusive", For: 30 * time.Second}, {Session: b, PID: 4004, Process: "php-fpm8.2", Kind: "exclusive", For: 12 * time.Second}}}
	last.Hottest = []locking.HotSession{{Session: a, Requests: 900}, {Session: b, Requests: 40, Missing: 3}, {Session: c, Requests: 2}}
	return View{Now: now, Last: &last, Before: before, Asked: now, Interval: time.Second}
}

func text(lines []Line) string {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(strings.TrimRight(l.String(), " ") + "\n")
	}
	return b.String()
}

func words(s string) string { return strings.Join(strings.Fields(s), " ") }

// In 80 columns and 24 lines all sections have their most important lines, and the figures are right.
func TestFrame(t *testing.T) {
	lines := Frame(busy(), 80, 24)
	got := text(lines)
	if len(lines) != 24 {
		t.Errorf("%d lines", len(lines))
	}
	for _, want := range []string{
		"web1:/var/lib/php/sessions", "v1.2.3 up 3d4h 12:31:05",
		"! cache server cache3 is down for 42s: dial tcp 10.0.0.3:11211: connect: connec",
		"(+3 more: sessfs status)",
		"requests 1000/s sessions 12 open locks 3 held, 2 kept waiting 4", "errors 3 (1.5/s)",
		"SERVER STATE P50 P99 RATE/s HITS/s EVICTED MEMORY",
		"cache3 DOWN 42s - - 0.0 - - -",
		"cache2 up, 1234 to mend", "1001", "311/1024M 30%",
		"LONG LOCK HOLDER PROCESS LOCK HELD WAITING UP TO",
		"aaaaaaaaaaaa pid 4001 php-fpm8.2 exclusive 42s 2 30s",
		"bbbbbbbbbbbb pid 88 of web2 - elsewhere 15s 1 12s",
		"WAITING PID PROCESS LOCK FOR LOCKED BY", "aaaaaaaaaaaa 4002 php-fpm8.2 exclusive 30s pid 4001",
		"OPERATION RATE/s P50 P99 TOTAL", "GETATTR (stat) 2000 - - 4200",
		"HOT SESSION LAST MINUTE WAITING LOCKED BY", "aaaaaaaaaaaa 900 2 pid 4001",
		"q quit p pause h help s sort: rate every 1s",
	} {
		if !strings.Contains(words(got), words(want)) {
			t.Errorf("there is no %q", want)
		}
	}
	if t.Failed() {
		t.Log("\n" + got)
	}
	if strings.Contains(got, "\x1b") || strings.Contains(got, "é") {
		t.Errorf("what a process calls itself reaches the terminal: %q", got)
	}
}

// A quantile is of the interval, by the histogram's bounds.
func TestQuantiles(t *testing.T) {
	got := words(text(Frame(busy(), 120, 0)))
	h := times(1999, 400*time.Microsecond)
	want := fmt.Sprintf("OPEN 1000 %s %s 2100", short(h.Quantile(0.5)), short(h.Quantile(0.99)))
	if !strings.Contains(got, want) {
		t.Errorf("there is no %q in %s", want, got)
	}
	if !strings.Contains(got, "bbbbbbbbbbbb >=40 1 pid 88 of web2") {
		t.Errorf("a count that may be greater is not shown as such: %s", got)
	}
}

// No figure is by second where it is not known over which time it is.
func TestOfAnotherDaemon(t *testing.T) {
	for name, change := range map[string]func(*View){
		"the first":       func(v *View) { v.Before = nil },
		"another process": func(v *View) { v.Before.PID++ },
		"another start":   func(v *View) { v.Before.Started = now },
		"the same answer": func(v *View) { v.Before = v.Last },
	} {
		v := busy()
		change(&v)
		got := words(text(Frame(v, 120, 0)))
		if !strings.Contains(got, "requests -/s") || !strings.Contains(got, "OPEN - - - 2100") || !strings.Contains(got, "cache1 up - - - -") {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestStates(t *testing.T) {
	v := busy()
	v.Gone, v.Since = errors.New("no daemon answers"), now.Add(-5*time.Second)
	if got := words(text(Frame(v, 80, 24))); !strings.Contains(got, "! the daemon does not answer for 5s: no daemon answers do:") || !strings.Contains(got, "figures of 12:31:05") || !strings.Contains(got, "sessions 12 open") {
		t.Errorf("while the daemon is away: %s", got)
	}
	if got := words(text(Frame(View{Now: now, Gone: v.Gone, Since: now, Interval: time.Second}, 80, 24))); !strings.Contains(got, "the daemon does not answer") || strings.Contains(got, "all well") {
		t.Errorf("with a daemon that never answered: %s", got)
	}
	v = busy()
	v.Last = &status.Report{Host: "web1", Mountpoint: "/s", Store: "embedded"}
	if got := words(text(Frame(v, 80, 24))); !strings.Contains(got, "all well") || !strings.Contains(got, "SERVER none: sessions are kept in the daemon") || !strings.Contains(got, "LONG LOCK none") || !strings.Contains(got, "WAITING nobody") {
		t.Errorf("with nothing going on: %s", got)
	}
	v = busy()
	v.Paused = true
	if got := text(Frame(v, 80, 24)); !strings.Contains(got, "PAUSED") || !strings.Contains(got, "p go on") {
		t.Errorf("paused: %s", got)
	}
	v.Help = true
	if lines := Frame(v, 80, 24); !strings.Contains(text(lines), "sessfs ls | grep HASH") || !strings.Contains(text(lines), "HOT SESSION  opened most") {
		t.Errorf("help: %s", text(lines))
	}
}

func TestSort(t *testing.T) {
	first := func(s Sort) string {
		v := busy()
		v.Sort = s
		_, rest, _ := strings.Cut(text(Frame(v, 80, 0)), "OPERATION")
		return strings.Fields(strings.Split(rest, "\n")[1])[0]
	}
	for s, want := range map[Sort]string{ByRate: "GETATTR", ByP99: "OPEN", ByName: "CREATE"} {
		if got := first(s); got != want {
			t.Errorf("by %v the first is %s, not %s", s, got, want)
		}
	}
}

// What does not fit is cut, marked, and the least important first.
func TestNarrow(t *testing.T) {
	v := busy()
	v.Last.Mountpoint = "/srv/a/very/long/path/to/where/the/sessions/are"
	got := text(Frame(v, 50, 24))
	if !strings.Contains(strings.Split(got, "\n")[0], "~") || !strings.Contains(got, "the/sessions/are") {
		t.Errorf("the title: %s", got)
	}
	for _, want := range []string{"DOWN", "aaaaaaaaaaaa", "pid 4001", "42s"} {
		if !strings.Contains(got, want) {
			t.Errorf("there is no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "HITS/s") || strings.Contains(got, "exclusive") {
		t.Errorf("the columns that matter least are there:\n%s", got)
	}
}

func TestColour(t *testing.T) {
	l := Line{{"DOWN", Bad}, {" x", Plain}}
	if got := l.ansi(true); got != "\x1b[1;31mDOWN\x1b[0m x" {
		t.Errorf("%q", got)
	}
	for _, style := range []Style{Plain, Strong, Good, Bad, Faint} {
		if got := (Line{{"x", style}}).ansi(false); strings.Contains(got, "3") {
			t.Errorf("a colour without colours: %q", got)
		}
	}
}

func fits(t *testing.T, v View, width, height int) {
	t.Helper()
	lines := Frame(v, width, height)
	if height > 0 && len(lines) > height {
		t.Errorf("%d lines in %d by %d", len(lines), width, height)
	}
	for _, l := range lines {
		if l.Width() > width || len(l.String()) != l.Width() || strings.ContainsFunc(l.String(), func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%d columns in %d by %d: %q", l.Width(), width, height, l)
		}
	}
}

// Every line fits, in every size.
func TestEverySize(t *testing.T) {
	views := map[string]View{"busy": busy(), "none": {Now: now}}
	v := busy()
	v.Gone = errors.New("gone\nand away")
	views["gone"] = v
	v.Help, v.Paused = true, true
	views["help"] = v
	for _, v := range views {
		for width := range 140 {
			for height := range 50 {
				fits(t, v, width, height)
			}
		}
	}
	for _, size := range [][2]int{{-1, 5}, {5, -1}, {0, 0}} {
		if l := Frame(busy(), size[0], size[1]); len(l) != 0 {
			t.Errorf("%v: %v", size, l)
		}
	}
	if !strings.Contains(text(Frame(busy(), 80, 3)), "DOWN") && !strings.Contains(text(Frame(busy(), 80, 3)), "is down") {
		t.Errorf("three lines do not say what is wrong:\n%s", text(Frame(busy(), 80, 3)))
	}
}

func FuzzFrame(f *testing.F) {
	f.Add(80, 24, uint64(1), "cache1", "php")
	f.Add(1, 1, uint64(2), "", "\x1b[2J")
	f.Add(79, 0, uint64(3), strings.Repeat("long", 60), "é")
	f.Fuzz(func(t *testing.T, width, height int, seed uint64, server, process string) {
		width, height = width%300, height%200
		r := rand.New(rand.NewPCG(seed, 0))
		v := busy()
		v.Last.Host, v.Last.Version, v.Last.Mountpoint = process, server, "/"+process
		for i := range r.IntN(20) {
			v.Last.Servers = append(v.Last.Servers, sessfs.ServerStatus{Name: server + fmt.Sprint(i), Up: r.IntN(2) == 0, LastError: process, Evictions: r.Uint64(), Bytes: r.Uint64(), LimitBytes: r.Uint64(), Hits: r.Uint64(), ToMend: int64(r.Uint64())})
			v.Last.Contention.Held = append(v.Last.Contention.Held, locking.HeldLock{Session: fmt.Sprint(r.Uint32()), PID: r.Uint32(), Process: process, For: time.Duration(r.Uint64()), Waiters: r.IntN(3), Longest: time.Duration(r.Uint64())})
			v.Last.Contention.Elsewhere = append(v.Last.Contention.Elsewhere, locking.RemoteLock{Host: server, PID: r.Uint32(), Longest: time.Duration(r.Uint64()), Waiters: r.IntN(3)})
			v.Last.Hottest = append(v.Last.Hottest, locking.HotSession{Session: fmt.Sprint(i), Requests: r.Uint32(), Missing: r.Uint32N(2)})
			v.Last.Files.Operations[fmt.Sprint("OPCODE_", i)] = r.Uint64()
		}
		v.Help, v.Paused, v.Sort = r.IntN(5) == 0, r.IntN(2) == 0, Sort(r.IntN(int(sorts)))
		fits(t, v, width, height)
	})
}

// A plain snapshot has the first rows of each section, and says how many there are.
func TestPlain(t *testing.T) {
	v := busy()
	for i := range 40 {
		v.Last.Hottest = append(v.Last.Hottest, locking.HotSession{Session: fmt.Sprint("more", i), Requests: 1})
	}
	got := text(Frame(v, 120, 0))
	if !strings.Contains(got, "LOCKED BY  +28 more") || !strings.Contains(got, "more11 ") || strings.Contains(got, "more12 ") {
		t.Error(got)
	}
}
