package history

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Bounds are how long a request may last.
type Bounds struct {
	Call time.Duration // any call but a wait for a lock
	Wait time.Duration // session_start, while nobody has the lock or gets it: a lease that nobody ends, and a call
}

// Bounded: no call but a wait for a lock lasts longer than the bound. Time in which the host's own daemon was dead or
// stopped, or the machine itself was late, does not count.
func (h *History) Bounded(b Bounds) (list []Breach) {
	h.each(func(x *index) {
		grants := x.grants()
		for _, r := range x.requests {
			end := func(s Span) int64 {
				switch {
				case s.End != 0:
					return s.End
				case r.Killed != 0:
					return r.Killed
				}
				return s.Begin
			}
			breach := func(what string, took, most time.Duration) {
				list = append(list, Breach{"bounded", x.name, fmt.Sprintf("%s: %s took %v, more than %v", r.who(), what, took, most), []*Request{r}})
			}
			if r.Start.Begin != 0 {
				from, to, most := r.Start.Begin, end(r.Start), b.Call
				if r.Kind != Peek {
					from, to = longestGap(grants, r, from, to)
					most = b.Wait
				}
				if took := h.counted(r.Host, from, to); took > most {
					breach("its start, while nobody had the lock,", took, most)
				}
			}
			if r.End.Begin != 0 {
				if took := h.counted(r.Host, r.End.Begin, end(r.End)); took > b.Call {
					breach("its end", took, b.Call)
				}
			}
		}
	})
	return list
}

// counted is the time between that counts for a host.
func (h *History) counted(host int, from, to int64) time.Duration {
	took := to - from
	for _, f := range h.Faults {
		if f.Host == host && host != 0 {
			took -= max(0, min(to, f.End)-max(from, f.Begin))
		}
	}
	for _, s := range h.Stalls {
		took -= max(0, min(to, s.End)-max(from, s.Begin))
	}
	return time.Duration(took)
}

// grant is a time in which somebody had the lock.
type grant struct {
	by       *Request
	from, to int64
}

func (x *index) grants() (list []grant) {
	for _, r := range x.requests {
		if r.Start.OK && r.Kind != Peek {
			list = append(list, grant{r, r.Start.End, r.end()})
		}
	}
	slices.SortFunc(list, func(a, b grant) int { return cmp.Compare(a.from, b.from) })
	return list
}

// longestGap is the longest part of the time from..to in which nobody but r had the lock.
func longestGap(grants []grant, r *Request, from, to int64) (int64, int64) {
	begin, end, at := from, from, from
	n, _ := slices.BinarySearchFunc(grants, to, func(g grant, t int64) int { return cmp.Compare(g.from, t) })
	for _, g := range grants[:n] {
		if g.by == r || g.to <= at {
			continue
		}
		if g.from > at && g.from-at > end-begin {
			begin, end = at, g.from
		}
		at = max(at, g.to)
	}
	if to-at > end-begin {
		begin, end = at, to
	}
	return begin, end
}
