package backend

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"sessfs"
)

const (
	rebalanceTogether = 16                     // sessions that are moved at a time
	rebalanceLooks    = 10                     // sessions are compared so many times as fast as they are moved
	rebalanceLeft     = 1 << 16                // sessions that could not be moved are remembered
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
	pause        time.Duration // between the dumps of a server
	found        rebalanced
	only         *server // the sessions that it should have; nil: all
	stopped      error   // guarded by mu: ctx's, or the reason why waiting for the rate would be longer than ctx allows

	seed maphash.Seed

	mu     sync.Mutex
	seen   map[uint64]bool         // guarded by mu: hashes of the ids that were counted, and whether as moved; at most listSeen
	p      RebalanceProgress       // guarded by mu
	shown  time.Time               // guarded by mu: when progress was shown
	report RebalanceReport         // guarded by mu
	busy   map[sessfs.ID]misplaced // guarded by mu: locked when it was their turn
	failed map[sessfs.ID]misplaced // guarded by mu: a server failed
	over   uint64                  // guarded by mu: more of both than are remembered
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
	r := &rebalance{c: c, o: o, show: progress, patience: rebalancePatience, pause: listWait, report: RebalanceReport{DryRun: o.DryRun},
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
	r.seed, r.seen = maphash.MakeSeed(), make(map[uint64]bool)
	f.counts, f.listed = make(map[string]uint64), make(map[string]bool)
	if r.only == nil { // what other hosts know is to be known here before it begins; servers that are down show below
		r.c.Check(ctx)
		r.c.exchangeLists()
	}
	_, f.present = r.c.knownLists(f.begun)
	servers := slices.Clone(r.c.servers())
	items := r.items(ctx, servers)
	var errs []error
	if r.only != nil { // nobody looks at its progress server by server
		_, errs = each(servers, func(s *server) (struct{}, error) { return struct{}{}, r.list(ctx, s) })
		errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
		r.update(func() { r.p.Total = r.p.Done })
		if err := cmp.Or(r.stop(nil), ctx.Err()); err != nil {
			return r.report, err
		}
		return r.finish(ctx, servers, errs)
	}
	for i, s := range servers {
		before := r.p.Done
		err := r.list(ctx, s)
		if stopped := cmp.Or(r.stop(nil), ctx.Err()); stopped != nil {
			return r.report, stopped
		}
		if err == nil && r.p.Done-before < listSeen { // a larger one is dumped once only
			f.listed[listName(s.name, s.hasher != nil)] = true
		} else if err != nil {
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
	return r.finish(ctx, servers, errs)
}

// stop notes why all is to stop, and returns the first reason.
func (r *rebalance) stop(err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped = cmp.Or(r.stopped, err)
	return r.stopped
}

// finish does what is left when the servers were listed, of which some failed.
func (r *rebalance) finish(ctx context.Context, servers []*server, errs []error) (RebalanceReport, error) {
	if len(errs) == len(servers) {
		return r.report, fmt.Errorf("listing sessions: %w", errors.Join(errs...))
	}
	if err := r.again(ctx); err != nil {
		return r.report, err
	}
	if r.o.Seal {
		if err := r.sealAll(ctx); err != nil {
			return r.report, err
		}
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
		stopped := r.stop(r.compare(ctx, s, batch))
		batch, bytes = batch[:0], 0
		return stopped
	}
	dumps := listDumps
	if r.only != nil {
		dumps = listMend
	}
	err := s.list(ctx, r.pause, dumps, func(e sessfs.Entry) error {
		size := min(e.Size, 1<<20) // what is larger stands in chunks, which are not read
		if len(batch) == listKeys || (len(batch) > 0 && bytes+size > listBytes) {
			if err := flush(); err != nil {
				return err
			}
		}
		batch, bytes = append(batch, e), bytes+size
		return nil
	})
	if r.stop(nil) == nil {
		flush() // of what came before an error, too
	}
	return err
}

// again tries those that were locked until they are not, or for as long as patience says.
func (r *rebalance) again(ctx context.Context) error {
	pause := 100 * time.Millisecond
	for end := time.Now().Add(r.patience); ; pause = min(2*pause, 2*time.Second) {
		r.mu.Lock()
		list := slices.Collect(maps.Values(r.busy))
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
		if err := r.moveAll(ctx, list); err != nil {
			return err
		}
	}
}

// end draws up the report, and tells all hosts of the lists that nobody needs any more.
func (r *rebalance) end() error {
	c, f := r.c, &r.found
	r.report.Busy, r.report.Failed = uint64(len(r.busy)), uint64(len(r.failed))+r.over
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
