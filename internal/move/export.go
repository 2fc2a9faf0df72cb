package move

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"sessfs"
)

// ExportOptions say what is exported, and how.
type ExportOptions struct {
	Names
	DryRun bool
	// Owner, where it is not nil, has all files, as the mount shows them.
	Owner *Owner
	// Patience is for how long files that PHP has open are waited for.
	Patience time.Duration
	// Progress is told how far it is, now and then; total is what the servers say they have. Nil: nobody asks.
	Progress func(done, total uint64, r Report)
}

// Owner is whom a file belongs to.
type Owner struct{ UID, GID uint32 }

// tempName is what the names of files begin with that are not complete yet.
const tempName = ".sessfs-export-"

// exporter is an Export under way.
type exporter struct {
	o      ExportOptions
	b      sessfs.Backend
	dir    *Dir
	tally  *tally
	listed atomic.Uint64
	large  sync.Mutex // a large session is being read
}

// Export writes the sessions of the servers to a directory. Files that are newer than their sessions are left alone. It may
// be ended at any time and done again for what is left. An error ends it; it wraps sessfs.ErrUnavailable where that is the
// reason.
func Export(ctx context.Context, b sessfs.Backend, dir *Dir, o ExportOptions) (Report, error) {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	ex := &exporter{o: o, b: b, dir: dir, tally: newTally(o.DryRun, Exported)}
	end := showProgress(o.Progress, ex.tally, func() uint64 { return ex.listed.Load() })
	sessions := make(chan sessfs.Entry, 2*workers)
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for e := range sessions {
				if ctx.Err() != nil {
					continue
				}
				r, err := ex.export(ctx, e)
				if err != nil {
					fail(err)
					continue
				}
				ex.tally.count(r.outcome, r.bytes, e.ID.Hash(), r.why)
			}
		})
	}
	err := b.List(ctx, func(e sessfs.Entry) error {
		if e.State != sessfs.Live {
			return nil
		}
		ex.listed.Add(1)
		select {
		case sessions <- e:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	close(sessions)
	all.Wait()
	end()
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	r, _ := ex.tally.snapshot()
	return r, err
}

// export writes one session. An error is one of servers that do not answer.
func (ex *exporter) export(ctx context.Context, e sessfs.Entry) (result, error) {
	name := string(e.ID)
	sub, ok := ex.o.Match(name)
	if !ok || name == "." || name == ".." || strings.HasPrefix(name, tempName) {
		return result{outcome: Refused, why: "the name is none of `files`"}, nil
	}
	if len(sub) < ex.o.Depth {
		return result{outcome: Refused, why: fmt.Sprintf("the name is too short for depth %d", ex.o.Depth)}, nil
	}
	at, err := ex.levelOf(sub[:ex.o.Depth])
	if err != nil {
		return failure(err), nil
	}
	if at != nil {
		defer at.done()
		if r, done := ex.compare(at, name, e.Attr.Mtime, e.Size); done {
			return r, nil
		}
	}
	if ex.o.DryRun {
		return result{outcome: Exported, bytes: e.Size}, nil
	}
	if e.Size > large {
		ex.large.Lock()
		defer ex.large.Unlock()
	}
	v, err := ex.b.Read(ctx, e.ID)
	switch {
	case errors.Is(err, sessfs.ErrDamaged):
		return failure(err), nil
	case err != nil:
		return result{}, err
	case v.State != sessfs.Live:
		return result{outcome: vanished}, nil
	}
	return ex.write(ctx, at, name, v), nil
}

func failure(err error) result {
	var no refusal
	if errors.As(err, &no) {
		return result{outcome: Refused, why: string(no)}
	}
	return result{outcome: Failed, why: err.Error()}
}

// compare tells whether the file that is there stays.
func (ex *exporter) compare(at *level, name string, mtime, size int64) (result, bool) {
	now, err := at.look(name)
	switch {
	case errors.Is(err, errGone):
		return result{}, false
	case err != nil:
		return failure(err), true
	case now.attr.Mtime > mtime:
		return result{outcome: Newer}, true
	case now.attr.Mtime == mtime && now.size == size:
		return result{outcome: Unchanged}, true
	}
	return result{}, false
}

// levelOf opens the directory of a session's file, and makes what is missing, like the one above; nil: in a dry run it is not
// there.
func (ex *exporter) levelOf(path string) (*level, error) {
	l := ex.dir.root.use()
	for i := range len(path) {
		name := path[i : i+1]
		if !ex.o.Level(name) {
			l.done()
			return nil, refusal(fmt.Sprintf("depth %d asks for a directory that may not have its name", ex.o.Depth))
		}
		next, err := l.enter(name)
		if errors.Is(err, unix.ENOENT) {
			if ex.o.DryRun {
				l.done()
				return nil, nil
			}
			if err = ex.makeLevel(l, name); err == nil {
				next, err = l.enter(name)
			}
		}
		l.done()
		if err != nil {
			return nil, fmt.Errorf("the directory of the file's level: %w", err)
		}
		l = next
	}
	return l, nil
}

func (ex *exporter) makeLevel(l *level, name string) error {
	if err := unix.Mkdirat(l.fd, name, 0o700); err != nil {
		if errors.Is(err, unix.EEXIST) { // another worker
			return nil
		}
		return err
	}
	fd, err := unix.Openat(l.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	st := &ex.dir.stat
	return errors.Join(unix.Fchown(fd, int(st.Uid), int(st.Gid)), unix.Fchmod(fd, st.Mode&0o7777))
}

// write puts a session's file in its place, whole or not at all.
func (ex *exporter) write(ctx context.Context, at *level, name string, v *sessfs.Session) result {
	for begun := time.Now(); ; pause(ctx, pollBusy) {
		err := ex.replace(at, name, v)
		switch {
		case err == nil:
			return result{outcome: Exported, bytes: int64(len(v.Data))}
		case !errors.Is(err, errLocked):
			return failure(err)
		case ctx.Err() != nil:
			return result{outcome: vanished}
		}
		if r, done := ex.compare(at, name, v.Attr.Mtime, int64(len(v.Data))); done {
			return r
		}
		if time.Since(begun) > ex.o.Patience {
			return result{outcome: Busy, why: err.Error()}
		}
	}
}

// replace writes a file aside and renames it. The one that is there must not be in use: what PHP writes to it is lost then.
func (ex *exporter) replace(at *level, name string, v *sessfs.Session) error {
	old, _, err := at.open(name)
	switch {
	case err == nil:
		defer unix.Close(old)
		if err := unix.Flock(old, unix.LOCK_EX|unix.LOCK_NB); err != nil {
			if errors.Is(err, unix.EWOULDBLOCK) {
				return errLocked
			}
			return fmt.Errorf("flock: %w", err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(old, &st); err != nil {
			return fmt.Errorf("stat: %w", err)
		}
		if now := infoOf(&st); now.attr.Mtime > v.Attr.Mtime {
			return errLocked // it has changed since; it is compared again
		}
	case !errors.Is(err, errGone):
		return err
	}
	tmp := tempName + sessfs.ID(name).Hash()
	fd, err := create(at, tmp)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err = ex.fill(fd, v); err == nil {
		if err = unix.Renameat(at.fd, tmp, at.fd, name); err == nil {
			return nil
		}
		err = fmt.Errorf("rename: %w", err)
	}
	unix.Unlinkat(at.fd, tmp, 0)
	return err
}

// create makes a new file; one that is there is what an export has left that was killed.
func create(at *level, name string) (int, error) {
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(at.fd, name, flags, 0o600)
	if errors.Is(err, unix.EEXIST) {
		unix.Unlinkat(at.fd, name, 0)
		fd, err = unix.Openat(at.fd, name, flags, 0o600)
	}
	if err != nil {
		return -1, fmt.Errorf("making a file: %w", err)
	}
	return fd, nil
}

func (ex *exporter) fill(fd int, v *sessfs.Session) error {
	if err := writeAll(fd, v.Data); err != nil {
		return err
	}
	uid, gid := v.Attr.UID, v.Attr.GID
	if o := ex.o.Owner; o != nil {
		uid, gid = o.UID, o.GID
	}
	// First the owner: a change of it takes bits of the mode away.
	if err := unix.Fchown(fd, int(uid), int(gid)); err != nil {
		return fmt.Errorf("chown: %w", err)
	}
	if err := unix.Fchmod(fd, v.Attr.Mode&0o777); err != nil {
		return fmt.Errorf("chmod: %w", err)
	}
	return setTimes(fd, v.Attr.Atime, v.Attr.Mtime)
}

// setTimes is futimens(3).
func setTimes(fd int, atime, mtime int64) error {
	times := [2]unix.Timespec{unix.NsecToTimespec(atime), unix.NsecToTimespec(mtime)}
	if _, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&times)), 0, 0, 0); errno != 0 {
		return fmt.Errorf("setting the times: %w", errno)
	}
	return nil
}
