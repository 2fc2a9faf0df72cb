package fusefs

import (
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"sessfs"
)

// Lookup is answered without the network: the kernel may hold the directory's lock, and one slow server would stop
// every open on this host. A well-formed name exists until known otherwise. The truth is told where it is known (a
// mark), and where the kernel insists: it asks again for a name whose entry it holds.
func (fs *FS) Lookup(_ <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	levels, ok := fs.names.dirPath(in.NodeId)
	if !ok {
		return enotdir
	}
	if len(levels) < fs.names.depth {
		if !Level(name) {
			return fuse.ENOENT
		}
		ino := dirNode(levels + name)
		fs.fillDir(&out.Attr, ino)
		out.NodeId, out.Generation = ino, 1
		out.SetEntryTimeout(entryTimeout)
		out.SetAttrTimeout(time.Second)
		return fuse.OK
	}
	if len(name) > 255 { // NAME_MAX; the kernel lets FUSE decide
		return enametoolong
	}
	if !fs.names.inDir(levels, name) {
		return fuse.ENOENT
	}
	id := sessfs.ID(name)
	st := fs.lookupName(id, in, out)
	fs.mu.Lock()
	if n := fs.nodes.known(id); n != nil && st == fuse.OK && n.ino == out.NodeId {
		fs.retries.lookedUp(in.Pid, id, n.ino, n.n)
	} else {
		fs.retries.lookedUp(in.Pid, id, 0, 0)
	}
	fs.mu.Unlock()
	return st
}

// lookupName is Lookup of a well-formed name.
func (fs *FS) lookupName(id sessfs.ID, in *fuse.InHeader, out *fuse.EntryOut) fuse.Status {
	fs.mu.Lock()
	missing, again, ended := fs.marks.ask(markKey{id, in.Pid})
	if fs.files[id] != nil { // somebody here has made it, or opened it, since
		missing, again = false, false
		ended = append(ended, fs.marks.drop(markKey{id, in.Pid})...)
	}
	if n := fs.nodes.known(id); n != nil && missing {
		n.entryUntil = 0
	}
	if missing || again || len(ended) > 0 {
		fs.mu.Unlock()
		closeClaims(ended)
		if missing {
			return fuse.ENOENT
		}
		if again {
			return fs.lookupTruth(id, in, out)
		}
		fs.mu.Lock()
	}
	now := sessfs.Boottime()
	n := fs.nodes.of(id)
	forced := n.lookups > 0 && n.entryUntil > now || fs.unknown.has(n.ino, now) || now < fs.honest
	open := len(n.handles) > 0
	if !forced || open {
		fs.enter(n, out)
		fs.mu.Unlock()
		return fuse.OK
	}
	fs.mu.Unlock()
	return fs.lookupTruth(id, in, out)
}

// enter answers with the entry of n. The attributes are never valid: what stands in them is not looked at.
// The caller holds FS.mu.
func (fs *FS) enter(n *node, out *fuse.EntryOut) {
	seen, ok := fs.seen.get(n.id)
	if !ok {
		seen.attr.Mode = 0o600
	}
	fs.fill(&out.Attr, n.ino, seen.attr, seen.size)
	out.NodeId, out.Generation = n.ino, 1
	out.SetEntryTimeout(entryTimeout)
	out.SetAttrTimeout(0)
	n.lookups++
	n.entryUntil = sessfs.Boottime() + int64(entryTimeout)
}

func (fs *FS) lookupTruth(id sessfs.ID, in *fuse.InHeader, out *fuse.EntryOut) fuse.Status {
	fs.counters.lookups.Add(1)
	_, _, st := fs.look(id)
	fs.mu.Lock()
	n := fs.nodes.of(id)
	if st == fuse.OK {
		fs.enter(n, out)
		fs.mu.Unlock()
		return st
	}
	if st == fuse.ENOENT {
		n.entryUntil = 0
	}
	fs.mu.Unlock()
	if st == fuse.ENOENT {
		return fs.gone(n, in.Pid)
	}
	return st
}

// Forget drops what the kernel dropped. It never blocks on the network.
func (fs *FS) Forget(ino, lookups uint64) {
	fs.mu.Lock()
	fs.nodes.forget(ino, lookups)
	fs.mu.Unlock()
}

// Access is access(2): go-fuse's default would make file_exists() true for every name.
func (fs *FS) Access(_ <-chan struct{}, in *fuse.AccessIn) fuse.Status {
	if _, ok := fs.names.dirPath(in.NodeId); ok {
		if !fs.dirAllowed(&in.Caller, in.Mask&7) {
			return fuse.EACCES
		}
		return fuse.OK
	}
	if !fs.dirAllowed(&in.Caller, wantExec) {
		return fuse.EACCES
	}
	fs.mu.Lock()
	n := fs.nodes.get(in.NodeId)
	if n == nil {
		fs.mu.Unlock()
		return fs.unknownNode(in.NodeId)
	}
	h, _ := n.pick(in.Pid)
	var f *file
	if h != nil && h.claim != nil && h.claim.Leased() {
		f = h.file
	}
	fs.mu.Unlock()
	var a sessfs.Attr
	if f != nil {
		v := f.view(in.Pid)
		if !v.exists {
			return fs.gone(n, in.Pid)
		}
		a = v.attr
	} else {
		var st fuse.Status
		if a, _, st = fs.look(n.id); st == fuse.ENOENT {
			return fs.gone(n, in.Pid)
		} else if st != fuse.OK {
			return st
		}
	}
	if !fs.fileAllowed(&in.Caller, a, in.Mask&7) {
		return fuse.EACCES
	}
	return fuse.OK
}
