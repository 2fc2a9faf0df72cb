package backend

import (
	"context"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"

	"sessfs"
)

// copies are those of one session on the members of its set.
type copies struct {
	operation
	live bool // where it was listed
	set  []*server
	list []found
	// unread: some are not known, for want of a set or of an answer.
	unread bool
}

// compare finds those of the sessions listed on s whose copies differ, and moves them. An error stops all.
func (r *rebalance) compare(ctx context.Context, s *server, batch []sessfs.Entry) error {
	if err := r.looks.WaitN(ctx, len(batch)); err != nil {
		return err
	}
	all := make([]*copies, 0, len(batch))
	for _, e := range batch {
		o := &copies{operation: r.c.operation(e.ID), live: e.State == sessfs.Live}
		var err error
		o.set, err = o.operation.set()
		o.unread = err != nil
		if o.unread || r.inSet(o.set) {
			all = append(all, o)
		}
	}
	r.read(all)
	var differ []misplaced
	r.update(func() {
		r.p.Done += uint64(len(batch))
		for _, o := range all {
			if !o.unread && !slices.Contains(o.set, s) {
				r.count(s, o.live) // left over: the members have it, or nobody knows it any more
				continue
			}
			first := r.isFirst(o)
			if first {
				r.countAll(o)
			}
			// Those that were counted before are looked at again: a dump may miss what is used just then.
			if (o.unread || o.differ()) && (first || !r.o.DryRun) {
				differ = append(differ, o.misplaced(first))
			}
		}
	})
	return r.moveAll(ctx, differ)
}

// read reads all copies, with one batch for each server.
func (r *rebalance) read(all []*copies) {
	type part struct {
		of   []*copies
		keys []string
	}
	parts := make(map[*server]*part)
	for _, o := range all {
		for _, s := range o.set {
			if parts[s] == nil {
				parts[s] = &part{}
			}
			parts[s].of, parts[s].keys = append(parts[s].of, o), append(parts[s].keys, o.data)
		}
	}
	waits := make(map[*server]func() (got, error), len(parts))
	for s, p := range parts {
		waits[s] = s.beginGet(0, p.keys, r.c.deadline())
	}
	for s, wait := range waits {
		g, err := wait()
		for i, o := range parts[s].of {
			if err != nil {
				o.unread = true
				continue
			}
			o.list = append(o.list, o.found(s, g.items[i], g.epoch))
		}
	}
}

// isFirst tells whether the session is met for the first time. The caller holds mu.
func (r *rebalance) isFirst(o *copies) bool {
	h := maphash.String(r.seed, string(o.id))
	if _, ok := r.seen[h]; ok {
		return false
	}
	if len(r.seen) < listSeen {
		r.seen[h] = false
		return true
	}
	// Of more than are remembered those are taken for known that a server has which was listed before.
	return !slices.ContainsFunc(o.list, func(f found) bool { return f.item.found && r.found.listed[listName(f.s.name, f.s.hasher != nil)] })
}

// countAll counts a session where it is. The caller holds mu.
func (r *rebalance) countAll(o *copies) {
	if !o.live {
		return
	}
	r.report.Sessions++
	for _, f := range o.list {
		r.count(f.s, f.item.found)
	}
}

func (r *rebalance) count(s *server, has bool) {
	if has {
		r.found.counts[s.name]++
	}
}

// misplaced is a session whose copies differ.
type misplaced struct {
	id      sessfs.ID
	live    bool      // no tombstone
	unread  bool      // not all copies could be read
	missing []*server // that were counted as those that do not have it
}

func (o *copies) misplaced(counted bool) misplaced {
	m := misplaced{id: o.id, live: o.live, unread: o.unread}
	for _, f := range o.list {
		if counted && !f.item.found {
			m.missing = append(m.missing, f.s)
		}
	}
	return m
}

// differ tells whether a member lacks the best copy. One that is damaged on all of them cannot be mended.
func (o *copies) differ() bool {
	b, err := best(o.list)
	if err != nil || b == nil {
		return false // damaged everywhere, or it has ended
	}
	for _, f := range o.list {
		if f.rec == nil || f.rec.version != b.rec.version {
			return true
		}
	}
	return false
}

// moveAll moves sessions, some at a time. An error stops all.
func (r *rebalance) moveAll(ctx context.Context, list []misplaced) error {
	if r.o.DryRun {
		r.update(func() {
			for _, m := range list {
				if m.unread {
					r.leave(&r.failed, m)
				} else {
					r.moved(m)
				}
			}
		})
		return ctx.Err()
	}
	var next atomic.Int64
	var all sync.WaitGroup
	var stop atomic.Pointer[error]
	for range min(rebalanceTogether, len(list)) {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(list); i = int(next.Add(1)) - 1 {
				if err := r.moves.Wait(ctx); err != nil {
					stop.Store(&err)
					return
				}
				r.move(ctx, list[i])
			}
		})
	}
	all.Wait()
	if err := stop.Load(); err != nil {
		return *err
	}
	return ctx.Err()
}

// move takes the session's lock and gives it back.
func (r *rebalance) move(ctx context.Context, m misplaced) {
	lease, _, err := r.c.TryLock(ctx, m.id, r.holder)
	if ctx.Err() != nil && err != nil {
		return
	}
	if lease != nil {
		r.c.Unlock(lease)
	}
	if err != nil {
		r.c.log.Warn("a session could not be moved", "session", m.id.Hash(), "err", err)
	}
	r.update(func() {
		for _, left := range []map[sessfs.ID]misplaced{r.busy, r.failed} {
			if before, ok := left[m.id]; ok {
				m.missing = before.missing
				delete(left, m.id)
			}
		}
		switch {
		case err != nil:
			r.leave(&r.failed, m)
		case lease == nil:
			r.leave(&r.busy, m)
		default:
			r.moved(m)
		}
		r.p.Busy, r.p.Failed = uint64(len(r.busy)), uint64(len(r.failed))+r.over
	})
}

// leave remembers a session that could not be moved. The caller holds mu.
func (r *rebalance) leave(left *map[sessfs.ID]misplaced, m misplaced) {
	if len(r.busy)+len(r.failed) >= rebalanceLeft {
		r.over++
		return
	}
	if *left == nil {
		*left = make(map[sessfs.ID]misplaced)
	}
	(*left)[m.id] = m
}

// moved counts a session, once. The caller holds mu.
func (r *rebalance) moved(m misplaced) {
	h := maphash.String(r.seed, string(m.id))
	before, seen := r.seen[h]
	if !m.live || before {
		return
	}
	if seen {
		r.seen[h] = true
	}
	r.p.Moved++
	r.report.Moved++
	for _, s := range m.missing {
		r.count(s, !r.o.DryRun)
	}
}
