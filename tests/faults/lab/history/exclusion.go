package history

import (
	"cmp"
	"fmt"
	"slices"
)

// held is the time in which a request had the lock for certain: from the return of session_start to the call of
// session_write_close.
func (r *Request) held() (from, to int64) {
	if r.Kind != Increment || !r.Start.OK {
		return 0, 0
	}
	switch {
	case r.End.Begin != 0:
		to = r.End.Begin
	case r.Killed != 0:
		to = r.Killed
	}
	return r.Start.End, max(to, r.Start.End)
}

// overlaps calls f for every two requests of a session of which the second got the lock while the first had it.
func (h *History) overlaps(f func(x *index, first, second *Request)) {
	h.each(func(x *index) {
		var holders []*Request
		for _, r := range x.requests {
			if r.Start.OK && (r.Kind == Increment || r.Kind == Destroy) {
				holders = append(holders, r)
			}
		}
		slices.SortFunc(holders, func(a, b *Request) int { return cmp.Compare(a.Start.End, b.Start.End) })
		var open []*Request // whose hold may last still
		for _, r := range holders {
			open = slices.DeleteFunc(open, func(o *Request) bool {
				_, to := o.held()
				return to <= r.Start.End
			})
			for _, o := range open {
				f(x, o, r)
			}
			if _, to := r.held(); to > r.Start.End {
				open = append(open, r)
			}
		}
	})
}

// Exclusion: nobody gets the lock while another has it. A holder may lose its lock, to a lease that ended while its host
// stood still; its write then fails. One whose write was acknowledged had the lock until then.
func (h *History) Exclusion() (list []Breach) {
	h.overlaps(func(x *index, first, second *Request) {
		if first.Acked() && !x.orphans[first] && !x.orphans[second] {
			list = append(list, Breach{"exclusion", x.name, fmt.Sprintf("the lock was given to %s while %s had it, and that was told that its write was stored", second.who(), first.who()), []*Request{first, second}})
		}
	})
	return list
}

// LostLocks counts the requests that lost their lock while they ran, and were told when they wrote, or were killed.
func (h *History) LostLocks() int {
	lost := make(map[*Request]bool)
	h.overlaps(func(x *index, first, second *Request) {
		if !first.Acked() && !x.orphans[first] && !x.orphans[second] {
			lost[first] = true
		}
	})
	return len(lost)
}

func (r *Request) who() string { return fmt.Sprintf("w%d#%d on host%d", r.Worker, r.Seq, r.Host) }
