package fusefs

import (
	"errors"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"

	"sessfs"
	"sessfs/internal/handover"
)

// handle is one open file description.
type handle struct {
	fh     uint64
	node   *node
	pid    uint32 // of the opening thread
	uid    uint32 // who has opened it
	group  uint32 // of the opening process; 0: not asked for yet. Guarded by FS.mu.
	opened int64  // Boottime
	flags  uint32

	file    *file        // guarded by FS.mu: a lock that was waited for may lead to another file
	claim   sessfs.Claim // guarded by FS.mu; nil once the file was unlinked under it
	waiting atomic.Int32 // calls of Lock under way
	record  *handover.Handle
	failed  atomic.Bool // its lock could not be got, or was lost: every later call fails (rule 9)
}

// process returns the process that opened h. The caller holds FS.mu.
func (h *handle) process() uint32 {
	if h.group == 0 {
		h.group = threadGroup(h.pid)
	}
	return h.group
}

var errLockFailed = errors.New("the session's lock could not be got; close the file and open it again")

// err tells why the handle must not be used any more.
func (h *handle) err(c sessfs.Claim) error {
	if h.failed.Load() {
		return errLockFailed
	}
	if c != nil {
		return c.Err()
	}
	return nil
}

// handle returns the open file description fh with its present file and claim.
func (fs *FS) handle(fh uint64) (*handle, *file, sessfs.Claim) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	h := fs.handles[fh]
	if h == nil {
		return nil, nil, nil
	}
	return h, h.file, h.claim
}

// attach makes a handle on f for the caller of an OPEN or CREATE, whose number becomes the handle's: the same when another
// daemon handles the request again. The caller holds FS.mu.
func (fs *FS) attach(n *node, f *file, claim sessfs.Claim, in *fuse.InHeader, flags uint32) *handle {
	fh := in.Unique
	if fh == 0 || fs.handles[fh] != nil {
		fh = fs.newFh()
	}
	h := &handle{fh: fh, node: n, pid: in.Pid, uid: in.Uid, opened: sessfs.Boottime(), flags: flags, file: f, claim: claim}
	f.refs++
	h.record = fs.memory.NewHandle(f.record, func(r *handover.Handle) {
		r.FH, r.Life, r.PID, r.UID, r.Flags = fh, n.n, in.Pid, in.Uid, flags
	})
	if n.retired {
		h.record.SetRetired()
	}
	fs.handles[h.fh] = h
	fs.open.opened(h)
	fs.nodes.opened(n, h)
	return h
}

// newFh returns a number for what no request of the kernel gives one. The caller holds FS.mu.
func (fs *FS) newFh() uint64 {
	fs.lastFh++
	return 1<<63 | fs.lastFh
}

// fileOf returns the open file of a session, made if need be. The caller holds FS.mu.
func (fs *FS) fileOf(id sessfs.ID, s *sessfs.Session) *file {
	f := fs.files[id]
	if f == nil {
		// A read that began before there was this file has seen 0 changes, and must not replace what it has.
		f = &file{id: id, witnesses: &fs.witnesses, session: s, readAt: sessfs.Boottime(), changes: 1, record: fs.memory.NewFile(id)}
		f.note()
		fs.files[id] = f
	}
	return f
}

// unref ends one use of f. The caller holds FS.mu.
func (fs *FS) unref(f *file) {
	f.refs--
	if f.refs > 0 {
		return
	}
	defer fs.memory.EndFile(f.record)
	if fs.files[f.id] == f {
		delete(fs.files, f.id)
		f.mu.Lock()
		if f.created != nil && !f.session.Exists() {
			fs.ghosts.put(f.id, ghost{attr: *f.created, until: f.created.Ctime + int64(fs.settings.Load().Lifetime)})
		}
		f.mu.Unlock()
	}
}

// heir makes the file that stands for f's name after f. The caller holds FS.mu.
func (fs *FS) heir(f *file, next *sessfs.Session) *file {
	f.mu.Lock()
	like := f.like
	if v := f.published(); v.exists {
		like = v.attr
	}
	f.mu.Unlock()
	heir := fs.fileOf(f.id, next)
	heir.mu.Lock()
	heir.like = like
	heir.mu.Unlock()
	return heir
}

// ghost is a session that open(O_CREAT) made and nobody ever wrote: it is not worth an item on the servers, but on
// this host the file is there, as in a local directory.
type ghost struct {
	attr  sessfs.Attr
	until int64 // unix nanoseconds
}

// ghost returns the unwritten session of that name. The caller holds FS.mu.
func (fs *FS) ghost(id sessfs.ID) (sessfs.Attr, bool) {
	g, ok := fs.ghosts.get(id)
	if ok && g.until < now() {
		fs.ghosts.remove(id)
		return sessfs.Attr{}, false
	}
	return g.attr, ok
}

// detach parts f from its name, which is free for a new session: it was unlinked here (local), or found destroyed or
// gone on the servers. Handles that wait for the lock stay with the name and find there what is new (rule 8); the
// others go on with what they had. An unlinked file lives on without the servers, as in any directory; what was
// destroyed elsewhere refuses writes by its version. The caller holds FS.mu; the returned claims it closes without.
func (fs *FS) detach(f *file, local bool, next *sessfs.Session) (ended []sessfs.Claim) {
	if fs.files[f.id] != f {
		return nil
	}
	delete(fs.files, f.id)
	var heir *file
	for _, h := range fs.handles {
		if h.file != f {
			continue
		}
		fs.nodes.retire(h.node)
		if h.waiting.Load() > 0 {
			if heir == nil {
				heir = fs.heir(f, next)
			}
			h.file = heir
			h.record.Move(heir.record)
			heir.refs++
			f.refs--
			continue
		}
		if local && h.claim != nil {
			ended = append(ended, h.claim)
			h.claim = nil
		}
	}
	f.mu.Lock()
	f.detached = local
	f.record.SetDetached()
	f.mu.Unlock()
	return ended
}
