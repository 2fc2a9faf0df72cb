package move

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"sessfs"
)

// pending are the files that are tried again.
type pending struct {
	mu    sync.Mutex
	files []*file // guarded by mu
	wake  chan struct{}
}

func (p *pending) add(f *file) {
	p.mu.Lock()
	p.files = append(p.files, f)
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *pending) take() []*file {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.files
	p.files = nil
	return list
}

// late tries files again that were in use, and keeps their sessions locked meanwhile. It ends when none is left after all
// were scanned, when patience is at its end, or with ctx.
func (im *importer) late(ctx context.Context, scanned <-chan struct{}) {
	var patience <-chan time.Time
	for last := false; ; {
		list := im.pending.take()
		im.together(len(list), func(i int) {
			if ctx.Err() != nil {
				im.finish(list[i], result{outcome: vanished})
				return
			}
			im.retry(ctx, list[i], last)
		})
		if scanned == nil && len(list) == 0 || last {
			return
		}
		var poll <-chan time.Time
		if len(list) > 0 {
			poll = time.After(pollBusy)
		}
		select {
		case <-scanned:
			scanned, patience = nil, time.After(im.o.Patience)
		case <-im.pending.wake:
			if poll != nil {
				pause(ctx, pollBusy)
			}
		case <-poll:
		case <-patience:
			last = true
		case <-ctx.Done():
			if scanned != nil {
				<-scanned // the workers may still add some
				scanned = nil
			}
		}
	}
}

// retry tries a file once more, with its lock if it has one.
func (im *importer) retry(ctx context.Context, f *file, last bool) {
	if f.lease != nil && time.Since(f.renewed) > im.o.Lease/4 {
		sent := time.Now()
		if err := im.b.Renew(ctx, f.lease); err != nil || sessfs.Boottime() > f.lease.Deadline {
			im.b.Unlock(f.lease)
			f.lease, f.session = nil, nil
		}
		f.renewed = sent
	}
	r := im.attempt(ctx, f, last)
	if last && r.outcome == again {
		r = result{outcome: Busy, why: f.why}
	}
	im.finish(f, r)
}

// together calls fn for 0 to n-1, some at a time.
func (im *importer) together(n int, fn func(int)) {
	var next atomic.Int64
	var all sync.WaitGroup
	for range min(workers, n) {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				fn(i)
			}
		})
	}
	all.Wait()
}

// removeGone destroys the sessions whose files were imported and are gone since: PHP has destroyed them, and their users
// must not be logged in again. Those that were changed on the servers since live there.
func (im *importer) removeGone(ctx context.Context) error {
	gone := im.journal.gone()
	ids := make([]sessfs.ID, 0, len(gone))
	for id := range gone {
		ids = append(ids, id)
	}
	var mu sync.Mutex
	var bad error
	im.together(len(ids), func(i int) {
		mu.Lock()
		failed := bad != nil
		mu.Unlock()
		if failed || ctx.Err() != nil {
			return
		}
		if err := im.remove(ctx, ids[i], gone[ids[i]]); err != nil {
			mu.Lock()
			bad = err
			mu.Unlock()
		}
	})
	return bad
}

// remove destroys a session that is as it was imported, with one of those times of change.
func (im *importer) remove(ctx context.Context, id sessfs.ID, times stored) error {
	v, err := im.b.Read(ctx, id)
	if err != nil {
		return err
	}
	if v.State != sessfs.Live || !times.are(v.Attr.Mtime) {
		im.journal.forget(id)
		return nil
	}
	if im.o.DryRun {
		im.tally.count(Removed, 0, "", "")
		return nil
	}
	lease, v, err := im.b.TryLock(ctx, id, im.o.Holder)
	switch {
	case err != nil:
		return err
	case lease == nil: // whoever uses it changes or touches it, and makes it a session of the servers
		return nil
	}
	defer im.b.Unlock(lease)
	if v.State == sessfs.Live && times.are(v.Attr.Mtime) {
		if _, _, err := im.b.Destroy(ctx, id); err != nil {
			return err
		}
		im.tally.count(Removed, 0, "", "")
	}
	im.journal.forget(id)
	return nil
}
