package status

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"sessfs"
	"sessfs/backend"
	"sessfs/fusefs"
	"sessfs/locking"
)

var now = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

func before(d time.Duration) *time.Time {
	t := now.Add(-d)
	return &t
}

// well is a report of a mount with nothing wrong.
func well() *Report {
	return &Report{Version: "v1", Host: "web1", PID: 7, Mountpoint: "/s", Started: now.Add(-time.Hour), Store: "memcached",
		Servers: []sessfs.ServerStatus{{Name: "c1", Up: true, Protocol: "meta"}, {Name: "c2", Up: true, Protocol: "meta"}, {Name: "c3", Up: true, Protocol: "meta"}},
		Copies:  &backend.Copies{Replicas: 2, Lists: 1}, Files: fusefs.Stats{OpenSessions: 1}}
}

func down(s *sessfs.ServerStatus) {
	s.Up, s.DownSince, s.LastError = false, before(12*time.Second), "connection refused"
}

// Each thing that can be wrong is said, with what to do; what is long over is not.
func TestProblems(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*Report)
		want  []string // parts of what is said, one for each problem; none: all is well
		do    string
	}{
		"nothing":    {func(*Report) {}, nil, ""},
		"one server": {func(r *Report) { down(&r.Servers[1]) }, []string{"cache server c2 is down for 12s: connection refused"}, "no second one may fail"},
		"two of three": {func(r *Report) { down(&r.Servers[1]); down(&r.Servers[2]) }, []string{"c2 is down", "c3 is down"},
			"too few are left"},
		"all servers": {func(r *Report) { down(&r.Servers[0]); r.Servers = r.Servers[:1] }, []string{"c1 is down"}, "no session can be opened"},
		"one copy":    {func(r *Report) { down(&r.Servers[0]); r.Copies.Replicas = 1 }, []string{"c1 is down"}, "its sessions fail"},
		"one of two":  {func(r *Report) { down(&r.Servers[0]); r.Servers = r.Servers[:2] }, []string{"c1 is down"}, "no second one"},
		"mending":     {func(r *Report) { r.Servers[0].ToMend = 5 }, []string{"c1 is back and gets its copies: 5"}, "restart no other"},
		"to mend":     {func(r *Report) { r.Servers[0].ToMend = -1 }, []string{"c1 is back and is to get"}, "restart no other"},
		"evictions":   {func(r *Report) { r.Servers[2].Evictions = 1 }, []string{"c3 has thrown 1 item away"}, "more memory"},
		"errors": {func(r *Report) { r.Files.Errors, r.Files.LastError = 2, before(9*time.Minute) },
			[]string{"PHP got 2 errors so far, the last 9m0s ago"}, "see the log"},
		"old errors": {func(r *Report) { r.Files.Errors, r.Files.LastError = 2, before(11*time.Minute) }, nil, ""},
		"lost stores": {func(r *Report) { r.Files.LostStores, r.Files.LastLost = 1, before(time.Second) },
			[]string{"could not be stored after close (1 so far)"}, "fails once"},
		"lost locks":                   {func(r *Report) { r.Locking.LocksLost, r.LastLost = 1, before(time.Second) }, []string{"1 lock was lost"}, "paused host"},
		"a lock that nobody waits for": {func(r *Report) { r.Contention.Held = []locking.HeldLock{{Session: "aa", For: time.Hour}} }, nil, ""},
		"a lock for a moment": {func(r *Report) {
			r.Contention.Held = []locking.HeldLock{{Session: "aa", For: 3 * time.Second, Waiters: 9}}
		}, nil, ""},
		"a long lock": {func(r *Report) {
			r.Contention.Held = []locking.HeldLock{{Session: "aabb", PID: 12, Process: "php-fpm\x1b8", For: 75 * time.Second, Waiters: 1}}
		}, []string{"session aabb is locked by pid 12 (php-fpm?8) for 1m15s, and 1 request waits"}, "sessfs unlock aabb frees it"},
		"a long lock elsewhere": {func(r *Report) {
			r.Contention.Elsewhere = []locking.RemoteLock{{Session: "aabb", Host: "web2", PID: 12, Since: now.Add(-time.Minute), Waiters: 2, Longest: 50 * time.Second}}
		}, []string{"session aabb is locked by pid 12 of web2 for 1m0s, and 2 requests wait here for up to 50s"}, "that process on web2"},
		"many long locks": {func(r *Report) {
			for range 20 {
				r.Contention.Held = append(r.Contention.Held, locking.HeldLock{For: time.Minute, Waiters: 1})
			}
		}, []string{"locked", "locked", "locked", "17 more sessions"}, ""},
	} {
		r := well()
		c.spoil(r)
		list := r.Problems(now)
		if len(list) != len(c.want) {
			t.Errorf("%s: %q, not %q", name, list, c.want)
			continue
		}
		for i, p := range list {
			if !strings.Contains(p.What, c.want[i]) || !strings.Contains(p.Do, c.do) || p.Do == "" {
				t.Errorf("%s: %q, do %q; not %q, do %q", name, p.What, p.Do, c.want[i], c.do)
			}
		}
		var out bytes.Buffer
		if err := r.Print(&out, now); err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(out.String(), "\n")
		switch {
		case len(c.want) == 0 && first != "all well: 3 cache servers up, 1 session open, nobody waits for long":
			t.Errorf("%s: the first line is %q", name, first)
		case len(c.want) > 0 && (!strings.HasPrefix(first, "PROBLEM: ") || strings.Contains(out.String(), "all well")):
			t.Errorf("%s: it begins with %q", name, first)
		case strings.Contains(out.String(), "\x1b"):
			t.Errorf("%s: a control byte is printed: %q", name, out.String())
		}
	}
}

func TestPrint(t *testing.T) {
	r := well()
	r.Locks = []locking.Lock{{Session: "aa", PID: 3, Kind: "exclusive", For: time.Second}, {Session: "aa", PID: 4, Kind: "shared", Waiting: true, For: time.Millisecond}}
	r.Contention.Elsewhere = []locking.RemoteLock{{Session: "bb", Host: "web2", PID: 5, Since: now.Add(-3 * time.Second), Waiters: 1, Longest: 2 * time.Second}}
	down(&r.Servers[0])
	r.Daemons = 3
	r.Cache = &backend.Cache{Sessions: 3, Bytes: 3 << 19, Current: 40, Changed: 2}
	var out bytes.Buffer
	if err := r.Print(&out, now); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{"mount point /s daemon pid 7, version v1, up 1h0m0s, number 3 of this mount", "c1 DOWN for 12s", "c2 up (meta)",
		"in memory 3 large sessions, 1.5 MiB; so far 42 were asked for by their version: 40 had not changed, 2 had",
		"SESSION PID LOCK FOR aa 3 exclusive 1s aa 4 shared, waiting 1ms bb 5 of web2, waited for 3s"} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q in\n%s", want, out.String())
		}
	}
}

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0s", 1500 * time.Microsecond: "2ms", 4230 * time.Millisecond: "4.2s", 59 * time.Second: "59s",
		200 * time.Second: "3m20s", 5*time.Hour + 12*time.Minute: "5h12m", 76 * time.Hour: "3d4h"} {
		if got := Age(d); got != want {
			t.Errorf("%v is %s, not %s", d, got, want)
		}
	}
}
