package history

import (
	"cmp"
	"math"
	"slices"
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
	orphans  map[*Request]bool   // writes into a file that had no name any more
	acked    []*Request          // changes that were acknowledged, in the order in which they began
	earliest []int64             // of acked[i:], the first end
	removals []*Request          // in the order in which they began
	latest   []int64             // of removals[:i+1], the last time at which one may have taken effect
	gone     []*Request          // removals that were acknowledged, in the order in which they ended
	after    []int64             // of gone[:i+1], the last beginning
}

func newIndex(name string, requests []*Request) *index {
	x := &index{name: name, requests: requests, writer: make(map[string]*Request), seen: make(map[string]int64), roots: make(map[string]*Request), orphans: orphans(requests)}
	for _, r := range requests {
		if r.Writes() {
			x.writer[r.Wrote.Token] = r
		}
		if r.Start.OK && r.Kind != Peek && r.Got.Token != "" {
			if at, ok := x.seen[r.Got.Token]; !ok || r.Start.End < at {
				x.seen[r.Got.Token] = r.Start.End
			}
		}
		if r.Removes() {
			x.removals = append(x.removals, r)
		}
		if x.stored(r) || r.Removes() && r.Acked() {
			x.acked = append(x.acked, r)
		}
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
		if r.Acked() {
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

// orphans are the writes of requests under which the file was deleted on their own host. They succeed and store nothing,
// as in any directory: the session that they had is gone. (Where another host deleted it they fail.)
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
			if r.Writes() && r.Host == d.Host && d.End.Begin <= r.end() && until >= r.begin() {
				list[r] = true
			}
		}
	}
	return list
}

// stored tells whether a write was acknowledged that must be found.
func (x *index) stored(r *Request) bool { return r.Writes() && r.Acked() && !x.orphans[r] }

// effect is the last time at which a change may have taken effect.
func (x *index) effect(r *Request) int64 {
	if x.stored(r) || r.Removes() && r.Acked() {
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

// removed tells whether a removal that began by the time before may have taken effect at or after the time since.
func (x *index) removed(since, before int64) bool {
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
