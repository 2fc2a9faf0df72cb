package fusefs

import (
	"slices"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"sessfs"
	"sessfs/internal/handover"
)

// maxWrite is the longest WRITE the kernel sends: 1 MiB less a page, plus one. PHP's buffers are not page-aligned, and
// at 1 MiB the kernel splits them at a length nobody can foresee; at this one every full WRITE has exactly this size,
// so that one of another size is known to be the last of its pwrite(2) (rule 2).
const maxWrite = 1<<20 - 4096 + 1

// Read answers from memory.
func (fs *FS) Read(_ <-chan struct{}, in *fuse.ReadIn, _ []byte) (fuse.ReadResult, fuse.Status) {
	data, st, ok := fs.readAtOnce(in)
	if !ok {
		if _, f, _ := fs.handle(in.Fh); f != nil {
			if st = fs.refresh(f); st == fuse.OK {
				data = part(f.view(in.Pid).data, in)
			}
		} else {
			st = fuse.EBADF
		}
	}
	return fuse.ReadResultData(data), st
}

// readAtOnce answers a READ. It reports false where the session must be looked at again first: a program without the
// lock begins to read from the start.
func (fs *FS) readAtOnce(in *fuse.ReadIn) (data []byte, st fuse.Status, ok bool) {
	h, f, claim := fs.handle(in.Fh)
	if h == nil {
		return nil, fuse.EBADF, true
	}
	if err := h.err(claim); err != nil {
		return nil, toErrno(err), true
	}
	if in.Offset == 0 && claim != nil && !claim.Leased() {
		f.mu.Lock()
		old := sessfs.Boottime()-f.readAt > int64(openFresh)
		f.mu.Unlock()
		if old {
			return nil, 0, false
		}
	}
	return part(f.view(in.Pid).data, in), fuse.OK, true
}

// part is what a READ asks for.
func part(data []byte, in *fuse.ReadIn) []byte {
	if in.Offset >= uint64(len(data)) {
		return nil
	}
	data = data[in.Offset:]
	return data[:min(len(data), int(in.Size))]
}

// Write stores the session, unless more of it is sure to come: see maxWrite and rule 4.
func (fs *FS) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	h, f, claim := fs.handle(in.Fh)
	if h == nil {
		return 0, fuse.EBADF
	}
	if err := h.err(claim); err != nil {
		return 0, toErrno(err)
	}
	fs.writing(h, in)
	f.storing.Lock()
	defer f.storing.Unlock()
	q := fs.request(in.Unique)
	if fs.doneBefore(f, in.Pid, q) {
		return uint32(len(data)), fuse.OK
	}
	f.mu.Lock()
	v, img := f.viewLocked(in.Pid), f.image(in.Pid)
	off := in.Offset
	if in.Flags&syscall.O_APPEND != 0 {
		off = uint64(len(v.data)) // the offset comes from the kernel's cached size
	}
	end := off + uint64(len(data))
	if end > uint64(fs.settings.Load().MaxSize) || end < off {
		if img != nil {
			img.fail() // what came before must not be published as the whole
		}
		f.mu.Unlock()
		fs.tooLarge(f.id, end)
		return 0, efbig
	}
	next, drop := splice(v.data, img != nil, int(off), data), fs.dropped(&in.Caller, v.attr)
	if len(data) == maxWrite || end < uint64(len(v.data)) {
		f.keep(h, in.Pid, next, true, drop, q)
		f.mu.Unlock()
		return uint32(len(data)), fuse.OK
	}
	f.mu.Unlock()
	if st := fs.storeImage(f, claim, in.Pid, next, drop, q); st != fuse.OK {
		return 0, st
	}
	return uint32(len(data)), fuse.OK
}

// splice returns old with data at off. What belongs to a snapshot (own is false) is copied; an image grows in place.
func splice(old []byte, own bool, off int, data []byte) []byte {
	switch {
	case own && off == len(old):
		return append(old, data...)
	case off == 0 && len(data) >= len(old):
		return append([]byte(nil), data...)
	}
	size := max(off+len(data), len(old))
	next := make([]byte, size)
	copy(next, old)
	copy(next[off:], data)
	return next
}

// storeImage makes data the session's next version on the servers, and takes the mode bits drop away. When that fails
// the process's image stays what it was, for its own eyes, and is not published at RELEASE. q is the request that asks for
// it; nil: none that could be handled again. The caller holds f.storing.
func (fs *FS) storeImage(f *file, claim sessfs.Claim, pid uint32, data []byte, drop uint32, q *handover.Request) fuse.Status {
	f.mu.Lock()
	v, img := f.published(), f.image(pid)
	attr := v.attr
	if img != nil {
		drop |= img.drop
	}
	attr.Mode &^= drop
	attr.Mtime = q.Stamp(now())
	attr.Ctime = attr.Mtime
	local := f.detached
	if local {
		f.set(&sessfs.Session{State: sessfs.Live, Version: v.base.Version, Attr: attr, Data: data})
		if img != nil {
			f.drop(img)
		}
	}
	f.mu.Unlock()
	if local {
		return fuse.OK
	}
	if st := fs.commit(f, claim, v.base, attr, data, q); st != fuse.OK {
		if img != nil {
			f.mu.Lock()
			img.fail()
			img.data = slices.Clip(img.data) // the failed attempt may still be reading what lies behind
			f.mu.Unlock()
		}
		return st
	}
	if img != nil {
		f.mu.Lock()
		f.drop(img)
		f.mu.Unlock()
	}
	return fuse.OK
}

// doneBefore tells whether a former daemon has stored what q asks for, and died before it answered. The caller holds
// f.storing.
func (fs *FS) doneBefore(f *file, pid uint32, q *handover.Request) bool {
	if !q.Again() {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.session.Exists() || f.session.Attr.Ctime != q.Stamp(now()) {
		return false
	}
	if img := f.image(pid); img != nil {
		f.drop(img)
	}
	return true
}

// commit stores and notes what stands there now. q is the request that asks for it (nil: none that could be handled again): a
// former daemon may have begun with it, and what that has stored is found by its time. The caller holds f.storing.
func (fs *FS) commit(f *file, claim sessfs.Claim, base *sessfs.Session, attr sessfs.Attr, data []byte, q *handover.Request) fuse.Status {
	err := fs.tryCommit(f, claim, base, attr, data)
	if err == nil || q.Again() && conflict(err) && fs.isStored(f, data, attr.Mtime) {
		return fuse.OK
	}
	fs.failed("store", f.id, err)
	return toErrno(err)
}

func (fs *FS) tryCommit(f *file, claim sessfs.Claim, base *sessfs.Session, attr sessfs.Attr, data []byte) error {
	if len(data) == 0 && !base.Exists() && claim != nil && claim.Leased() && fs.changeCreated(f, attr) {
		return nil
	}
	var s *sessfs.Session
	var err error
	if claim != nil {
		s, err = claim.Commit(background, base, attr, data)
	} else {
		s, err = fs.store.Commit(background, f.id, base, attr, data)
	}
	if err != nil {
		return err
	}
	f.mu.Lock()
	f.set(s)
	f.mu.Unlock()
	fs.mu.Lock()
	fs.ghosts.remove(f.id) // there is one where the last handle was released meanwhile
	fs.seen.put(f.id, sighting{s.Attr, len(s.Data)})
	fs.mu.Unlock()
	fs.counters.stores.Add(1)
	return nil
}

// Fsync stores what is held back.
func (fs *FS) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	h, f, claim := fs.handle(in.Fh)
	if h == nil {
		return fuse.EBADF
	}
	if err := h.err(claim); err != nil {
		return toErrno(err)
	}
	return fs.storeHeld(h, f, claim)
}

// storeHeld stores the images of h that are worth it now: at fsync and before LOCK_UN.
func (fs *FS) storeHeld(h *handle, f *file, claim sessfs.Claim) fuse.Status {
	f.storing.Lock()
	defer f.storing.Unlock()
	for {
		f.mu.Lock()
		var img *image
		for _, x := range f.images {
			if x.by == h && !x.failed {
				img = x
			}
		}
		f.mu.Unlock()
		if img == nil {
			return fuse.OK
		}
		if st := fs.storeImage(f, claim, img.who.pid, img.data, img.drop, nil); st != fuse.OK {
			return st
		}
	}
}

// Flush comes at close where the kernel has no FOPEN_NOFLUSH (before 5.16): PHP ignores what close says, so there is
// nothing to say, ever.
func (fs *FS) Flush(_ <-chan struct{}, _ *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }
