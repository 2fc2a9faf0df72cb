package fusefs

import (
	"errors"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"sessfs"
)

// openFlags of every file: sizes of reads and writes come through as they are (pages cached before a lock was waited
// for would be served stale after it), and close sends no FLUSH. Bit 5 is FOPEN_NOFLUSH (Linux 5.16).
const openFlags = fuse.FOPEN_DIRECT_IO | 1<<5

// Open reads the session and tries the lock in the same round trip: PHP asks for it next. A missing session is ESTALE:
// the kernel looks the name up again, hears ENOENT because of the mark, and sends CREATE if the caller wants that.
func (fs *FS) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if _, ok := fs.names.dirPath(in.NodeId); ok {
		return eisdir
	}
	if !fs.dirAllowed(&in.Caller, wantExec) {
		return fuse.EACCES
	}
	if st := fs.mayOpen(in.Uid); st != fuse.OK {
		return st
	}
	fs.mu.Lock()
	n := fs.nodes.get(in.NodeId)
	retried, last := fs.retries.last(in.Pid, in.NodeId)
	switch {
	case n == nil && last:
		n = fs.nodes.lastNode(retried)
	case n == nil:
		fs.retries.stale(in.Pid, "")
		fs.mu.Unlock()
		return fs.unknownNode(in.NodeId)
	}
	if h := fs.handles[in.Unique]; h != nil { // a former daemon has opened it, and died before it answered
		defer fs.mu.Unlock()
		return fs.openAgain(h, in, out)
	}
	if n.retired {
		st := fs.reopen(n, in, out)
		if st == estale && !last {
			fs.retries.stale(in.Pid, n.id)
		}
		if st != estale || !last {
			fs.mu.Unlock()
			return st
		}
	}
	if err := fs.unsaved[n.id]; err != nil {
		delete(fs.unsaved, n.id)
		fs.mu.Unlock()
		return fuse.EIO
	}
	f := fs.files[n.id]
	fs.mu.Unlock()

	if f != nil {
		f.settle(fs.settings.Load().Timeout)
	}
	old := f.sight()
	claim, s, err := fs.store.Open(background, n.id, in.Flags&syscall.O_ACCMODE != syscall.O_RDONLY, in.Pid)
	if err != nil {
		fs.failed("open", n.id, err)
		return toErrno(err)
	}
	fs.mu.Lock()
	if s, err = fs.sure(n.id, s); err != nil {
		fs.mu.Unlock()
		claim.Close()
		fs.failed("open", n.id, err)
		return toErrno(err)
	}
	n = fs.nodes.again(n)
	h, ended, st := fs.bind(n, claim, s, old, in, last)
	if st == estale && last {
		fs.marks.take(markKey{n.id, in.Pid}) // bind has kept claim in it
		if h, st = fs.openLast(n, claim, s, in); st != fuse.OK {
			ended = append(ended, claim)
		}
	}
	switch st {
	case estale:
		fs.retries.stale(in.Pid, n.id)
	case fuse.OK:
		fs.forgetOld(n, s.Version)
	}
	fs.mu.Unlock()
	closeClaims(ended)
	if st != fuse.OK {
		return st
	}
	out.Fh, out.OpenFlags = h.fh, openFlags
	return fuse.OK
}

// openAgain answers an OPEN that was handled before. The caller holds FS.mu.
func (fs *FS) openAgain(h *handle, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if in.Flags&syscall.O_TRUNC != 0 {
		h.file.mu.Lock()
		h.file.keep(h, in.Pid, nil, false, fs.dropped(&in.Caller, h.file.published().attr), fs.request(in.Unique))
		h.file.mu.Unlock()
	}
	out.Fh, out.OpenFlags = h.fh, openFlags
	return fuse.OK
}

// sure reads a session again that was read as missing, and that others here have stored or read meanwhile: the LOOKUP
// before this OPEN may have said that it exists, because they had it open, so that a second ESTALE would reach the
// process. The caller holds FS.mu, which is given up over the read.
func (fs *FS) sure(id sessfs.ID, s *sessfs.Session) (*sessfs.Session, error) {
	for try := 0; !s.Exists() && try < 3; try++ {
		seen, ok := fs.seen.get(id)
		if !ok {
			break
		}
		fs.mu.Unlock()
		again, err := fs.store.Read(background, id)
		fs.mu.Lock()
		if err != nil {
			return nil, err
		}
		if s = again; !s.Exists() {
			if now, _ := fs.seen.get(id); now == seen { // it has expired
				fs.seen.remove(id)
			}
		}
	}
	return s, nil
}

// bind makes the handle of an OPEN whose answer is s: of the last one of its system call on a retired node, too. The caller
// holds FS.mu, and closes the claims without it.
func (fs *FS) bind(n *node, claim sessfs.Claim, s *sessfs.Session, old sight, in *fuse.OpenIn, last bool) (*handle, []sessfs.Claim, fuse.Status) {
	var ended []sessfs.Claim
	f := fs.files[n.id]
	if f != nil && f.observe(s, old) {
		ended = fs.detach(f, false, s)
		f = fs.files[n.id]
	}
	var v view
	if f != nil {
		f.mu.Lock()
		v = f.published()
		f.mu.Unlock()
	} else if v.exists = s.Exists(); v.exists {
		v.attr = s.Attr
	} else if v.attr, v.exists = fs.ghost(n.id); v.exists {
		f = fs.fileOf(n.id, s)
		a := v.attr
		f.created = &a
		f.note()
		defer fs.dropUnused(f)
	}
	if !v.exists || n.retired && !last {
		return nil, append(ended, fs.marks.set(markKey{n.id, in.Pid}, claim, s)...), estale
	}
	want := wantOf(in.Flags)
	if in.Flags&syscall.O_TRUNC != 0 {
		want |= wantWrite
	}
	if !fs.fileAllowed(&in.Caller, v.attr, want) {
		return nil, append(ended, claim), fuse.EACCES
	}
	if f == nil {
		f = fs.fileOf(n.id, s)
	}
	ended = append(ended, fs.marks.drop(markKey{n.id, in.Pid})...)
	h := fs.attach(n, f, claim, &in.InHeader, in.Flags)
	fs.seen.put(n.id, sighting{v.attr, len(v.data)})
	if in.Flags&syscall.O_TRUNC != 0 {
		f.mu.Lock()
		f.keep(h, in.Pid, nil, false, fs.dropped(&in.Caller, v.attr), fs.request(in.Unique))
		f.mu.Unlock()
	}
	return h, ended, fuse.OK
}

// dropUnused takes a file that got no handle out of the table. The caller holds FS.mu.
func (fs *FS) dropUnused(f *file) {
	if f.refs == 0 && fs.files[f.id] == f {
		fs.memory.EndFile(f.record)
		delete(fs.files, f.id)
	}
}

// reopen opens a retired node. The kernel has forgotten the name of one that was unlinked here, so that it is opened
// through /proc/PID/fd. Of a session that is gone on the servers it still knows the name: ESTALE makes it look that up
// again, and leads it to what the name is now. The caller holds FS.mu.
func (fs *FS) reopen(n *node, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	x, _ := n.pick(in.Pid)
	if x == nil {
		return estale
	}
	x.file.mu.Lock()
	unlinked := x.file.detached
	x.file.mu.Unlock()
	if !unlinked {
		fs.unknown.add(fs.nodes.of(n.id).ino) // the LOOKUPs after this must tell the truth
		return estale
	}
	v := x.file.view(in.Pid)
	if !fs.fileAllowed(&in.Caller, v.attr, wantOf(in.Flags)) {
		return fuse.EACCES
	}
	h := fs.attach(n, x.file, nil, &in.InHeader, in.Flags)
	out.Fh, out.OpenFlags = h.fh, openFlags
	return fuse.OK
}

// Create makes a session, or opens the one that is there after all. The lock and the servers' answer are already here
// when an OPEN of the same process found the session missing; nothing is stored until something is written, but for
// O_EXCL, whose promise only the servers can keep.
func (fs *FS) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	levels, ok := fs.names.dirPath(in.NodeId)
	if !ok {
		return enotdir
	}
	if !fs.names.inDir(levels, name) {
		return fuse.EPERM // a name that the configuration's files do not allow
	}
	if !fs.dirAllowed(&in.Caller, wantExec) {
		return fuse.EACCES
	}
	if st := fs.mayOpen(in.Uid); st != fuse.OK {
		return st
	}
	id := sessfs.ID(name)
	fs.mu.Lock()
	if h := fs.handles[in.Unique]; h != nil { // see Open
		defer fs.mu.Unlock()
		if h.file.view(in.Pid).base.Exists() {
			fs.openAgain(h, &fuse.OpenIn{InHeader: in.InHeader, Flags: in.Flags}, &out.OpenOut)
		}
		fs.created(h, in, out)
		return fuse.OK
	}
	fs.retries.last(in.Pid, 0) // there is no second OPEN
	claim, s, ok := fs.marks.take(markKey{id, in.Pid})
	f := fs.files[id]
	fs.mu.Unlock()
	var old sight // of a mark: before anybody had the session open here
	if !ok || claim == nil {
		old = f.sight()
		var err error
		claim, s, err = fs.store.Open(background, id, in.Flags&syscall.O_ACCMODE != syscall.O_RDONLY, in.Pid)
		if err != nil {
			fs.failed("create", id, err)
			return toErrno(err)
		}
	}
	exclusive := in.Flags&syscall.O_EXCL != 0
	if exclusive {
		var st fuse.Status
		if s, st = fs.createExclusive(id, claim, s, in); st != fuse.OK {
			claim.Close()
			return st
		}
	}
	fs.mu.Lock()
	var h *handle
	var ended []sessfs.Claim
	st := fuse.OK
	if exclusive { // whoever made a file may use it as it asked, whatever the mode
		h = fs.attachNew(fs.nodes.of(id), claim, s, in)
	} else {
		h, ended, st = fs.bindNew(id, claim, s, old, in)
	}
	if st == fuse.OK {
		fs.created(h, in, out)
	}
	fs.mu.Unlock()
	closeClaims(ended)
	return st
}

// created answers a CREATE. The caller holds FS.mu.
func (fs *FS) created(h *handle, in *fuse.CreateIn, out *fuse.CreateOut) {
	fs.enter(h.node, &out.EntryOut)
	v := h.file.view(in.Pid)
	fs.forgetOld(h.node, v.base.Version)
	fs.fill(&out.Attr, h.node.ino, v.attr, len(v.data))
	out.Fh, out.OpenOut.OpenFlags = h.fh, openFlags
}

// createExclusive adds an empty session on the servers.
func (fs *FS) createExclusive(id sessfs.ID, claim sessfs.Claim, s *sessfs.Session, in *fuse.CreateIn) (*sessfs.Session, fuse.Status) {
	fs.mu.Lock()
	_, ghost := fs.ghost(id)
	fs.mu.Unlock()
	if s.Exists() || ghost {
		return nil, eexist
	}
	if !fs.dirAllowed(&in.Caller, wantWrite|wantExec) {
		return nil, fuse.EACCES
	}
	made, err := claim.Commit(background, s, newAttr(in), nil)
	if errors.Is(err, sessfs.ErrConflict) {
		return nil, eexist
	}
	if err != nil {
		fs.failed("create", id, err)
		return nil, toErrno(err)
	}
	return made, fuse.OK
}

// newAttr are the attributes of a session that the caller makes.
func newAttr(in *fuse.CreateIn) sessfs.Attr {
	t := now()
	return sessfs.Attr{UID: in.Uid, GID: in.Gid, Mode: in.Mode & 0o7777, Atime: t, Mtime: t, Ctime: t}
}

// bindNew makes the handle of a CREATE. The caller holds FS.mu, and closes the claims without it.
func (fs *FS) bindNew(id sessfs.ID, claim sessfs.Claim, s *sessfs.Session, old sight, in *fuse.CreateIn) (*handle, []sessfs.Claim, fuse.Status) {
	n := fs.nodes.of(id)
	open := fuse.OpenIn{InHeader: in.InHeader, Flags: in.Flags}
	if f := fs.files[id]; s.Exists() || f != nil && fs.exists(f) {
		h, ended, st := fs.bind(n, claim, s, old, &open, false)
		if st != estale {
			return h, ended, st
		}
		// It was there, and s shows that it is gone: bind has retired the node and kept claim in a mark.
		fs.marks.take(markKey{id, in.Pid})
		n = fs.nodes.of(id)
		if !fs.dirAllowed(&in.Caller, wantWrite|wantExec) {
			return nil, append(ended, claim), fuse.EACCES
		}
		return fs.attachNew(n, claim, s, in), ended, fuse.OK
	}
	if a, ok := fs.ghost(id); ok {
		if !fs.fileAllowed(&in.Caller, a, wantOf(in.Flags)) {
			return nil, []sessfs.Claim{claim}, fuse.EACCES
		}
		h := fs.attachNew(n, claim, s, in)
		h.file.created = &a
		h.file.note()
		return h, nil, fuse.OK
	}
	if !fs.dirAllowed(&in.Caller, wantWrite|wantExec) {
		return nil, []sessfs.Claim{claim}, fuse.EACCES
	}
	return fs.attachNew(n, claim, s, in), nil, fuse.OK
}

func (fs *FS) exists(f *file) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.published().exists
}

// attachNew makes the handle of a session that does not exist yet. The caller holds FS.mu.
func (fs *FS) attachNew(n *node, claim sessfs.Claim, s *sessfs.Session, in *fuse.CreateIn) *handle {
	f := fs.fileOf(n.id, s)
	f.mu.Lock()
	if !f.published().exists {
		a := newAttr(in)
		f.session, f.created = s, &a
		f.note()
	}
	f.mu.Unlock()
	return fs.attach(n, f, claim, &in.InHeader, in.Flags)
}
