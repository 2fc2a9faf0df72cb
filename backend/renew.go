package backend

import (
	"cmp"
	"context"
	"slices"

	"sessfs"
)

// Renew implements sessfs.Backend.
func (c *Cluster) Renew(ctx context.Context, l *sessfs.Lease) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h, ok := l.Ref.(*hold)
	if !ok {
		return sessfs.ErrLockLost
	}
	lease := c.settings.Load().Lease
	o := c.operation(l.ID)
	sent := sessfs.Boottime()
	own := func(i item) bool { return ownLock(i, h.token) }
	renewed := make(map[*server]bool)
	var free []*server
	for _, m := range h.list() {
		if m.s.down() {
			o.failed(m.s, m.s.downError())
		}
	}
	for {
		servers, err := o.replace(serversOf(h.list()), h)
		if err != nil {
			return err
		}
		var todo []*server
		for _, s := range servers {
			if !renewed[s] && !slices.Contains(free, s) {
				todo = append(todo, s)
			}
		}
		if len(todo) == 0 && len(free) == 0 {
			l.Deadline = leaseEnd(sent, lease)
			return nil
		}
		if len(todo) > 0 {
			c.together(len(todo))
			items, errs := each(todo, func(s *server) (item, error) {
				w, err := s.wire(o.step())
				if err != nil {
					return item{}, err
				}
				return w.renew(h.place, own, leaseSeconds(lease), o.step())
			})
			for i, s := range todo {
				switch {
				case errs[i] != nil:
					o.failed(s, errs[i])
				case own(items[i]):
					renewed[s] = true
				case items[i].found:
					return lockLost(l.ID, s, "renewing the lock of")
				default:
					free = append(free, s)
				}
			}
			if len(o.out) > 0 && len(renewed) == 0 {
				continue // the rest may have it
			}
		}
		if len(free) == 0 {
			continue
		}
		if len(renewed) == 0 {
			return lockLost(l.ID, free[0], "renewing the lock of")
		}
		for _, s := range free {
			switch l1, err := s.beginLock(h.place, h.value, leaseSeconds(lease), o.step())(); {
			case err != nil:
				o.failed(s, err)
			case !own(l1.lock):
				return lockLost(l.ID, s, "renewing the lock of")
			default:
				renewed[s] = true
				h.note(s, seen{l1.epoch, l1.lock.cas})
			}
		}
		free = nil
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
