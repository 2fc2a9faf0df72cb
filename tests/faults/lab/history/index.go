package history

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// never is a time after all others.
const never = math.MaxInt64

// index is what the checkers ask about one session.
type index struct {
	name     string
	requests []*Request          // in the order of their beginnings
	writer   map[string]*Request // by the token that it stores
	seen     map[string]int64    // when a token was first found under the lock: it is there for good
	roots    map[string]*Request // by a token: who began its incarnation; filled by root
	orphans  map[*Request]bool   // requests on a file that may have had no name any more
	blind    map[*Request]bool   // that found nothing because they had just found nothing
	acked    []*Request          // changes that were acknowledged, in the order in which they began
	earliest []int64             // of acked[i:], the first end
	removals []*Request          // in the order in which they began
	latest   []int64             // of removals[:i+1], the last time at which one may have taken effect
	gone     []*Request          // removals that were acknowledged, in the order in which they ended
	after    []int64             // of gone[:i+1], the last beginning
}

func newIndex(name string, requests []*Request) *index {
	x := &index{name: name, requests: requests, writer: make(map[string]*Request), seen: make(map[string]int64), roots: make(map[string]*Request), orphans: orphans(requests), blind: blind(requests)}
	for _, r := range requests {
		if r.Writes() {
			x.writer[r.Wrote.Token] = r
		}
		if x.reads(r) && r.Kind != Peek && r.Got.Token != "" {
			if at, ok := x.seen[r.Got.Token]; !ok || r.Start.End < at {
				x.seen[r.Got.Token] = r.Start.End
			}
		}
		if r.Removes() {
			x.removals = append(x.removals, r)
		}
		if x.stored(r) || x.removed(r) {
			x.acked = append(x.acked, r)
		}
	}
	for _, r := range requests {
		x.trace(r)
	}
	byBegin := func(a, b *Request) int { return cmp.Compare(a.End.Begin, b.End.Begin) }
	slices.SortFunc(x.acked, byBegin)
	slices.SortFunc(x.removals, byBegin)
	x.earliest = make([]int64, len(x.acked))
	first := int64(never)
	for i := len(x.acked) - 1; i >= 0; i-- {
		first = min(first, x.acked[i].End.End)
		x.earliest[i] = first
	}
	last := int64(0)
	for _, r := range x.removals {
		last = max(last, x.effect(r))
		x.latest = append(x.latest, last)
		if x.removed(r) {
			x.gone = append(x.gone, r)
		}
	}
	slices.SortFunc(x.gone, func(a, b *Request) int { return cmp.Compare(a.End.End, b.End.End) })
	last = 0
	for _, r := range x.gone {
		last = max(last, r.End.Begin)
		x.after = append(x.after, last)
	}
	return x
}

// trace notes that whatever a write replaced had been there, where the write itself is known to have been done.
func (x *index) trace(r *Request) {
	for r != nil {
		at, seen := x.seen[r.Wrote.Token]
		switch {
		case x.stored(r) && (!seen || r.End.End < at):
			at = r.End.End
		case !seen:
			return
		}
		parent := r.Wrote.Parent
		if known, ok := x.seen[parent]; parent == "" || ok && known <= at {
			return
		}
		x.seen[parent] = at
		r = x.writer[parent]
	}
}

// orphans are the requests under which the file was deleted on their own host. They go on with the file as it was, without
// the session's lock, and what they write succeeds and is stored nowhere, as in any directory. (Where another host has
// deleted it their writes fail.)
func orphans(requests []*Request) map[*Request]bool {
	list := make(map[*Request]bool)
	for _, d := range requests {
		if !d.Removes() {
			continue
		}
		until := d.End.End
		if until == 0 {
			until = never // its worker was killed; the request went on
		}
		for _, r := range requests {
			if r != d && r.Host == d.Host && d.End.Begin <= r.end() && until >= r.begin() {
				list[r] = true
			}
		}
	}
	return list
}

// A name that a process has found missing, or has deleted, may be missing for it a moment longer, whoever has made it
// since; after a start that has failed, until it is found again.
const (
	blindness       = int64(100 * time.Millisecond)
	blindnessFailed = int64(20 * time.Second)
)

// blind are the requests that found nothing, without the lock, so soon after that, that it proves nothing.
func blind(requests []*Request) map[*Request]bool {
	list := make(map[*Request]bool)
	until := make(map[int]int64) // by worker
	for _, r := range requests {
		nothing := r.Start.OK && r.Got == (Value{}) || r.Missing()
		if nothing && (r.Kind == Peek || r.Kind == Unlink) && r.begin() <= until[r.Worker] {
			list[r] = true
		}
		switch {
		case nothing || r.Removes():
			until[r.Worker] = max(until[r.Worker], r.end()+blindness)
		case r.Start.Begin != 0 && !r.Start.OK:
			until[r.Worker] = r.end() + blindnessFailed
		case r.Start.OK:
			until[r.Worker] = 0
		}
	}
	return list
}

// stored tells whether a write was acknowledged that must be found.
func (x *index) stored(r *Request) bool { return r.Writes() && r.Acked() && !x.orphans[r] }

// removed tells whether a removal was acknowledged that must be seen.
func (x *index) removed(r *Request) bool { return r.Removes() && r.Acked() && !x.blind[r] }

// reads tells whether what a request found was the session of that name.
func (x *index) reads(r *Request) bool { return r.Start.OK && !x.orphans[r] }

// effect is the last time at which a change may have taken effect.
func (x *index) effect(r *Request) int64 {
	if x.stored(r) || x.removed(r) {
		return r.End.End
	}
	if r.Writes() {
		if at, ok := x.seen[r.Wrote.Token]; ok {
			return at
		}
	}
	return never
}

// root is who began the incarnation that a value belongs to; nil where the history does not know it.
func (x *index) root(token string) *Request {
	var path []string
	var root *Request
	for at, most := token, len(x.writer); most >= 0; most-- {
		if r, ok := x.roots[at]; ok {
			root = r
			break
		}
		path = append(path, at)
		w := x.writer[at]
		if w == nil {
			break
		}
		if w.Wrote.Parent == "" {
			root = w
			break
		}
		at = w.Wrote.Parent
	}
	for _, t := range path {
		x.roots[t] = root
	}
	return root
}

// gap tells whether a removal that began by the time before may have taken effect at or after the time since.
func (x *index) gap(since, before int64) bool {
	n, _ := slices.BinarySearchFunc(x.removals, before, func(r *Request, t int64) int {
		if r.End.Begin <= t {
			return -1
		}
		return 1
	})
	return n > 0 && x.latest[n-1] >= since
}

// superseded finds an acknowledged change that began after the time since and ended before the time before.
func (x *index) superseded(since, before int64) *Request {
	n, _ := slices.BinarySearchFunc(x.acked, since, func(r *Request, t int64) int {
		if r.End.Begin <= t {
			return -1
		}
		return 1
	})
	if n == len(x.acked) || x.earliest[n] >= before {
		return nil
	}
	for _, r := range x.acked[n:] {
		if r.End.End < before {
			return r
		}
	}
	return nil
}

// goneBefore is when the last of the removals began that were acknowledged before a time, and that removal.
func (x *index) goneBefore(t int64) (int64, *Request) {
	n, _ := slices.BinarySearchFunc(x.gone, t, func(r *Request, t int64) int {
		if r.End.End < t {
			return -1
		}
		return 1
	})
	if n == 0 {
		return 0, nil
	}
	for _, r := range x.gone[:n] {
		if r.End.Begin == x.after[n-1] {
			return r.End.Begin, r
		}
	}
	return 0, nil
}

// each calls f for every session, in the order of their names.
func (h *History) each(f func(*index)) {
	all := h.sessions()
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		f(newIndex(name, all[name]))
	}
}
