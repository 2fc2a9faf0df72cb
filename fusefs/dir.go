package fusefs

import (
	"bytes"
	"hash/maphash"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"sessfs"
)

// listing is an open directory: the names as they were at OPENDIR, one after the other, so that a million of them are
// forty megabytes. They stand in blocks, so that none is copied when more come.
type listing struct {
	blocks [][]byte // each name ends with a NUL, and stands in one block
	kind   uint32   // S_IFREG or S_IFDIR
	self   uint64
}

const nameBlock = 256 << 10

func (l *listing) add(name string) {
	last := len(l.blocks) - 1
	if last < 0 || len(l.blocks[last])+len(name)+1 > nameBlock {
		l.blocks = append(l.blocks, nil)
		last++
	}
	l.blocks[last] = append(append(l.blocks[last], name...), 0)
}

// at returns the name at a place, and the place of the one behind it; "": there are no more.
func (l *listing) at(pos int) (name string, next int) {
	block, off := pos/nameBlock, pos%nameBlock
	if block < len(l.blocks) && off >= len(l.blocks[block]) {
		block, off = block+1, 0
	}
	if block >= len(l.blocks) {
		return "", pos
	}
	b := l.blocks[block][off:]
	end := bytes.IndexByte(b, 0)
	return string(b[:end]), block*nameBlock + off + end + 1
}

// OpenDir fetches the names; READDIR, which the kernel sends under the directory's lock, only copies them.
func (fs *FS) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	levels, ok := fs.names.dirPath(in.NodeId)
	if !ok {
		return enotdir
	}
	if !fs.dirAllowed(&in.Caller, wantRead) {
		return fuse.EACCES
	}
	l := &listing{self: in.NodeId, kind: syscall.S_IFREG}
	leaf := len(levels) == fs.names.depth
	if !leaf {
		l.kind = syscall.S_IFDIR
	}
	hash := maphash.Hash{}
	known := make(map[uint64]struct{})
	add := func(id sessfs.ID) {
		name := string(id)
		sub, ok := fs.names.match(name)
		if !ok || len(sub) < fs.names.depth || sub[:len(levels)] != levels {
			return
		}
		if !leaf {
			if name = sub[len(levels) : len(levels)+1]; !Level(name) {
				return
			}
		}
		hash.Reset()
		hash.WriteString(name)
		if _, twice := known[hash.Sum64()]; twice {
			return
		}
		known[hash.Sum64()] = struct{}{}
		l.add(name)
	}
	err := fs.store.List(background, func(e sessfs.Entry) error {
		if e.State == sessfs.Live {
			add(e.ID)
		}
		return nil
	})
	if err != nil {
		fs.log.Error("the sessions could not be listed", "err", err)
		return toErrno(err)
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for id, f := range fs.files {
		if fs.exists(f) {
			add(id)
		}
	}
	t := now()
	fs.ghosts.each(func(id sessfs.ID, g ghost) {
		if g.until > t {
			add(id)
		}
	})
	out.Fh = fs.newFh()
	fs.dirs[out.Fh] = l
	return fuse.OK
}

// ReadDir gives name and type: d_type saves the cleaners a stat per file. The offset of an entry is its place in
// names, after "." and "..".
func (fs *FS) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	fs.mu.Lock()
	l := fs.dirs[in.Fh]
	fs.mu.Unlock()
	if l == nil {
		return fuse.EBADF
	}
	off := in.Offset
	for ; off < 2; off++ {
		if !out.AddDirEntry(fuse.DirEntry{Mode: syscall.S_IFDIR, Name: ".."[:off+1], Ino: l.self, Off: off + 1}) {
			return fuse.OK
		}
	}
	for pos := int(off - 2); ; {
		name, next := l.at(pos)
		if name == "" {
			return fuse.OK
		}
		ino := dirNode(name)
		if l.kind == syscall.S_IFREG {
			ino = fs.names.inode(sessfs.ID(name), 0)
		}
		pos = next
		if !out.AddDirEntry(fuse.DirEntry{Mode: l.kind, Name: name, Ino: ino, Off: uint64(pos) + 2}) {
			return fuse.OK
		}
	}
}

// ReleaseDir ends an open directory.
func (fs *FS) ReleaseDir(in *fuse.ReleaseIn) {
	fs.mu.Lock()
	delete(fs.dirs, in.Fh)
	fs.mu.Unlock()
}

// FsyncDir has nothing to do: a name is on the servers when its session is.
func (fs *FS) FsyncDir(_ <-chan struct{}, _ *fuse.FsyncIn) fuse.Status { return fuse.OK }

// Unlink destroys a session. It leaves a tombstone on the servers, so that neither a waiter nor a late write brings
// the session back; processes that have it open go on with what they have.
func (fs *FS) Unlink(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	levels, ok := fs.names.dirPath(in.NodeId)
	if !ok {
		return enotdir
	}
	if !fs.dirAllowed(&in.Caller, wantExec) {
		return fuse.EACCES
	}
	if len(levels) < fs.names.depth {
		return eisdir
	}
	if !fs.names.inDir(levels, name) {
		return fuse.ENOENT
	}
	id := sessfs.ID(name)
	if !fs.dirAllowed(&in.Caller, wantWrite) {
		if _, _, st := fs.look(id); st != fuse.OK {
			return st
		}
		return fuse.EACCES
	}
	if !fs.stickyAllows(&in.Caller, sessfs.Attr{UID: ^uint32(0)}) {
		a, _, st := fs.look(id)
		if st != fuse.OK {
			return st
		}
		if !fs.stickyAllows(&in.Caller, a) {
			return fuse.EPERM
		}
	}
	fs.mu.Lock()
	f := fs.files[id]
	fs.mu.Unlock()
	if f != nil {
		f.settle(fs.settings.Load().Timeout)
	}
	existed, err := fs.store.Destroy(background, id)
	if err != nil {
		fs.failed("destroy", id, err)
		return toErrno(err)
	}
	fs.mu.Lock()
	_, ghost := fs.ghost(id)
	fs.ghosts.remove(id)
	fs.seen.remove(id)
	var ended []sessfs.Claim
	if f := fs.files[id]; f != nil && (existed || fs.exists(f)) {
		existed = true
		ended = fs.detach(f, true, &sessfs.Session{})
	}
	if n := fs.nodes.known(id); n != nil {
		n.entryUntil = 0
	}
	fs.mu.Unlock()
	closeClaims(ended)
	if !existed && !ghost && !fs.request(in.Unique).Again() { // a former daemon may have done it, and died before it answered
		return fuse.ENOENT
	}
	return fuse.OK
}
