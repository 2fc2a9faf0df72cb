package move

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"sessfs"
)

// ImportOptions say what is imported, and how.
type ImportOptions struct {
	Names
	Lifetime time.Duration // of a session since its last change
	MaxSize  int64         // bytes of one
	Lease    time.Duration // of locks on the servers
	Holder   sessfs.Holder // who has them
	Journal  string        // the file that knows what was imported
	DryRun   bool
	// Patience is for how long files that PHP has open, and sessions that are locked, are waited for at the end.
	Patience time.Duration
	// Settled is called when all files are imported but those that PHP has open, whose sessions are locked on the servers
	// until they are closed. Nil: nobody asks.
	Settled func()
	// Progress is told how far it is, now and then. Nil: nobody asks.
	Progress func(done, total uint64, r Report)
}

const (
	workers  = 32
	every    = 100 * time.Millisecond // progress is told
	pollBusy = 10 * time.Millisecond  // files in use are looked at again
	outage   = 3 * time.Second        // for which servers are waited for that do not answer
	large    = 1 << 20                // bytes; files over that are not read two at a time
	// doubt is how much later than a session's end a file must have been changed to be a new one: clocks differ.
	doubt = 2 * time.Second
)

// importer is an Import under way.
type importer struct {
	o       ImportOptions
	b       sessfs.Backend
	dir     *Dir
	journal *journal
	tally   *tally
	total   atomic.Uint64
	large   sync.Mutex // a large file is being read
	pending pending
	fail    context.CancelCauseFunc
}

// file is one that is to be imported.
type file struct {
	entry
	id      sessfs.ID
	lease   *sessfs.Lease // that is held until it is imported; nil: none is
	session *sessfs.Session
	renewed time.Time
	why     string // it is tried again
	open    bool   // that is because it is open for writing, though not locked
}

// Import imports the session files of a directory. It may be ended at any time, by ctx or by force, and done again for what
// is left. An error ends it; it wraps sessfs.ErrUnavailable where that is the reason.
func Import(ctx context.Context, b sessfs.Backend, dir *Dir, o ImportOptions) (Report, error) {
	j, err := openJournal(o.Journal, o.DryRun)
	if err != nil {
		return Report{}, err
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	im := &importer{o: o, b: b, dir: dir, journal: j, tally: newTally(o.DryRun, Imported), fail: fail}
	im.pending.wake = make(chan struct{}, 1)
	end := showProgress(o.Progress, im.tally, im.total.Load)
	err = im.run(ctx)
	end()
	err = errors.Join(err, j.close(err == nil && ctx.Err() == nil))
	r, _ := im.tally.snapshot()
	return r, err
}

func (im *importer) run(ctx context.Context) error {
	err := im.dir.walk(ctx, im.o.Names, func(e entry) {
		im.total.Add(1)
		e.at.done()
	})
	if err != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	files := make(chan *file, 2*workers)
	var all, late sync.WaitGroup
	for range workers {
		all.Go(func() {
			for f := range files {
				im.finish(f, im.attempt(ctx, f, false))
			}
		})
	}
	scanned := make(chan struct{})
	late.Go(func() { im.late(ctx, scanned) })
	err = im.dir.walk(ctx, im.o.Names, func(e entry) {
		f := &file{entry: e, id: sessfs.ID(e.name)}
		im.journal.found(f.id) // one that is refused is there all the same: nobody has logged out
		if e.why != "" {
			im.tally.count(Refused, 0, f.id.Hash(), e.why)
			e.at.done()
			return
		}
		files <- f
	})
	close(files)
	all.Wait()
	if err == nil {
		err = im.removeGone(ctx)
	}
	if err == nil && ctx.Err() == nil && im.o.Settled != nil {
		im.o.Settled()
	}
	if err != nil {
		im.fail(err)
	}
	close(scanned)
	late.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// finish counts what became of a file, or has it tried again.
func (im *importer) finish(f *file, r result) {
	if r.outcome == again {
		im.pending.add(f)
		return
	}
	if f.lease != nil {
		im.b.Unlock(f.lease)
		f.lease = nil
	}
	f.at.done()
	im.tally.count(r.outcome, r.bytes, f.id.Hash(), r.why)
}

// result is what became of an attempt.
type result struct {
	outcome Outcome
	bytes   int64
	why     string
}

// attempt tries a file, and waits a while for servers that do not answer. The last attempt does not wait for those who have
// it open without its lock.
func (im *importer) attempt(ctx context.Context, f *file, last bool) result {
	begun := time.Now()
	for {
		r, err := im.try(ctx, f, last)
		if err == nil {
			return r
		}
		if ctx.Err() != nil {
			return result{outcome: vanished}
		}
		if time.Since(begun) > outage {
			im.fail(err)
			return result{outcome: vanished}
		}
		pause(ctx, every)
	}
}

// try imports a file, or says why not. An error is one of servers that do not answer.
func (im *importer) try(ctx context.Context, f *file, last bool) (result, error) {
	now, err := f.at.look(f.name)
	if err != nil {
		return im.unread(f, err, last), nil
	}
	if f.lease == nil {
		if r, done := im.decide(f, nil, now); done {
			return r, nil
		}
		v, err := im.b.Read(ctx, f.id)
		if err != nil {
			return serverResult(err)
		}
		r, done := im.decide(f, v, now)
		switch {
		case im.o.DryRun && !done:
			return result{outcome: Imported, bytes: now.size}, nil
		case done && (im.o.DryRun || im.final(f, r, last) == nil):
			return r, nil
		}
		if r, err := im.lock(ctx, f); err != nil || r.outcome != "" {
			return r, err
		}
	}
	if r, done := im.decide(f, f.session, now); done {
		if err := im.final(f, r, last); err != nil {
			return im.unread(f, err, last), nil
		}
		return r, nil
	}
	if now.size > large {
		im.large.Lock()
		defer im.large.Unlock()
	}
	c, err := im.dir.copy(f.at, f.name, im.o.MaxSize, last && f.open)
	if err != nil {
		return im.unread(f, err, last), nil
	}
	if r, done := im.decide(f, f.session, c.info); done {
		return r, nil
	}
	if c.racy {
		c.attr.Mtime-- // the next import takes it for changed, and looks again
	}
	if err := im.journal.note(f.id, c.attr.Mtime); err != nil {
		return result{outcome: Failed, why: err.Error()}, nil
	}
	_, err = im.b.Commit(ctx, f.id, f.session, c.attr, c.data, f.lease)
	switch {
	case err == nil:
		return result{outcome: Imported, bytes: c.size}, nil
	case errors.Is(err, sessfs.ErrTooLarge):
		return result{outcome: TooLarge, why: err.Error()}, nil
	}
	// Somebody has destroyed it, or broken the lock; or the servers do not answer. It is begun anew.
	im.b.Unlock(f.lease)
	f.lease, f.session = nil, nil
	if errors.Is(err, sessfs.ErrConflict) || errors.Is(err, sessfs.ErrLockLost) {
		f.why, f.open = "the session was changed on the servers at the same time", false
		return im.againOr(f, last), nil
	}
	return serverResult(err)
}

// final tells why it is not the last word that there is nothing to import: a process has the file open, and may change it.
func (im *importer) final(f *file, r result, last bool) error {
	if r.outcome != Unchanged && r.outcome != Newer {
		return nil
	}
	return im.dir.inUse(f.at, f.name, last && f.open)
}

// serverResult is what an error of the servers means.
func serverResult(err error) (result, error) {
	if errors.Is(err, sessfs.ErrDamaged) {
		return result{outcome: Failed, why: err.Error()}, nil
	}
	return result{}, err
}

// lock takes the session's lock, and reads it under that. Where somebody has it, that is a result.
func (im *importer) lock(ctx context.Context, f *file) (result, error) {
	sent := time.Now()
	holder := im.o.Holder
	holder.Since = sent
	lease, v, err := im.b.TryLock(ctx, f.id, holder)
	if err != nil {
		return serverResult(err)
	}
	if lease == nil {
		f.why, f.open = "its session is locked on the servers", false
		if h, err := im.b.Locked(ctx, f.id); err == nil && h != nil && h.Keep > 0 {
			im.b.Mark(ctx, f.id, h.Token) // it is not used, and only kept
		}
		return result{outcome: again}, nil
	}
	f.lease, f.session, f.renewed = lease, v, sent
	return result{}, nil
}

// decide tells whether there is nothing to import, by what is on the servers and in the directory; a nil session is not
// known yet.
func (im *importer) decide(f *file, v *sessfs.Session, now info) (result, bool) {
	mtime := now.attr.Mtime
	switch {
	case now.attr.Remaining(im.o.Lifetime) <= 0:
		return result{outcome: Expired}, true
	case now.size > im.o.MaxSize:
		return result{outcome: TooLarge, why: fmt.Sprintf("%d bytes; session.max_size is %d", now.size, im.o.MaxSize)}, true
	case v == nil || v.State == sessfs.Missing:
		return result{}, false
	case v.State == sessfs.Destroyed:
		// What is not known to be a new session under an old id is the old one.
		if v.Attr.Ctime == 0 || mtime < v.Attr.Ctime+int64(doubt) {
			return result{outcome: Destroyed}, true
		}
		return result{}, false
	case v.Attr.Mtime > mtime:
		return result{outcome: Newer}, true
	case v.Attr.Mtime == mtime && int64(len(v.Data)) == now.size:
		if err := im.journal.note(f.id, mtime); err != nil {
			return result{outcome: Failed, why: err.Error()}, true
		}
		return result{outcome: Unchanged}, true
	}
	return result{}, false
}

// unread is the result of a file that could not be read.
func (im *importer) unread(f *file, err error, last bool) result {
	var no refusal
	switch {
	case errors.As(err, &no):
		return result{outcome: Refused, why: string(no)}
	case errors.Is(err, errGone):
		return result{outcome: vanished}
	case errors.Is(err, sessfs.ErrTooLarge):
		return result{outcome: TooLarge, why: "it has grown over session.max_size"}
	case errors.Is(err, errLocked), errors.Is(err, errOpen), errors.Is(err, errChanged):
		f.why, f.open = err.Error(), errors.Is(err, errOpen)
		return im.againOr(f, last)
	}
	return result{outcome: Failed, why: err.Error()}
}

func (im *importer) againOr(f *file, last bool) result {
	if last {
		return result{outcome: Busy, why: f.why}
	}
	return result{outcome: again}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
