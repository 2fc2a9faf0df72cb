package backend

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"sessfs"
)

// view is one list of servers, from which a session's servers are chosen: see docs/replicas.md.
type view struct {
	nodes    []node
	servers  []*server // of nodes
	replicas int
	majority bool     // of two servers both must answer
	hasher   *sealing // of its servers
}

// maxReplicas is how many copies a session may have.
const maxReplicas = 5

// candidates are the servers that may have id, the preferred ones first.
func (v *view) candidates(id sessfs.ID) []*server {
	if len(v.servers) == 1 {
		return v.servers
	}
	var buf [2*maxReplicas - 1]int
	order := rank(buf[:0], v.nodes, string(id), min(len(v.nodes), 2*v.replicas-1))
	list := make([]*server, len(order))
	for i, at := range order {
		list[i] = v.servers[at]
	}
	return list
}

// need is how many of so many candidates a set must have, so that any two sets share one.
func (v *view) need(candidates int) int {
	if candidates == 2 && !v.majority {
		return 1
	}
	return candidates/2 + 1
}

// choose appends to set the members of the set in this view that are not there yet, and tells whether they are enough.
// Servers that are marked down or failed are left out; young ones and weak ones are members that do not count.
func (o *operation) choose(v *view, set []*server, now int64) ([]*server, bool) {
	candidates := v.candidates(o.id)
	need, want := v.need(len(candidates)), min(v.replicas, len(candidates))
	members, firm := 0, 0
	for i, s := range candidates {
		if s.down() || slices.Contains(o.out, s) {
			o.stoodIn = o.stoodIn || i < want
			continue
		}
		counts := !s.young(now) && !slices.Contains(o.weak, s)
		if members >= want && (firm >= need || !counts) {
			continue
		}
		members++
		if counts {
			firm++
		}
		if !slices.Contains(set, s) {
			set = append(set, s)
		}
	}
	return set, members >= need
}

// operation is one operation on the servers of a session: it knows which of them failed it.
type operation struct {
	place
	deadline time.Time
	out      []*server   // that failed
	errs     []error     // why
	weak     []*server   // that answered and do not count
	stoodIn  bool        // another server stands in for one that is down
	also     []*server   // that are members whatever the views say
	left     []*server   // that were members and may have the lock still
	changes  uint64      // Cluster.changes when the set was chosen
	views    *[]*view    // by which it was chosen
	last     found       // that was taken apart last
	parts    []partsSeen // that were fetched last
	known    uint64      // the counter of the session's version that this host knew of when it began; 0: none, or nothing is sealed
}

func (c *Cluster) operation(id sessfs.ID) operation {
	return operation{place: c.place(id), deadline: c.deadline(), known: c.seen(id)}
}

// set chooses the members, in the order of their names.
func (o *operation) set() ([]*server, error) {
	if err := o.c.keyless(); err != nil {
		return nil, err
	}
	var set []*server
	now := sessfs.Boottime()
	o.changes, o.views = o.c.changes.Load(), o.c.views.Load()
	for _, v := range *o.views {
		var enough bool
		if set, enough = o.choose(v, set, now); !enough {
			return nil, o.tooFew(v)
		}
	}
	for _, s := range o.also {
		if !slices.Contains(set, s) {
			set = append(set, s)
		}
	}
	if len(set) > 1 {
		slices.SortFunc(set, func(a, b *server) int { return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.mark, b.mark)) })
	}
	return set, nil
}

// tooFew says why a set is not possible.
func (o *operation) tooFew(v *view) error {
	candidates := v.candidates(o.id)
	errs := slices.Clone(o.errs)
	for _, s := range candidates {
		if s.down() && !slices.Contains(o.out, s) {
			errs = append(errs, s.downError())
		}
	}
	switch {
	case len(errs) == 1 && len(candidates) == 1:
		return errs[0]
	case len(errs) == 0: // it came back this very moment
		errs = append(errs, sessfs.ErrUnavailable)
	}
	return fmt.Errorf("%d of the %d servers that may have session %s must answer: %w", v.need(len(candidates)), len(candidates), o.id.Hash(), errors.Join(errs...))
}

// failed notes that a member did not do its part.
func (o *operation) failed(s *server, err error) {
	if !slices.Contains(o.out, s) {
		o.out, o.errs = append(o.out, s), append(o.errs, err)
	}
}

// freeLeft frees the lock on those that are members no more. That waits until the new ones have it.
func (o *operation) freeLeft(h *hold) {
	for _, s := range o.left {
		s.releaseByToken(h) // does nothing where it is a member again
	}
	o.left = nil
}

// step is the deadline of one request to one member. Where another may stand in for it there is time left for that.
func (o *operation) step() time.Time {
	if !o.c.spare() {
		return o.deadline
	}
	if d := time.Now().Add(o.c.timeout() / 2); d.Before(o.deadline) {
		return d
	}
	return o.deadline
}

// late tells whether the operation's time is over.
func (o *operation) late() bool { return !time.Now().Before(o.deadline) }

// spare tells whether sessions have more servers than they need.
func (c *Cluster) spare() bool {
	for _, v := range *c.views.Load() {
		n := min(len(v.servers), 2*v.replicas-1)
		if v.need(n) == n {
			return false
		}
	}
	return true
}

// mark32 is how a server stands in a record's where.
func mark32(name string) uint32 {
	sum := sha256.Sum256([]byte(name))
	return binary.BigEndian.Uint32(sum[:])
}
