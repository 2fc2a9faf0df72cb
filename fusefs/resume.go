package fusefs

import (
	"fmt"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"sessfs"
	"sessfs/internal/handover"
)

// A daemon that takes a mount over finds in shared memory what the one before it had: the open file descriptions, with
// their locks, and the requests that it had read and not answered. It makes the tables of these again, asks the servers
// for the sessions, and handles the requests once more; see the handlers for what makes that harmless. What is not kept is
// what costs nothing but a look at the servers: nodes of long names, marks, sightings; and the listings of directories that
// are being read, and the contents of files that were unlinked while open: those fail, loudly.

// honesty is how long LOOKUP asks the servers after a handover: what a former daemon has said of a name, or was about to
// say, is not known.
const honesty = 5 * time.Second

// reopening is how many sessions are asked for at a time.
const reopening = 64

// resume makes the tables of a former daemon again.
func (fs *FS) resume(left []*handover.Request) error {
	store, ok := fs.store.(sessfs.Reopener)
	if !ok {
		return fmt.Errorf("taking the mount over: %T cannot go on where another ended", fs.store)
	}
	fs.honest = sessfs.Boottime() + int64(honesty)
	begun := make(map[int64]bool) // when changes were begun that are handled again
	for _, q := range left {
		begun[q.Stamp(0)] = true
	}
	delete(begun, 0)
	files := fs.memory.LeftFiles()
	var asked sync.WaitGroup
	room := make(chan struct{}, reopening)
	for _, f := range files {
		room <- struct{}{}
		asked.Add(1)
		go func() {
			defer asked.Done()
			fs.reopenFile(store, f, begun)
			<-room
		}()
	}
	asked.Wait()
	store.Reopened()
	return nil
}

// reopenFile makes a file and its handles again.
func (fs *FS) reopenFile(store sessfs.Reopener, left *handover.LeftFile, begun map[int64]bool) {
	id := left.ID()
	f := &file{id: id, record: left.File, witnesses: &fs.witnesses, session: &sessfs.Session{}, readAt: sessfs.Boottime(), changes: 1}
	claims := make([]sessfs.Claim, len(left.Handles))
	var err error
	switch seen := left.Version(); {
	case left.Detached.Load():
		err = fmt.Errorf("session %s was unlinked while it was open, and its content ended with the former daemon", id.Hash())
		f.detached = true
	default:
		if claims, f.session, err = fs.askAgain(store, left); err != nil {
			claims, f.session = make([]sessfs.Claim, len(left.Handles)), &sessfs.Session{}
			break
		}
		if a := left.Created(); a != nil && !f.session.Exists() {
			f.created = a
		}
		changed := f.session.Version != seen && !begun[f.session.Attr.Ctime]
		switch {
		case locked(left) && changed:
			err = fmt.Errorf("session %s: %w while no daemon ran, under its lock", id.Hash(), sessfs.ErrConflict)
		case !f.session.Exists() && f.created == nil:
			err = fmt.Errorf("session %s is gone", id.Hash())
		}
	}
	if err != nil {
		fs.log.Error("files that were open cannot be used any more; what their processes do with them fails", "session", id.Hash(), "handles", len(left.Handles), "err", err)
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if !f.detached {
		fs.files[id] = f
	}
	f.note()
	for i, r := range left.Handles {
		n := fs.nodes.life(id, r.Life)
		n.retired = n.retired || r.Retired.Load()
		h := &handle{fh: r.FH, node: n, pid: r.PID, uid: r.UID, opened: sessfs.Boottime(), flags: r.Flags, file: f, claim: claims[i], record: r}
		if r.Failed.Load() || err != nil {
			h.failed.Store(true)
			r.SetFailed()
		}
		f.refs++
		fs.handles[h.fh] = h
		fs.open.opened(h)
		fs.nodes.opened(n, h)
		fs.device.invalidate(n.ino)
	}
}

func locked(left *handover.LeftFile) bool {
	for _, h := range left.Handles {
		if h.Kind.Load() != 0 {
			return true
		}
	}
	return false
}

// askAgain has the store make the claims again.
func (fs *FS) askAgain(store sessfs.Reopener, left *handover.LeftFile) ([]sessfs.Claim, *sessfs.Session, error) {
	list := make([]sessfs.Reopened, len(left.Handles))
	for i, h := range left.Handles {
		list[i] = sessfs.Reopened{PID: h.PID, Kind: sessfs.LockKind(h.Kind.Load())}
	}
	return store.Reopen(background, left.ID(), list)
}

// released ends the handles whose RELEASE a former daemon had answered: changes were left to be stored. It is called when
// the requests are handled again of which these consist.
func (fs *FS) released() {
	fs.mu.Lock()
	var list []uint64
	for fh, h := range fs.handles {
		if h.record != nil && h.record.State() == handover.Released {
			list = append(list, fh)
		}
	}
	fs.mu.Unlock()
	for _, fh := range list {
		fs.Release(nil, &fuse.ReleaseIn{Fh: fh})
	}
}

// awaitQueued returns what is closed when that wait for a lock has its place again, or is over.
func (fs *FS) awaitQueued(unique uint64) <-chan struct{} {
	placed := make(chan struct{})
	fs.resumed.Store(unique, placed)
	return placed
}

func (fs *FS) queued(unique uint64) {
	if placed, ok := fs.resumed.LoadAndDelete(unique); ok {
		close(placed.(chan struct{}))
	}
}

// life returns the node of that life of a name.
func (t *nodeTable) life(id sessfs.ID, life uint32) *node {
	ino := t.names.inode(id, life)
	n := t.get(ino)
	if n == nil {
		n = &node{ino: ino, id: id, n: life}
		t.insert(n)
	}
	return n
}
