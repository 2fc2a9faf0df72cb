package fusefs

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"sessfs"
)

// lockCtx is a context that ends when the kernel says that the waiting process got a signal.
type lockCtx struct {
	cancel <-chan struct{}
	queued func()
}

func (c lockCtx) Deadline() (time.Time, bool) { return time.Time{}, false }
func (c lockCtx) Done() <-chan struct{}       { return c.cancel }
func (c lockCtx) Value(key any) any {
	if key == (sessfs.Queued{}) {
		return c.queued
	}
	return nil
}
func (c lockCtx) Err() error {
	select {
	case <-c.cancel:
		return context.Canceled
	default:
		return nil
	}
}

// SetLk is flock with LOCK_NB, and LOCK_UN.
func (fs *FS) SetLk(cancel <-chan struct{}, in *fuse.LkIn) fuse.Status {
	return fs.flock(cancel, in, false)
}

// SetLkw is flock. It is the only operation that may last, and that a signal ends: EINTR, which PHP retries, and
// without which kill -9 of a waiting process would hang.
func (fs *FS) SetLkw(cancel <-chan struct{}, in *fuse.LkIn) fuse.Status {
	return fs.flock(cancel, in, true)
}

// GetLk is never sent for flock.
func (fs *FS) GetLk(_ <-chan struct{}, _ *fuse.LkIn, _ *fuse.LkOut) fuse.Status { return fuse.ENOSYS }

func (fs *FS) flock(cancel <-chan struct{}, in *fuse.LkIn, wait bool) fuse.Status {
	if in.LkFlags&fuse.FUSE_LK_FLOCK == 0 {
		return enolck // fcntl locks stay with the kernel: they are not asked for at INIT
	}
	h, f, claim := fs.handle(in.Fh)
	if h == nil {
		return fuse.EBADF
	}
	if err := h.err(claim); err != nil {
		return toErrno(err)
	}
	if claim == nil {
		return fuse.OK // unlinked: there is nobody to exclude
	}
	var kind sessfs.LockKind
	switch in.Lk.Typ {
	case syscall.F_UNLCK:
		st := fs.storeHeld(h, f, claim)
		h.record.SetKind(0)
		claim.Unlock()
		return st
	case syscall.F_RDLCK:
		kind = sessfs.Shared
	case syscall.F_WRLCK:
		kind = sessfs.Exclusive
	default:
		return fuse.EINVAL
	}
	h.waiting.Add(1)
	s, err := claim.Lock(lockCtx{cancel, func() { fs.queued(in.Unique) }}, kind, wait)
	if err == nil {
		h.record.SetKind(kind)
	}
	if err == nil && s == nil {
		h.waiting.Add(-1)
		return fuse.OK
	}
	if err != nil {
		h.waiting.Add(-1)
		return fs.lockFailed(h, err)
	}
	fs.rebind(h, s)
	return fuse.OK
}

// lockAtOnce gets the lock where this host has its lease and nobody here wants it before. It reports false for
// everything else.
func (fs *FS) lockAtOnce(in *fuse.LkIn) bool {
	if in.LkFlags&fuse.FUSE_LK_FLOCK == 0 || in.Lk.Typ != syscall.F_WRLCK {
		return false
	}
	h, _, claim := fs.handle(in.Fh)
	if h == nil || claim == nil || h.failed.Load() || !claim.LockAtOnce(sessfs.Exclusive) {
		return false
	}
	h.record.SetKind(sessfs.Exclusive)
	return true
}

// lockFailed: PHP ignores every error of flock but EINTR and would go on without the lock; so the handle fails from
// now on, whatever is asked of it.
func (fs *FS) lockFailed(h *handle, err error) fuse.Status {
	if errors.Is(err, sessfs.ErrLocked) || errors.Is(err, context.Canceled) {
		return toErrno(err)
	}
	fs.mu.Lock()
	unlinked := h.claim == nil
	fs.mu.Unlock()
	if unlinked {
		return fuse.OK // its claim was closed by the unlink
	}
	h.failed.Store(true)
	h.record.SetFailed()
	fs.failed("lock", h.node.id, err)
	return fuse.EIO
}

// rebind leads a handle to what its lock wait found (rule 8): the session as it is now, or, where it was destroyed
// meanwhile, a new empty one whose first store is conditional on the tombstone.
func (fs *FS) rebind(h *handle, s *sessfs.Session) {
	fs.mu.Lock()
	f := h.file
	f.mu.Lock()
	old := f.published()
	replaced := f.session.Exists() && !s.Exists() && !f.detached
	f.mu.Unlock()
	var ended []sessfs.Claim
	if replaced {
		ended = fs.detach(f, false, s) // h counts as waiting still, and stays with the name
		f = h.file
	}
	h.waiting.Add(-1)
	f.mu.Lock()
	f.set(s)
	if !s.Exists() && f.created == nil {
		a := old.attr
		if !old.exists {
			a = f.like
		}
		a.Atime, a.Mtime, a.Ctime = now(), now(), now()
		f.created = &a
		f.note()
	}
	f.mu.Unlock()
	fs.forgetOld(h.node, s.Version)
	fs.mu.Unlock()
	closeClaims(ended)
}
