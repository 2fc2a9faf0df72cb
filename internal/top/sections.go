package top

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"sessfs"
	"sessfs/internal/hist"
	"sessfs/internal/status"
)

func (s span) servers(now time.Time) *table {
	t := &table{needs: 3, none: "none: sessions are kept in the daemon", columns: []column{{title: "SERVER", least: 15}, {title: "STATE", width: 8, least: 10}, {title: "P50", right: true, width: 5, drop: 2},
		{title: "P99", right: true, width: 5}, {title: "RATE/s", right: true}, {title: "HITS/s", right: true, drop: 3}, {title: "EVICTED", right: true}, {title: "MEMORY", right: true, drop: 1}}}
	list := slices.Clone(s.last.Servers)
	slices.SortStableFunc(list, func(a, b sessfs.ServerStatus) int { return cmp.Compare(rank(a), rank(b)) })
	for _, v := range list {
		of := func(figure func(sessfs.ServerStatus) uint64) string {
			return s.rate(func(r *status.Report) uint64 { return figure(server(r, v)) })
		}
		times := s.times(func(r *status.Report) hist.Snapshot { return r.RoundTripTimes[v.Name] })
		state, style := "up", Good
		if !v.Up {
			state, style = "DOWN", Bad
			if v.DownSince != nil {
				state += " " + status.Age(max(now.Sub(*v.DownSince), 0))
			}
		}
		if more := status.Trouble(v); more != "" {
			state, style = state+more, Bad
		}
		evicted, memory, hits := Span{Text: number(v.Evictions)}, bytesOf(v.Bytes, v.LimitBytes), of(func(v sessfs.ServerStatus) uint64 { return v.Hits })
		if v.Evictions > 0 {
			evicted.Style = Bad
		}
		if !v.Up { // it has told nothing
			evicted, memory, hits = Span{Text: "-"}, "-", "-"
		}
		t.rows = append(t.rows, []Span{{Text: status.Printable(v.Name)}, {state, style}, {Text: quantile(times, 0.5)}, {Text: quantile(times, 0.99)},
			{Text: of(func(v sessfs.ServerStatus) uint64 { return v.RoundTrips })}, {Text: hits}, evicted, {Text: memory}})
	}
	return t
}

// rank orders servers: those with trouble first.
func rank(s sessfs.ServerStatus) int {
	switch {
	case !s.Up:
		return 0
	case status.Trouble(s) != "":
		return 1
	}
	return 2
}

func server(r *status.Report, like sessfs.ServerStatus) sessfs.ServerStatus {
	for _, s := range r.Servers {
		if s.Name == like.Name && s.Address == like.Address {
			return s
		}
	}
	return sessfs.ServerStatus{}
}

func (s span) longLocks(now time.Time) *table {
	t := &table{needs: 3, none: "none (held for " + status.Age(status.LongLock) + " or longer)", columns: []column{{title: "LONG LOCK", width: 12}, {title: "HOLDER", width: 10, least: 14}, {title: "PROCESS", least: 8, drop: 2},
		{title: "LOCK", drop: 3}, {title: "HELD", right: true, width: 6}, {title: "WAITING", right: true}, {title: "UP TO", right: true, width: 6, drop: 1}}}
	type row struct {
		waited, held time.Duration
		cells        []Span
	}
	var all []row
	add := func(session, holder, process, kind string, held, waited time.Duration, waiters int) {
		longest, style := "-", Plain
		if waiters > 0 {
			longest, style = status.Age(waited), Bad
		}
		all = append(all, row{waited, held, []Span{{Text: session}, {Text: holder}, {Text: process}, {Text: kind}, {Text: status.Age(held)}, {number(waiters), style}, {Text: longest}}})
	}
	for _, l := range s.last.Contention.Held {
		add(l.Session, "pid "+pid(l.PID), status.Printable(l.Process), l.Kind, l.For, l.Longest, l.Waiters)
	}
	for _, l := range s.last.Contention.Elsewhere {
		add(l.Session, status.Holder(l), "-", "elsewhere", status.HeldFor(l, now), l.Longest, l.Waiters)
	}
	slices.SortStableFunc(all, func(a, b row) int { return cmp.Or(cmp.Compare(b.waited, a.waited), cmp.Compare(b.held, a.held)) })
	for _, r := range all {
		t.rows = append(t.rows, r.cells)
	}
	return t
}

func pid(n uint32) string {
	if n == 0 {
		return "?"
	}
	return number(n)
}

// lockedBy are the holders of the locks that are known, by hash of the session.
func (s span) lockedBy() map[string]string {
	by := make(map[string]string)
	for _, l := range s.last.Locks {
		if !l.Waiting {
			by[l.Session] = "pid " + pid(l.PID)
		}
	}
	for _, l := range s.last.Contention.Elsewhere {
		by[l.Session] = status.Holder(l)
	}
	return by
}

func (s span) waits() *table {
	t := &table{needs: 2, none: "nobody", columns: []column{{title: "WAITING", width: 12}, {title: "PID", width: 10}, {title: "PROCESS", least: 8, drop: 2}, {title: "LOCK", drop: 3}, {title: "FOR", right: true, width: 6}, {title: "LOCKED BY", least: 10, drop: 1}}}
	by := s.lockedBy()
	for _, w := range s.last.Contention.Waits {
		holder := by[w.Session]
		if holder == "" {
			holder = "-"
		}
		t.rows = append(t.rows, []Span{{Text: w.Session}, {Text: pid(w.PID)}, {Text: status.Printable(w.Process)}, {Text: w.Kind}, {Text: status.Age(w.For)}, {Text: holder}})
	}
	return t
}

func (s span) hottest() *table {
	t := &table{needs: 2, none: "none was opened in the last minute", columns: []column{{title: "HOT SESSION", width: 12}, {title: "LAST MINUTE", right: true}, {title: "WAITING", right: true}, {title: "LOCKED BY", least: 10, drop: 1}}}
	by := s.lockedBy()
	waiting := make(map[string]int)
	for _, l := range s.last.Locks {
		if l.Waiting {
			waiting[l.Session]++
		}
	}
	for _, h := range s.last.Hottest {
		n := number(h.Requests)
		if h.Missing > 0 {
			n = ">=" + n
		}
		holder := by[h.Session]
		if holder == "" {
			holder = "-"
		}
		t.rows = append(t.rows, []Span{{Text: h.Session}, {Text: n}, {Text: number(waiting[h.Session])}, {Text: holder}})
	}
	return t
}

// Sort is what the operations are ordered by.
type Sort int

// The orders.
const (
	ByRate Sort = iota
	ByP99
	ByName
	sorts
)

func (s Sort) String() string { return []string{"rate", "p99", "name"}[s] }

// calls are what PHP calls for an operation, where the kernel has another name for it.
var calls = map[string]string{"SETLKW": "SETLKW (flock)", "GETATTR": "GETATTR (stat)", "SETATTR": "SETATTR (touch)", "RELEASE": "RELEASE (close)", "LOOKUP": "LOOKUP (name)", "READDIR": "READDIR (gc)"}

func (s span) operations(by Sort) *table {
	t := &table{needs: 3, none: "none", columns: []column{{title: "OPERATION", width: 15, least: 8}, {title: "RATE/s", right: true, width: 8}, {title: "P50", right: true, width: 6}, {title: "P99", right: true, width: 6}, {title: "TOTAL", right: true, width: 9, drop: 1}}}
	type op struct {
		name        string
		total, grew uint64
		times       hist.Snapshot
	}
	var all []op
	for name, total := range s.last.Files.Operations {
		if name == "INIT" || name == "DESTROY" { // once for a mount
			continue
		}
		all = append(all, op{name, total, s.grown(func(r *status.Report) uint64 { return r.Files.Operations[name] }),
			s.times(func(r *status.Report) hist.Snapshot { return r.Files.Latency[name] })})
	}
	slices.SortFunc(all, func(a, b op) int {
		name := cmp.Compare(a.name, b.name)
		switch by {
		case ByP99:
			return cmp.Or(cmp.Compare(b.times.Quantile(0.99), a.times.Quantile(0.99)), cmp.Compare(b.total, a.total), name)
		case ByName:
			return name
		}
		return cmp.Or(cmp.Compare(b.grew, a.grew), cmp.Compare(b.total, a.total), name)
	})
	for _, o := range all {
		name := o.name
		if known := calls[name]; known != "" {
			name = known
		}
		t.rows = append(t.rows, []Span{{Text: strings.TrimSpace(name)}, {Text: s.rate(func(r *status.Report) uint64 { return r.Files.Operations[o.name] })},
			{Text: quantile(o.times, 0.5)}, {Text: quantile(o.times, 0.99)}, {Text: number(o.total)}})
	}
	return t
}

// figures are the counts of the head, the most important first.
func (s span) figures() []Span {
	r := s.last
	l, f := r.Locking, r.Files
	rate := func(of func(*status.Report) uint64) string { return s.rate(of) }
	bad := func(n uint64) Style {
		if n > 0 {
			return Bad
		}
		return Plain
	}
	waits := s.times(func(r *status.Report) hist.Snapshot { return r.Locking.WaitTimes })
	return []Span{
		{Text: "requests " + rate(func(r *status.Report) uint64 { return r.Requests }) + "/s"},
		{Text: "sessions " + number(f.OpenSessions) + " open"},
		{Text: "locks " + number(max(l.Leases-l.Kept, 0)) + " held, " + number(l.Kept) + " kept"},
		{Text: "waiting " + number(l.Waiting)},
		{"errors " + number(f.Errors) + " (" + rate(func(r *status.Report) uint64 { return r.Files.Errors }) + "/s)", bad(s.grown(func(r *status.Report) uint64 { return r.Files.Errors }))},
		{Text: "waits " + rate(func(r *status.Report) uint64 { return r.Locking.Waits }) + "/s, p99 " + quantile(waits, 0.99)},
		{"lost locks " + number(l.LocksLost), bad(s.grown(func(r *status.Report) uint64 { return r.Locking.LocksLost }))},
		{"lost stores " + number(f.LostStores), bad(f.LostStores)},
	}
}
