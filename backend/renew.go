package backend

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"sessfs"
)

// Renew implements sessfs.Backend.
func (c *Cluster) Renew(ctx context.Context, l *sessfs.Lease) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h, ok := l.Ref.(*hold)
	if !ok {
		return fmt.Errorf("session %s: %w", l.ID.Hash(), sessfs.ErrLockLost)
	}
	r := &renewal{operation: c.operation(l.ID), hold: h, lease: c.settings.Load().Lease}
	sent := sessfs.Boottime()
	for _, m := range h.list() {
		if m.s.down() {
			r.failed(m.s, m.s.downError())
		} else {
			r.members = append(r.members, m.s)
		}
	}
	again, err := r.touch()
	if err != nil {
		return err
	}
	if again || len(r.out) > 0 || !h.current() {
		if err := r.move(); err != nil {
			return err
		}
	}
	l.Deadline = leaseEnd(sent, r.lease)
	return nil
}

// move takes the lock on another set, after a member failed or the list of servers changed, or on the same one, after a
// member was restarted. Those that miss the session get it, too.
func (r *renewal) move() error {
	t := &taking{operation: r.operation, hold: r.hold, exptime: leaseSeconds(r.lease), begun: time.Now()}
	for _, m := range r.hold.list() {
		if !slices.Contains(r.out, m.s) {
			t.also = append(t.also, m.s)
		} else {
			t.left = append(t.left, m.s)
		}
	}
	_, held, err := t.run()
	if err != nil {
		return err
	}
	if !held {
		return lockLost(r.id, t.members[0].s, "renewing the lock of")
	}
	if !r.hold.change(t.copies(), t.views) {
		t.giveBack()
		return lockLost(r.id, t.members[0].s, "renewing the lock of")
	}
	t.freeLeft(r.hold)
	return nil
}

// renewal is one Renew under way.
type renewal struct {
	operation
	hold    *hold
	lease   time.Duration
	members []*server // that are not down
}

// touch makes the lock last longer on the members, and puts it back where it is missing. It tells whether it was.
func (r *renewal) touch() (missing bool, err error) {
	if len(r.members) == 0 {
		return false, nil
	}
	own := func(i item) bool { return ownLock(i, r.hold.token) }
	r.c.together(len(r.members))
	items, errs := each(r.members, func(s *server) (item, error) {
		w, err := s.wire(r.step())
		if err != nil {
			return item{}, err
		}
		return w.renew(r.place, own, leaseSeconds(r.lease), r.step())
	})
	var free []*server
	ours := 0
	for i, s := range r.members {
		switch {
		case errs[i] != nil:
			r.failed(s, errs[i])
		case own(items[i]):
			ours++
		default:
			free = append(free, s)
		}
	}
	if len(free) == 0 {
		return false, nil
	}
	if ours == 0 {
		return true, lockLost(r.id, free[0], "renewing the lock of")
	}
	for i, l := range r.putLock(r.hold, free, r.lease) {
		if l != nil && !own(l.lock) { // nil: it failed
			return true, lockLost(r.id, free[i], "renewing the lock of")
		}
	}
	return true, nil
}

// putLock puts our lock on members that miss it, while another has had it all the time, which whoever took it meanwhile
// would have needed. Who tries to get it has it on some for a moment: it is tried again for as long as they are given.
// It returns what was read, nil where a member failed.
func (o *operation) putLock(h *hold, servers []*server, lease time.Duration) []*locked {
	results := make([]*locked, len(servers))
	waits := make([]func() (locked, error), len(servers))
	begun := time.Now()
	for pause := takePause; ; pause *= 2 {
		n := 0
		for i, s := range servers {
			if waits[i] = nil; (results[i] == nil || !ownLock(results[i].lock, h.token)) && !slices.Contains(o.out, s) {
				waits[i] = s.beginLock(nil, o.place, h.value, leaseSeconds(lease), o.step())
				n++
			}
		}
		if n == 0 {
			return results
		}
		o.c.together(n)
		lost := false
		for i, wait := range waits {
			if wait == nil {
				continue
			}
			l, err := wait()
			if err != nil {
				o.failed(servers[i], err)
				results[i] = nil
				continue
			}
			results[i] = &l
			if ownLock(l.lock, h.token) {
				h.note(servers[i], seen{l.epoch, l.lock.cas})
			} else {
				lost = true
			}
		}
		if !lost || time.Since(begun)+pause > min(takeTime, time.Until(o.deadline)) {
			return results
		}
		time.Sleep(pause)
	}
}

// replace returns the members of a set of which some failed: those that did not, and the set's. The hold, if there is one,
// is theirs from now on.
func (o *operation) replace(members []*server, h *hold) ([]*server, error) {
	if len(o.out) == 0 && len(members) > 0 {
		return members, nil
	}
	set, err := o.set()
	if err != nil {
		return nil, err
	}
	for _, s := range members {
		if !slices.Contains(o.out, s) && !slices.Contains(set, s) {
			set = append(set, s)
		}
	}
	slices.SortFunc(set, func(a, b *server) int { return cmp.Compare(a.name, b.name) })
	if h == nil {
		return set, nil
	}
	before := h.list()
	held := make([]copied, len(set))
	for i, s := range set {
		held[i] = copied{s: s}
		if at := slices.IndexFunc(before, func(c copied) bool { return c.s == s }); at >= 0 {
			held[i] = before[at]
		}
	}
	if !h.change(held, o.views) {
		return nil, lockLost(o.id, set[0], "using")
	}
	for _, m := range before {
		if !slices.Contains(set, m.s) {
			o.left = append(o.left, m.s)
		}
	}
	return set, nil
}
