package backend

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"sessfs"
)

const (
	rebalanceTogether = 16                     // sessions that are moved at a time
	rebalanceLooks    = 10                     // sessions are compared so many times as fast as they are moved
	rebalanceBusy     = 1 << 16                // locked sessions that are remembered, to be tried again
	rebalancePatience = 30 * time.Second       // for which they are tried again
	rebalanceShow     = 200 * time.Millisecond // between two reports of progress
)

// rebalance is one Rebalance under way. It lists every server, compares what the members of each session's set have, and
// takes and gives back the lock of those that are not alike: taking a lock makes them alike, in the sets of all lists.
type rebalance struct {
	c            *Cluster
	o            RebalanceOptions
	show         func(RebalanceProgress)
	holder       sessfs.Holder
	moves, looks *rate.Limiter
	patience     time.Duration
	found        rebalanced
	only         *server // the sessions that it should have; nil: all
	stopped      error   // ctx's, or the reason why waiting for the rate would be longer than ctx allows

	mu     sync.Mutex
	p      RebalanceProgress // guarded by mu
	shown  time.Time         // guarded by mu: when progress was shown
	report RebalanceReport   // guarded by mu
	busy   []misplaced       // guarded by mu: locked when it was their turn
	over   uint64            // guarded by mu: more of them than are remembered
}

// misplaced is a session whose copies differ.
type misplaced struct {
	id     sessfs.ID
	live   bool // no tombstone
	unread bool // not all copies could be read
}

// Rebalance gives every session its copies where the present list of servers says, as if somebody used it, and marks the
// lists before it as no longer needed where that is certain. It may be ended with ctx at any time: what was moved stays
// moved, and another Rebalance finds the rest. progress is called a few times a second, by one goroutine at a time. The
// error wraps sessfs.ErrUnavailable when no server could be listed.
func (c *Cluster) Rebalance(ctx context.Context, o RebalanceOptions, progress func(RebalanceProgress)) (RebalanceReport, error) {
	return c.newRebalance(o, progress).run(ctx)
}

func (c *Cluster) newRebalance(o RebalanceOptions, progress func(RebalanceProgress)) *rebalance {
	if o.Rate <= 0 {
		o.Rate = DefaultRebalanceRate
	}
	r := &rebalance{c: c, o: o, show: progress, patience: rebalancePatience, report: RebalanceReport{DryRun: o.DryRun},
		moves: rate.NewLimiter(rate.Limit(o.Rate), rebalanceTogether), looks: rate.NewLimiter(rate.Limit(rebalanceLooks*o.Rate), listKeys)}
	r.holder = sessfs.Holder{Host: "unknown", PID: uint32(os.Getpid()), Since: time.Now()}
	if host, err := os.Hostname(); err == nil {
		r.holder.Host = host
	}
	return r
}

func (r *rebalance) run(ctx context.Context) (RebalanceReport, error) {
	f := &r.found
	f.begun, f.dryRun = time.Now(), r.o.DryRun
	f.counts, f.listed = make(map[string]uint64), make(map[string]bool)
	if r.only == nil { // what other hosts know is to be known here before it begins; servers that are down show below
		r.c.Check(ctx)
		r.c.exchangeLists()
	}
	_, f.present = r.c.knownLists(f.begun)
	servers := slices.Clone(r.c.servers())
	items := r.items(ctx, servers)
	var errs []error
	for i, s := range servers {
		before := r.p.Done
		if err := r.list(ctx, s); r.stopped != nil || ctx.Err() != nil {
			return r.report, cmp.Or(r.stopped, ctx.Err())
		} else if err == nil {
			f.listed[s.name] = true
		} else {
			errs = append(errs, err)
			r.c.log.Warn("a rebalance goes on without a server: sessions that only it has are not found", "server", s.name, "err", err)
		}
		r.update(func() { // what it held beside sessions is known now
			r.p.Total = r.p.Done
			for j := range servers[i+1:] {
				r.p.Total += items[i+1+j]
			}
		})
		r.c.log.Debug("a rebalance has looked at a server", "server", s.name, "records", r.p.Done-before)
	}
	if len(errs) == len(servers) {
		return r.report, fmt.Errorf("listing sessions: %w", errors.Join(errs...))
	}
	if err := r.again(ctx); err != nil {
		return r.report, err
	}
	err := r.end()
	return r.report, err
}

// items tells how many items each server has; those that do not answer have none.
func (r *rebalance) items(ctx context.Context, servers []*server) []uint64 {
	n := make([]uint64, len(servers))
	for i, a := range r.c.allStats(ctx, servers) {
		n[i] = number(a.stats, "curr_items")
		r.p.Total += n[i]
	}
	return n
}

// update changes the figures, and shows them when that was not done for a while.
func (r *rebalance) update(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
	if now := time.Now(); r.p.Finished || now.Sub(r.shown) >= rebalanceShow {
		r.shown = now
		r.show(r.p)
	}
}

// list looks at all sessions of one server.
func (r *rebalance) list(ctx context.Context, s *server) error {
	r.update(func() { r.p.Server = s.name })
	var batch []sessfs.Entry
	var bytes int64
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		r.stopped = r.compare(ctx, s, batch)
		batch, bytes = batch[:0], 0
		return r.stopped
	}
	err := s.list(ctx, func(e sessfs.Entry) error {
		size := min(e.Size, 1<<20) // what is larger stands in chunks, which are not read
		if len(batch) == listKeys || (len(batch) > 0 && bytes+size > listBytes) {
			if err := flush(); err != nil {
				return err
			}
		}
		batch, bytes = append(batch, e), bytes+size
		return nil
	})
	if r.stopped == nil {
		flush() // of what came before an error, too
	}
	return err
}

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
			if o.live {
				r.found.counts[s.name]++
			}
			if !r.isFirst(o, s) {
				continue
			}
			if o.live {
				r.report.Sessions++
			}
			if o.unread || o.differ() {
				differ = append(differ, misplaced{o.id, o.live, o.unread})
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

// isFirst tells whether s is the first of its members that was listed and has the session. One that is not a member has
// what others have too, or nobody knows any more.
func (r *rebalance) isFirst(o *copies, s *server) bool {
	if o.unread {
		return true
	}
	for _, f := range o.list {
		if f.item.found && r.found.listed[f.s.name] {
			return false
		}
	}
	return slices.Contains(o.set, s)
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
					r.failed()
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
		switch {
		case err != nil:
			r.failed()
		case lease == nil:
			r.p.Busy++
			if len(r.busy) < rebalanceBusy {
				r.busy = append(r.busy, m)
			} else {
				r.over++
			}
		default:
			r.moved(m)
		}
	})
}

// moved counts a session. The caller holds mu.
func (r *rebalance) moved(m misplaced) {
	if m.live {
		r.p.Moved++
		r.report.Moved++
	}
}

// failed counts a session that could not be moved. The caller holds mu.
func (r *rebalance) failed() {
	r.p.Failed++
	r.report.Failed++
}

// again tries those that were locked until they are not, or for as long as patience says.
func (r *rebalance) again(ctx context.Context) error {
	pause := 100 * time.Millisecond
	for end := time.Now().Add(r.patience); ; pause = min(2*pause, 2*time.Second) {
		r.mu.Lock()
		list := r.busy
		r.mu.Unlock()
		if len(list) == 0 || time.Now().After(end) {
			return nil
		}
		r.update(func() { r.p.Text = "locked sessions are tried again" })
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		r.mu.Lock()
		r.busy, r.p.Busy = nil, r.over
		r.mu.Unlock()
		if err := r.moveAll(ctx, list); err != nil {
			return err
		}
	}
}

// end draws up the report, and tells all hosts of the lists that nobody needs any more.
func (r *rebalance) end() error {
	c, f := r.c, &r.found
	r.report.Busy = uint64(len(r.busy)) + r.over
	f.complete = r.report.Complete()
	f.now, f.lifetime = time.Now(), c.settings.Load().Lifetime
	lists, present := c.knownLists(f.now)
	if present.identity() != f.present.identity() {
		return errors.New("the list of servers was changed meanwhile: run it again")
	}
	f.lists = lists
	if r.only == nil {
		if dropped := f.drop(); len(dropped) > 0 {
			c.log.Info("server lists are not needed any more: all sessions were moved", "lists", len(dropped))
			c.adopt(f.lists)
		}
	}
	r.report.Servers = f.servers()
	r.update(func() { r.p.Finished, r.p.Server, r.p.Text = true, "", "" })
	return nil
}
