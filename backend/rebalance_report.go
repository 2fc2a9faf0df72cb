package backend

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// rebalanced is what a search of all servers found.
type rebalanced struct {
	lists      history
	present    list
	counts     map[string]uint64 // sessions, by the server's name
	listed     map[string]bool   // the listNames of servers that were searched to their end
	complete   bool              // every session that was found is where the present list says
	dryRun     bool
	begun, now time.Time
	lifetime   time.Duration
}

// drop marks the lists that nobody needs any more, and returns them. lists keeps the marks.
func (r *rebalanced) drop() (dropped []list) {
	if !r.complete || r.dryRun {
		return nil
	}
	for _, l := range r.lists.alive(r.now, r.lifetime) {
		if r.isPresent(l) || r.unseen(l) != "" {
			continue
		}
		if h, ok := r.lists.drop(l, r.begun, r.now); ok {
			r.lists = h
			dropped = append(dropped, *h.find(l))
		}
	}
	return dropped
}

// listName names a server as one that has names of one kind.
func listName(name string, hashed bool) string {
	if hashed {
		return name + hashedMark
	}
	return name
}

func (r *rebalanced) isPresent(l list) bool {
	return history{r.present}.find(l) != nil
}

// unseen names a server of the list that was not searched: it may have sessions that no other server has.
func (r *rebalanced) unseen(l list) string {
	for _, s := range l.Servers {
		if !r.listed[listName(s.Name, l.Hashed)] {
			return s.Name
		}
	}
	return ""
}

// servers says of each server what it has and when it may be switched off.
func (r *rebalanced) servers() []RebalanceServer {
	var all []RebalanceServer
	add := func(l list, present bool) {
		for _, s := range l.Servers {
			if !slices.ContainsFunc(all, func(o RebalanceServer) bool { return o.Name == s.Name }) {
				all = append(all, RebalanceServer{Name: s.Name, Address: s.Address, Sessions: r.counts[s.Name], Present: present})
			}
		}
	}
	add(r.present, true)
	for _, l := range r.lists.expire(r.now, r.lifetime) {
		add(l, false)
	}
	for i := range all {
		if all[i].Present {
			if !r.listed[listName(all[i].Name, r.present.Hashed)] {
				all[i].Why = "it does not answer"
			}
			continue
		}
		r.release(&all[i])
	}
	slices.SortFunc(all, func(a, b RebalanceServer) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// release says when a server that is not in the present list may be switched off: when no list needs it.
func (r *rebalanced) release(s *RebalanceServer) {
	s.Off = r.now
	helps := true // that time passes, and then another search
	var again time.Time
	for _, l := range r.lists.expire(r.now, r.lifetime) {
		if !slices.ContainsFunc(l.Servers, func(o listServer) bool { return o.Name == s.Name }) {
			continue
		}
		if !l.alive(r.now, r.lifetime) {
			if learned := time.UnixMilli(l.Moved).Add(listRefresh); learned.After(s.Off) {
				s.Off, s.Why = learned, "all hosts know by then that it is not needed"
			}
			continue
		}
		if end := l.ends(r.lifetime); end.After(s.Off) {
			s.Off = end
		}
		switch unseen := r.unseen(l); {
		case r.dryRun:
			helps, s.Why = false, "this was a dry run"
		case !r.complete:
			helps, s.Why = false, "sessions are left to be moved"
		case unseen != "":
			helps, s.Why = false, unseen+" did not answer: it may have sessions that no other server has"
		case helps:
			if from := l.quietFrom(); from.After(again) {
				again = from
			}
			s.Why = fmt.Sprintf("a host had it in its list at %s; if none has, a rebalance after %s finds it free",
				time.UnixMilli(l.Used).Format(time.TimeOnly), again.Format(time.TimeOnly))
		}
	}
	if helps {
		s.Again = again
	}
}
