package fusefs

import (
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"sessfs"
)

// fill writes a session's attributes as the kernel wants them.
func (fs *FS) fill(out *fuse.Attr, ino uint64, a sessfs.Attr, size int) {
	a = fs.shown(a)
	*out = fuse.Attr{
		Ino: ino, Size: uint64(size), Blocks: (uint64(size) + 4095) / 4096 * 8, Blksize: 4096, Nlink: 1,
		Mode: syscall.S_IFREG | a.Mode&0o7777, Owner: fuse.Owner{Uid: a.UID, Gid: a.GID},
	}
	out.Atime, out.Atimensec = splitTime(a.Atime)
	out.Mtime, out.Mtimensec = splitTime(a.Mtime)
	out.Ctime, out.Ctimensec = splitTime(a.Ctime)
}

func splitTime(ns int64) (sec uint64, nsec uint32) {
	s, n := ns/1e9, ns%1e9
	if n < 0 {
		s, n = s-1, n+1e9
	}
	return uint64(s), uint32(n)
}

func (fs *FS) fillDir(out *fuse.Attr, ino uint64) {
	*out = fuse.Attr{
		Ino: ino, Size: 4096, Blocks: 8, Blksize: 4096, Nlink: 2,
		Mode: syscall.S_IFDIR | fs.opts.DirMode, Owner: fuse.Owner{Uid: fs.opts.DirUID, Gid: fs.opts.DirGID},
	}
	sec, nsec := splitTime(fs.started.UnixNano())
	out.Atime, out.Mtime, out.Ctime = sec, sec, sec
	out.Atimensec, out.Mtimensec, out.Ctimensec = nsec, nsec, nsec
}

// GetAttr answers stat and fstat. fstat comes without a file handle: size, times and owner belong to the session, so
// an open session is answered from memory while this host holds its lease or the asking process has just opened it.
func (fs *FS) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	if _, ok := fs.names.dirPath(in.NodeId); ok {
		fs.fillDir(&out.Attr, in.NodeId)
		out.SetTimeout(time.Second)
		return fuse.OK
	}
	fs.mu.Lock()
	n := fs.nodes.get(in.NodeId)
	if n == nil {
		fs.mu.Unlock()
		return fs.unknownNode(in.NodeId)
	}
	h, own := n.pick(in.Pid)
	if h == nil {
		fs.mu.Unlock()
		return fs.statClosed(n, &in.Caller, out)
	}
	f, claim := h.file, h.claim
	fs.mu.Unlock()

	if own && h.err(claim) != nil {
		return fuse.EIO
	}
	if !own && !fs.dirAllowed(&in.Caller, wantExec) {
		return fuse.EACCES
	}
	leased := claim != nil && claim.Leased()
	if !leased && claim != nil && !(own && sessfs.Boottime()-h.opened < int64(openFresh)) {
		if st := fs.refresh(f); st != fuse.OK {
			return st
		}
	}
	fs.mu.Lock() // whoever gets the lock meanwhile must know what was answered
	v := h.file.view(in.Pid)
	if !v.exists && !own { // a handle is a file, whatever became of the name
		fs.mu.Unlock()
		return fs.gone(n, in.Pid)
	}
	defer fs.mu.Unlock()
	fs.fill(&out.Attr, n.ino, v.attr, len(v.data))
	if leased && !v.dirty {
		fs.nodes.again(n).mayReuse(v, out)
	}
	return fuse.OK
}

// getAttrAtOnce is GetAttr for the common case: the asking thread has the session open and this host its lease. It
// reports false for all others.
func (fs *FS) getAttrAtOnce(in *fuse.GetAttrIn, out *fuse.AttrOut) (fuse.Status, bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	n := fs.nodes.byIno[in.NodeId]
	if n == nil || in.Pid == 0 {
		return 0, false
	}
	h, own := n.last(func(x *handle) bool { return x.pid == in.Pid })
	if !own || h.claim == nil || !h.claim.Leased() || h.err(h.claim) != nil {
		return 0, false
	}
	h.file.mu.Lock()
	dirty := len(h.file.images) > 0
	v := h.file.published()
	h.file.mu.Unlock()
	if dirty {
		return 0, false
	}
	fs.fill(&out.Attr, n.ino, v.attr, len(v.data))
	n.mayReuse(v, out)
	return fuse.OK, true
}

// mayReuse answers with attributes that the kernel may use again for a moment: not while it may have others, which this
// answer replaces only when the asking process gets to run; nor where the files of two sessions have one node. The caller
// holds FS.mu, since v was taken.
func (n *node) mayReuse(v view, out *fuse.AttrOut) {
	switch {
	case n.retired:
		out.Nlink = 0
	case !n.reused || n.answered == v.base.Version:
		out.SetTimeout(attrTimeout)
		n.reused, n.answered, n.truncator = true, v.base.Version, 0
	}
}

// truncated notes that a truncation by a thread is answered with attributes that are not for reuse.
func (fs *FS) truncated(h *handle, pid uint32) {
	fs.mu.Lock()
	h.node.truncator = pid
	fs.mu.Unlock()
}

// writing notes that a thread writes: it has taken the answer to its truncation, with which the kernel has given up what
// attributes it could reuse, and drops those that it asked for before and hears of later (attr_version in fs/fuse/inode.c).
// So what PHP writes after a truncation (8.2.36 and later always truncate first) leaves nothing that the next OPEN must make
// the kernel forget. Pages that the kernel writes on its own are nobody's.
func (fs *FS) writing(h *handle, in *fuse.WriteIn) {
	if in.Pid == 0 || in.WriteFlags&fuse.WRITE_CACHE != 0 {
		return
	}
	fs.mu.Lock()
	if n := h.node; n.truncator == in.Pid {
		n.reused, n.truncator = false, 0
	}
	fs.mu.Unlock()
}

// forgetOld makes the kernel forget attributes of another version than v, which a process of this host has just read under
// the lock, or is told of by OPEN or CREATE. When they run out counts for nothing: they do so when the kernel's clock says it,
// which ticks as rarely as every 10 ms, and it began when the process that had asked for them got to run. The caller holds
// FS.mu: who asks from now on is answered with v.
func (fs *FS) forgetOld(n *node, v sessfs.Version) {
	if n.reused && n.answered != v {
		fs.device.invalidate(n.ino)
		n.reused = false
	}
}

// pick chooses the handle that speaks for a node: one of the asking thread's process (own), else the last one opened.
// The caller holds FS.mu.
func (n *node) pick(pid uint32) (h *handle, own bool) {
	if h, own = n.last(func(x *handle) bool { return x.pid == pid && pid != 0 }); own {
		return h, true
	}
	if len(n.handles) > 0 && pid != 0 {
		process := threadGroup(pid)
		if h, own = n.last(func(x *handle) bool { return x.process() == process }); own {
			return h, true
		}
	}
	h, _ = n.last(func(*handle) bool { return true })
	return h, false
}

// last returns the last handle opened of those that match.
func (n *node) last(match func(*handle) bool) (h *handle, found bool) {
	for _, x := range n.handles {
		if match(x) && (h == nil || x.fh > h.fh) {
			h = x
		}
	}
	return h, h != nil
}

// refresh looks at the servers for a file that is open here without the lease.
func (fs *FS) refresh(f *file) fuse.Status {
	f.mu.Lock()
	local := f.detached
	f.mu.Unlock()
	if local {
		return fuse.OK
	}
	f.settle(fs.settings.Load().Timeout)
	old := f.sight()
	s, err := fs.store.Read(background, f.id)
	if err != nil {
		fs.failed("read", f.id, err)
		return toErrno(err)
	}
	if f.observe(s, old) {
		fs.mu.Lock()
		ended := fs.detach(f, false, s)
		fs.mu.Unlock()
		closeClaims(ended)
	}
	return fuse.OK
}

// statClosed answers for a session that nobody here has open.
func (fs *FS) statClosed(n *node, c *fuse.Caller, out *fuse.AttrOut) fuse.Status {
	if !fs.dirAllowed(c, wantExec) {
		return fuse.EACCES
	}
	a, size, st := fs.look(n.id)
	if st == fuse.ENOENT {
		return fs.gone(n, c.Pid)
	}
	if st != fuse.OK {
		return st
	}
	fs.fill(&out.Attr, n.ino, a, size)
	return fuse.OK
}

// gone says ENOENT, and marks the name as missing for that process.
func (fs *FS) gone(n *node, pid uint32) fuse.Status {
	fs.mu.Lock()
	ended := fs.marks.set(markKey{n.id, pid}, nil, nil)
	fs.mu.Unlock()
	closeClaims(ended)
	return fuse.ENOENT
}

// look asks the servers for the attributes of a session. While they cannot answer, ids that this host has lately seen
// exist as they were.
func (fs *FS) look(id sessfs.ID) (sessfs.Attr, int, fuse.Status) {
	fs.mu.Lock()
	f := fs.files[id]
	fs.mu.Unlock()
	if f != nil {
		f.settle(fs.settings.Load().Timeout)
	}
	s, err := fs.store.Read(background, id)
	if err != nil {
		fs.mu.Lock()
		seen, ok := fs.seen.get(id)
		fs.mu.Unlock()
		if ok && unavailable(err) {
			return seen.attr, seen.size, fuse.OK
		}
		fs.failed("look up", id, err)
		return sessfs.Attr{}, 0, toErrno(err)
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if s.Exists() {
		fs.seen.put(id, sighting{s.Attr, len(s.Data)})
		return s.Attr, len(s.Data), fuse.OK
	}
	fs.seen.remove(id)
	if a, ok := fs.ghost(id); ok {
		return a, 0, fuse.OK
	}
	if f := fs.files[id]; f != nil { // made here and still open, unwritten
		f.mu.Lock()
		v := f.published()
		f.mu.Unlock()
		if v.exists {
			return v.attr, len(v.data), fuse.OK
		}
	}
	return sessfs.Attr{}, 0, fuse.ENOENT
}
