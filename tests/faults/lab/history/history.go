// Package history is what a run of the fault laboratory has noted, and the checkers of it: whether the promises of a
// session directory were kept. All times are of one monotonic clock, in nanoseconds.
//
// A session holds a value with a token that is used once, the token of the value that it replaced, and a count. So a
// history tells for every value who stored it, on top of what.
package history

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Kind is what a request does.
type Kind string

// The kinds of request.
const (
	Increment Kind = "increment" // session_start, one more, session_write_close
	Read      Kind = "read"      // session_start with read_and_close
	Peek      Kind = "peek"      // the file is read, without a lock
	Destroy   Kind = "destroy"   // session_start, session_destroy
	Unlink    Kind = "unlink"    // the file is deleted, without a lock
)

// Value is what a session holds; the zero Value is an empty session.
type Value struct {
	Token, Parent string
	N             int
	Torn          bool // its parts do not belong together
}

// Span is a call: when it began and ended, and what became of it.
type Span struct {
	Begin, End int64 // 0: it never began, never ended
	OK         bool  // it succeeded, without a warning
	Why        string
}

// Request is one request of a PHP worker. A part of it that its kind has not is zero.
type Request struct {
	Host, Worker, Seq int
	Session           string
	Kind              Kind
	Size              int
	Start             Span  // session_start, or the reading of a Peek
	Got               Value // what that found, where it succeeded
	End               Span  // session_write_close, session_destroy or unlink
	Wrote             Value // what an Increment stores
	Killed            int64 // when the worker was killed in the middle of it; 0: it was not
}

// Writes tells whether the request has tried to store something.
func (r *Request) Writes() bool { return r.Kind == Increment && r.End.Begin != 0 }

// Removes tells whether the request has tried to destroy its session.
func (r *Request) Removes() bool { return (r.Kind == Destroy || r.Kind == Unlink) && r.End.Begin != 0 }

// Missing tells whether an Unlink was told that there is no such file, which is as good as deleted.
func (r *Request) Missing() bool { return r.Kind == Unlink && r.End.OK && r.End.Why == "missing" }

// Acked tells whether what it stored or destroyed was acknowledged.
func (r *Request) Acked() bool { return r.End.OK }

// begin is when it began.
func (r *Request) begin() int64 {
	if r.Start.Begin != 0 {
		return r.Start.Begin
	}
	return r.End.Begin
}

// end is when it was over for its worker.
func (r *Request) end() int64 { return max(r.Start.End, r.End.End, r.Killed, r.begin()) }

// String is the line of a report.
func (r *Request) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "host%d w%d#%d %s %s", r.Host, r.Worker, r.Seq, r.Session, r.Kind)
	part := func(what string, s Span) {
		if s.Begin == 0 {
			return
		}
		fmt.Fprintf(&b, "; %s %s", what, seconds(s.Begin))
		switch {
		case s.End == 0:
			b.WriteString("-never")
		case s.OK:
			fmt.Fprintf(&b, "-%s ok%s", seconds(s.End), strings.TrimRight(" "+s.Why, " "))
		default:
			fmt.Fprintf(&b, "-%s FAILED (%s)", seconds(s.End), s.Why)
		}
	}
	part("start", r.Start)
	if r.Start.OK {
		fmt.Fprintf(&b, " found %s", r.Got)
	}
	what := "write"
	if r.Kind != Increment {
		what = "remove"
	}
	part(what, r.End)
	if r.Writes() {
		fmt.Fprintf(&b, " stores %s of %d bytes", r.Wrote, r.Size)
	}
	if r.Killed != 0 {
		fmt.Fprintf(&b, "; killed %s", seconds(r.Killed))
	}
	return b.String()
}

func (v Value) String() string {
	if v.Token == "" && !v.Torn {
		return "nothing"
	}
	torn := ""
	if v.Torn {
		torn = " TORN"
	}
	return fmt.Sprintf("%s (%d, on %q)%s", v.Token, v.N, v.Parent, torn)
}

// seconds prints a time of the monotonic clock.
func seconds(ns int64) string { return fmt.Sprintf("%.6f", time.Duration(ns).Seconds()) }

// Fault is one that was made, and in which time it may be felt.
type Fault struct {
	Class      string
	Text       string // what was done to whom
	Host       int    // whose daemon it stops; 0: none
	Begin, End int64
}

func (f Fault) String() string {
	return fmt.Sprintf("%s-%s FAULT %s: %s", seconds(f.Begin), seconds(f.End), f.Class, f.Text)
}

// History is all of a run.
type History struct {
	Requests []*Request
	Faults   []Fault
	Stalls   []Span // when the machine itself was late: every request may be
	Settled  int64  // from then on everything was whole and sessions were only read; 0: it never came to that

	Undecided int // sessions that Register has not come to an end with
}

// Breach is a promise that was broken.
type Breach struct {
	Checker string
	Session string
	Text    string
	Around  []*Request // those that show it
}

// sessions are the requests of each session, in the order of their beginnings.
func (h *History) sessions() map[string][]*Request {
	all := make(map[string][]*Request)
	for _, r := range h.Requests {
		all[r.Session] = append(all[r.Session], r)
	}
	for _, list := range all {
		slices.SortStableFunc(list, func(a, b *Request) int { return cmp.Compare(a.begin(), b.begin()) })
	}
	return all
}

// Check runs all checkers.
func (h *History) Check(b Bounds) []Breach {
	return slices.Concat(h.Exclusion(), h.Whole(), h.Increments(), h.Fresh(), h.Revived(), h.Register(), h.Bounded(b))
}

// before is for how long before the requests that show a breach the others are shown, too.
const before = 100 * time.Millisecond

// Lines are the requests and faults around a breach, for a report: those of its session that overlap with the ones that
// show it or end shortly before, and the faults beside them.
func (h *History) Lines(b Breach, most int) []string {
	from, to := int64(0), int64(0)
	for i, r := range b.Around {
		if i == 0 || r.begin() < from {
			from = r.begin()
		}
		to = max(to, r.end())
	}
	from -= int64(before)
	type line struct {
		at     int64
		text   string
		marked bool
	}
	var lines []line
	for _, r := range h.Requests {
		if r.Session == b.Session && r.begin() <= to && r.end() >= from {
			marked := slices.Contains(b.Around, r)
			text := "  " + r.String()
			if marked {
				text = "> " + r.String()
			}
			lines = append(lines, line{r.begin(), text, marked})
		}
	}
	// Those that show it come first when there are too many.
	slices.SortStableFunc(lines, func(a, b line) int {
		if a.marked != b.marked {
			if a.marked {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.at, b.at)
	})
	lines = lines[:min(len(lines), most)]
	for _, f := range h.Faults {
		if f.Begin <= to && f.End >= from {
			lines = append(lines, line{f.Begin, "  " + f.String(), false})
		}
	}
	slices.SortStableFunc(lines, func(a, b line) int { return cmp.Compare(a.at, b.at) })
	texts := make([]string, len(lines))
	for i, l := range lines {
		texts[i] = l.text
	}
	return texts
}
