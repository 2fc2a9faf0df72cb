package fusefs

import (
	"errors"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"sessfs"
)

// SetAttr is ftruncate, truncate, utimensat, chmod and chown. ftruncate only changes the handle's image (a truncation
// is never published by itself, rule 3), unless written bytes wait for it (PHP's write order 3, rule 4); everything by
// path is stored at once.
func (fs *FS) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	if _, ok := fs.names.dirPath(in.NodeId); ok {
		return fuse.EPERM // the directory's owner and mode stand in the configuration
	}
	fs.mu.Lock()
	n := fs.nodes.get(in.NodeId)
	fs.mu.Unlock()
	if n == nil {
		return fs.unknownNode(in.NodeId)
	}
	var st fuse.Status
	valid := in.Valid
	if valid&fuse.FATTR_SIZE != 0 {
		// The kernel takes setuid and setgid away with a truncation, whosever the file is. So does this (dropped).
		valid &^= fuse.FATTR_MODE
	}
	if fh, ok := in.GetFh(); ok && valid&fuse.FATTR_SIZE != 0 {
		if st = fs.truncateHandle(fh, in); st == fuse.OK && valid&(fuse.FATTR_UID|fuse.FATTR_GID) != 0 {
			st = fs.change(n, in, valid&^(fuse.FATTR_SIZE|fuse.FATTR_MTIME|fuse.FATTR_CTIME))
		}
	} else {
		st = fs.change(n, in, valid)
	}
	if st != fuse.OK {
		return st
	}
	return fs.answerSetAttr(n, in, out)
}

func (fs *FS) answerSetAttr(n *node, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	fs.mu.Lock()
	n = fs.nodes.again(n)
	var f *file
	if h, _ := n.pick(in.Pid); h != nil {
		f = h.file
	}
	fs.mu.Unlock()
	if f != nil {
		v := f.view(in.Pid)
		fs.fill(&out.Attr, n.ino, v.attr, len(v.data))
		return fuse.OK
	}
	fs.mu.Lock()
	s, _ := fs.seen.get(n.id) // change has just put it there
	fs.mu.Unlock()
	fs.fill(&out.Attr, n.ino, s.attr, s.size)
	return fuse.OK
}

// truncateHandle is ftruncate(2) on an open handle.
func (fs *FS) truncateHandle(fh uint64, in *fuse.SetAttrIn) fuse.Status {
	h, f, claim := fs.handle(fh)
	if h == nil {
		return fuse.EBADF
	}
	if err := h.err(claim); err != nil {
		return toErrno(err)
	}
	if in.Size > uint64(fs.settings.Load().MaxSize) {
		return efbig
	}
	f.storing.Lock()
	defer f.storing.Unlock()
	f.mu.Lock()
	q := fs.request(in.Unique)
	v, img := f.viewLocked(in.Pid), f.image(in.Pid)
	data, drop := resize(v.data, int(in.Size)), fs.dropped(&in.Caller, v.attr)
	if img != nil && img.stored && !img.failed {
		f.mu.Unlock()
		return fs.storeImage(f, claim, in.Pid, data, drop, q)
	}
	f.keep(h, in.Pid, data, false, drop, q)
	f.mu.Unlock()
	return fuse.OK
}

// truncateAtOnce is ftruncate(2) to nothing, with which PHP begins to replace a session. It reports false for
// everything else, and where a change of the session is under way.
func (fs *FS) truncateAtOnce(in *fuse.SetAttrIn, out *fuse.AttrOut) (fuse.Status, bool) {
	const others = fuse.FATTR_MODE | fuse.FATTR_UID | fuse.FATTR_GID
	fh, ok := in.GetFh()
	if !ok || in.Valid&fuse.FATTR_SIZE == 0 || in.Valid&others != 0 || in.Size != 0 {
		return 0, false
	}
	h, f, claim := fs.handle(fh)
	if h == nil || h.err(claim) != nil || !f.storing.TryLock() {
		return 0, false
	}
	defer f.storing.Unlock()
	f.mu.Lock()
	if len(f.images) > 0 {
		f.mu.Unlock()
		return 0, false
	}
	v := f.published()
	q := fs.copied(in)
	defer q.Free()
	img := f.keep(h, in.Pid, nil, false, fs.dropped(&in.Caller, v.attr), q)
	v.attr.Mtime, v.attr.Ctime = img.mtime, img.mtime
	v.attr.Mode &^= img.drop
	f.mu.Unlock()
	fs.truncated(h, in.Pid)
	fs.fill(&out.Attr, h.node.ino, v.attr, 0)
	return fuse.OK, true
}

// resize returns a copy of data with the given length, filled with zeros. Empty is what PHP asks for.
func resize(data []byte, size int) []byte {
	if size == 0 {
		return nil
	}
	b := make([]byte, size)
	copy(b, data)
	return b
}

// change stores new attributes, or a truncation by path. A change by somebody else in between is read and built on, as often
// as it takes in a few tries; and so is the end of the handle whose claim it goes through: the RELEASE of a file that was
// closed just before comes beside it.
func (fs *FS) change(n *node, in *fuse.SetAttrIn, valid uint32) fuse.Status {
	if !fs.dirAllowed(&in.Caller, wantExec) {
		return fuse.EACCES
	}
	for try := 1; ; try++ {
		st, err := fs.tryChange(n, in, valid)
		if err == nil {
			return st
		}
		if again := conflict(err) || errors.Is(err, sessfs.ErrClosed); !again || try == changeTries {
			fs.failed("change", n.id, err)
			return toErrno(err)
		}
		time.Sleep(time.Duration(try-1) * time.Millisecond)
	}
}

const changeTries = 5

func (fs *FS) tryChange(n *node, in *fuse.SetAttrIn, valid uint32) (fuse.Status, error) {
	fs.mu.Lock()
	n = fs.nodes.again(n)
	h, _ := n.pick(in.Pid)
	if best := n.holder(); best != nil {
		h = best
	}
	var f *file
	var claim sessfs.Claim
	if h != nil {
		f, claim = h.file, h.claim
	}
	fs.mu.Unlock()
	if f == nil {
		return fs.changeClosed(n, in, valid)
	}
	f.storing.Lock()
	defer f.storing.Unlock()
	if claim == nil || !claim.Leased() {
		if st := fs.refresh(f); st != fuse.OK {
			return st, nil
		}
	}
	f.mu.Lock()
	v := f.published()
	local := f.detached
	f.mu.Unlock()
	if !v.exists {
		return fuse.ENOENT, nil
	}
	attr, data, st := fs.apply(v.attr, v.data, in, valid)
	if st != fuse.OK {
		return st, nil
	}
	if local {
		f.mu.Lock()
		f.set(&sessfs.Session{State: sessfs.Live, Version: v.base.Version, Attr: attr, Data: data})
		f.mu.Unlock()
		return fuse.OK, nil
	}
	return fuse.OK, fs.tryCommit(f, claim, v.base, attr, data)
}

// holder returns the handle that has the session's lock or lease here. The caller holds FS.mu.
func (n *node) holder() *handle {
	for _, h := range n.handles {
		if h.claim != nil && h.claim.Held() {
			return h
		}
	}
	return nil
}

// changeClosed is tryChange of a session that is not open here.
func (fs *FS) changeClosed(n *node, in *fuse.SetAttrIn, valid uint32) (fuse.Status, error) {
	s, err := fs.store.Read(background, n.id)
	if err != nil {
		return fuse.OK, err
	}
	old, data := s.Attr, s.Data
	if !s.Exists() {
		fs.mu.Lock()
		ghostAttr, ok := fs.ghost(n.id)
		fs.mu.Unlock()
		if !ok {
			return fs.gone(n, in.Pid), nil
		}
		old, data = ghostAttr, nil
	}
	attr, data, st := fs.apply(old, data, in, valid)
	if st != fuse.OK {
		return st, nil
	}
	if s, err = fs.store.Commit(background, n.id, s, attr, data); err != nil {
		return fuse.OK, err
	}
	fs.mu.Lock()
	fs.ghosts.remove(n.id)
	fs.seen.put(n.id, sighting{s.Attr, len(s.Data)})
	fs.mu.Unlock()
	return fuse.OK, nil
}

// apply works out the new attributes, with the checks of setattr_prepare(9) that the kernel leaves to us.
func (fs *FS) apply(a sessfs.Attr, data []byte, in *fuse.SetAttrIn, valid uint32) (sessfs.Attr, []byte, fuse.Status) {
	c, owner, now := &in.Caller, fs.shown(a).UID, fs.request(in.Unique).Stamp(now())
	isOwner := c.Uid == 0 || c.Uid == owner
	if valid&fuse.FATTR_SIZE != 0 {
		if !fs.fileAllowed(c, a, wantWrite) {
			return a, nil, fuse.EACCES
		}
		if in.Size > uint64(fs.settings.Load().MaxSize) {
			return a, nil, efbig
		}
		if len(data) != int(in.Size) || valid&fuse.FATTR_MTIME != 0 { // truncate(2) to the size it has changes no time
			a.Mtime = now
		}
		data = resize(data, int(in.Size))
		a.Mode &^= fs.dropped(c, a)
	}
	if valid&fuse.FATTR_MODE != 0 {
		if !isOwner {
			return a, nil, fuse.EPERM
		}
		a.Mode = in.Mode & 0o7777
		if c.Uid != 0 && c.Gid != fs.shown(a).GID && inGroup(c.Pid, fs.shown(a).GID, true, false) {
			a.Mode &^= 0o2000
		}
	}
	if valid&(fuse.FATTR_UID|fuse.FATTR_GID) != 0 {
		uid, gid := a.UID, a.GID
		if valid&fuse.FATTR_UID != 0 {
			uid = in.Owner.Uid
		}
		if valid&fuse.FATTR_GID != 0 {
			gid = in.Owner.Gid
		}
		if c.Uid != 0 && (!isOwner || !fs.mayChown(c, a, in, valid)) {
			return a, nil, fuse.EPERM
		}
		if c.Uid != 0 || a.Mode&0o111 != 0 {
			a.Mode &^= 0o4000
			if a.Mode&0o010 != 0 {
				a.Mode &^= 0o2000
			}
		}
		a.UID, a.GID = uid, gid
	}
	if valid&(fuse.FATTR_ATIME|fuse.FATTR_MTIME) != 0 && valid&fuse.FATTR_SIZE == 0 {
		set := in.Valid&(fuse.FATTR_ATIME|fuse.FATTR_ATIME_NOW) == fuse.FATTR_ATIME ||
			in.Valid&(fuse.FATTR_MTIME|fuse.FATTR_MTIME_NOW) == fuse.FATTR_MTIME
		if !isOwner && (set || !fs.fileAllowed(c, a, wantWrite)) {
			if set {
				return a, nil, fuse.EPERM
			}
			return a, nil, fuse.EACCES
		}
		if valid&fuse.FATTR_ATIME != 0 {
			a.Atime = timeOf(in.Valid&fuse.FATTR_ATIME_NOW != 0, now, in.Atime, in.Atimensec)
		}
		if valid&fuse.FATTR_MTIME != 0 {
			a.Mtime = timeOf(in.Valid&fuse.FATTR_MTIME_NOW != 0, now, in.Mtime, in.Mtimensec)
		}
	}
	a.Ctime = now
	return a, data, fuse.OK
}

// mayChown tells whether an owner who is not root may give a session what in asks for: itself, and one of its groups.
func (fs *FS) mayChown(c *fuse.Caller, a sessfs.Attr, in *fuse.SetAttrIn, valid uint32) bool {
	a = fs.shown(a)
	uid := valid&fuse.FATTR_UID == 0 || in.Owner.Uid == a.UID
	gid := valid&fuse.FATTR_GID == 0 || in.Owner.Gid == a.GID || in.Owner.Gid == c.Gid || inGroup(c.Pid, in.Owner.Gid, false, true)
	return uid && gid
}

func timeOf(isNow bool, now int64, sec uint64, nsec uint32) int64 {
	if isNow {
		return now
	}
	return int64(sec)*1e9 + int64(nsec)
}
