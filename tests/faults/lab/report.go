package lab

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"sessfs/tests/faults/lab/history"
)

// report is what a run has counted, beside its history.
type report struct {
	keep      string
	faults    map[Class]*tally
	longest   time.Duration // the longest mending
	after     string
	kills     int // of PHP workers
	evictions int
	broken    int // answers
	breaches  []history.Breach
}

type tally struct {
	times int
	total time.Duration
}

func (r *report) made(c Class, d time.Duration) {
	if r.faults == nil {
		r.faults = make(map[Class]*tally)
	}
	if r.faults[c] == nil {
		r.faults[c] = &tally{}
	}
	r.faults[c].times++
	r.faults[c].total += d
}

func (r *report) mended(after string, d time.Duration) {
	if d > r.longest {
		r.longest, r.after = d, after
	}
}

// text is the report of a run.
func (r *report) text(h *history.History, breaches []history.Breach) string {
	var b strings.Builder
	fmt.Fprintf(&b, "lock.keep %s\n\nFAULTS\n", r.keep)
	for _, c := range slices.Sorted(maps.Keys(r.faults)) {
		fmt.Fprintf(&b, "%5d  %-42s %v in all\n", r.faults[c].times, c, r.faults[c].total.Round(time.Millisecond))
	}
	fmt.Fprintf(&b, "%5d  PHP workers killed; %d answers broken, %d items evicted; mended within %v at most (after %s)\n",
		r.kills, r.broken, r.evictions, r.longest.Round(time.Millisecond), r.after)
	r.requests(&b, h)
	r.loud(&b, h)
	fmt.Fprintf(&b, "\n%d sessions; %d requests lost their lock and were told; %d histories not decided; the machine was late %d times, %v in all\n",
		sessions(h), h.LostLocks(), h.Undecided, len(h.Stalls), stalled(h))
	fmt.Fprintf(&b, "\n%d BREACHES\n", len(breaches))
	shown := make(map[string]int)
	for _, x := range breaches {
		if shown[x.Checker]++; shown[x.Checker] > mostShown {
			continue
		}
		fmt.Fprintf(&b, "%s: %s %s", x.Checker, x.Session, x.Text)
		if n := len(x.Around); n > 0 {
			fmt.Fprintf(&b, " (during %q)", during(h, x.Around[n-1].Start))
		}
		fmt.Fprintln(&b)
		for _, line := range h.Lines(x, mostLines) {
			fmt.Fprintf(&b, "    %s\n", line)
		}
	}
	return b.String()
}

const (
	mostShown = 5 // breaches of each checker
	mostLines = 30
)

// requests tells what the workers did.
func (r *report) requests(b *strings.Builder, h *history.History) {
	type line struct {
		done, acked, waits int
		start, end         time.Duration
	}
	lines := make(map[history.Kind]*line)
	for _, q := range h.Requests {
		l := lines[q.Kind]
		if l == nil {
			l = &line{}
			lines[q.Kind] = l
		}
		l.done++
		if q.End.OK || q.Start.OK && (q.Kind == history.Read || q.Kind == history.Peek) {
			l.acked++
		}
		start := time.Duration(max(0, q.Start.End-q.Start.Begin))
		if q.Kind != history.Peek && start > 50*time.Millisecond {
			l.waits++
		}
		l.start = max(l.start, start)
		l.end = max(l.end, time.Duration(max(0, q.End.End-q.End.Begin)))
	}
	fmt.Fprintf(b, "\n%-10s %8s %8s %14s %14s %14s\n", "REQUESTS", "done", "acked", "start > 50 ms", "longest start", "longest end")
	for _, k := range slices.Sorted(maps.Keys(lines)) {
		l := lines[k]
		fmt.Fprintf(b, "%-10s %8d %8d %14d %14v %14v\n", k, l.done, l.acked, l.waits, l.start.Round(time.Millisecond), l.end.Round(time.Millisecond))
	}
}

var (
	aPath = regexp.MustCompile(`/tmp/[^ ,):]*`)
	aName = regexp.MustCompile(`sess_[\w,-]+`)
)

// loud lists the failures that PHP was told, by what it was told and the fault that was felt then.
func (r *report) loud(b *strings.Builder, h *history.History) {
	count := make(map[string]int)
	add := func(q *history.Request, what string, s history.Span) {
		if s.End == 0 || s.OK {
			return
		}
		why := aName.ReplaceAllString(aPath.ReplaceAllString(s.Why, "…"), "…")
		count[fmt.Sprintf("%s of %s during %q: %s", what, q.Kind, during(h, s), why)]++
	}
	for _, q := range h.Requests {
		add(q, "start", q.Start)
		add(q, "end", q.End)
	}
	lines := slices.SortedFunc(maps.Keys(count), func(a, b string) int {
		return cmp.Or(cmp.Compare(count[b], count[a]), cmp.Compare(a, b))
	})
	fmt.Fprintf(b, "\nLOUD FAILURES\n")
	for _, l := range lines {
		fmt.Fprintf(b, "%5d  %s\n", count[l], l)
	}
}

// during is the fault that a call may have felt: one is until it is mended.
func during(h *history.History, s history.Span) string {
	class := "none"
	for _, f := range h.Faults {
		if f.Begin <= s.End && s.Begin <= f.End+int64(lease) {
			class = f.Class
		}
	}
	return class
}

func sessions(h *history.History) int {
	names := make(map[string]bool)
	for _, q := range h.Requests {
		names[q.Session] = true
	}
	return len(names)
}

func stalled(h *history.History) (d time.Duration) {
	for _, s := range h.Stalls {
		d += time.Duration(s.End - s.Begin)
	}
	return d.Round(time.Millisecond)
}
