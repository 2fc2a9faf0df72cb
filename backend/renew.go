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
	r := &renewal{operation: c.operation(l.ID), hold: h, lease: c.settings.Load().Lease, ours: make(map[*server]bool)}
	sent := sessfs.Boottime()
	for _, m := range h.list() {
		if m.s.down() {
			r.failed(m.s, m.s.downError())
		}
	}
	for {
		servers, err := r.replace(serversOf(h.list()), h)
		if err != nil {
			return err
		}
		todo := slices.DeleteFunc(slices.Clone(servers), func(s *server) bool { return r.ours[s] })
		if len(todo) == 0 {
			l.Deadline = leaseEnd(sent, r.lease)
			return nil
		}
		if err := r.touch(todo); err != nil {
			return err
		}
	}
}

// renewal is one Renew under way.
type renewal struct {
	operation
	hold  *hold
	lease time.Duration
	ours  map[*server]bool // has answered that it is
}

// touch makes the lock last longer on some members, and puts it back where it is missing.
func (r *renewal) touch(servers []*server) error {
	own := func(i item) bool { return ownLock(i, r.hold.token) }
	r.c.together(len(servers))
	items, errs := each(servers, func(s *server) (item, error) {
		w, err := s.wire(r.step())
		if err != nil {
			return item{}, err
		}
		return w.renew(r.place, own, leaseSeconds(r.lease), r.step())
	})
	var free []*server
	for i, s := range servers {
		switch {
		case errs[i] != nil:
			r.failed(s, errs[i])
		case own(items[i]):
			r.ours[s] = true
		default:
			free = append(free, s)
		}
	}
	if len(free) == 0 {
		return nil
	}
	if len(r.ours) == 0 {
		return lockLost(r.id, free[0], "renewing the lock of")
	}
	for i, l := range r.putLock(r.hold, free, r.lease) {
		switch {
		case l == nil: // failed
		case own(l.lock):
			r.ours[free[i]] = true
		default:
			return lockLost(r.id, free[i], "renewing the lock of")
		}
	}
	return nil
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
				waits[i] = s.beginLock(o.place, h.value, leaseSeconds(lease), o.step())
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

func serversOf(members []copied) (list []*server) {
	for _, m := range members {
		list = append(list, m.s)
	}
	return list
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
	if !h.change(held) {
		return nil, lockLost(o.id, set[0], "using")
	}
	for _, m := range before {
		if !slices.Contains(set, m.s) {
			m.s.releaseByToken(h)
		}
	}
	return set, nil
}
