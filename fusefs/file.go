package fusefs

import (
	"sync"
	"time"

	"sessfs"
	"sessfs/internal/handover"
)

// file is a session that is open on this host: what the servers have, as last seen here, and what handles here have
// changed but not stored yet. Two kernel inodes may lead to one file (a name unlinked and made anew), and one inode to
// two (see detach).
type file struct {
	id        sessfs.ID
	record    *handover.File
	witnesses *witnesses
	refs      int // handles and stores at RELEASE. Guarded by FS.mu.

	// storing is held while a change is under way, so that this host's changes of a session come one after the other.
	storing sync.Mutex

	mu       sync.Mutex
	session  *sessfs.Session // as last read or stored. Guarded by mu, like all below.
	created  *sessfs.Attr    // not nil: made by open(O_CREAT) here, and nothing is stored yet
	like     sessfs.Attr     // of the session that had the name before: a waiter that finds nothing makes one like it
	detached bool            // unlinked here while open: its handles go on without the servers
	readAt   int64           // Boottime of the last look at the servers
	changes  uint64          // grows with every change of session
	images   []*image
	pending  int           // RELEASEs whose store is not done
	settled  chan struct{} // closed when pending is 0 again; nil: nobody waits
}

// image is the changed, unstored content of a session. It is shown only to the process that made it (rule 10).
type image struct {
	by     *handle
	who    witness
	data   []byte
	mtime  int64
	stored bool                // bytes were written, not only cut
	pins   []*handover.Request // of which it was made, for a successor
	failed bool                // a store of it failed and was reported: never published at RELEASE
	drop   uint32              // mode bits that the change takes away: see FS.dropped
}

// view is what a process sees of a file.
type view struct {
	exists bool
	dirty  bool
	attr   sessfs.Attr
	data   []byte
	base   *sessfs.Session
}

// view returns the file as process pid sees it: viewLocked for those who do not hold mu.
func (f *file) view(pid uint32) view {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.viewLocked(pid)
}

// published returns the file as the servers have it. The caller holds mu.
func (f *file) published() view {
	v := view{base: f.session}
	switch {
	case f.session.Exists():
		v.exists, v.attr, v.data = true, f.session.Attr, f.session.Data
	case f.created != nil:
		v.exists, v.attr = true, *f.created
	}
	return v
}

func (f *file) viewLocked(pid uint32) view {
	v := f.published()
	if img := f.image(pid); img != nil {
		v.exists, v.dirty, v.data = true, true, img.data
		v.attr.Mode &^= img.drop
		v.attr.Mtime, v.attr.Ctime = img.mtime, img.mtime
	}
	return v
}

// image returns the unstored image of a thread's process. The caller holds mu.
func (f *file) image(pid uint32) *image {
	if img := f.imageOf(pid); img != nil || len(f.images) == 0 {
		return img
	}
	return f.imageOf(threadGroup(pid))
}

func (f *file) imageOf(process uint32) *image {
	for _, img := range f.images {
		if img.who.pid == process {
			return img
		}
	}
	return nil
}

// keep makes data the unstored image of h's process pid; drop are the mode bits that go with the change, q the request
// that asked for it. The caller holds mu.
func (f *file) keep(h *handle, pid uint32, data []byte, stored bool, drop uint32, q *handover.Request) *image {
	img := f.image(pid)
	if img == nil {
		img = &image{who: f.witnesses.watch(pid)}
		f.images = append(f.images, img)
	}
	img.clearFailed()
	img.by, img.data, img.mtime = h, data, q.Stamp(now())
	img.pin(q)
	img.stored = img.stored || stored
	img.drop |= drop
	return img
}

// maxPins is how many requests of one image are kept. Of one with more nothing is: a successor fails its handle.
const maxPins = 64

// pin keeps a request for as long as the image.
func (img *image) pin(q *handover.Request) {
	if q == nil {
		return
	}
	if len(img.pins) >= maxPins {
		img.by.record.SetFailed()
		return
	}
	img.pins = append(img.pins, q.Keep())
}

// unpin lets the requests go.
func (img *image) unpin() {
	for i := len(img.pins) - 1; i >= 0; i-- {
		img.pins[i].Free()
	}
	if len(img.pins) >= maxPins && !img.by.failed.Load() {
		img.by.record.ClearFailed()
	}
	img.pins = nil
	img.clearFailed()
}

// fail notes that a store of the image failed and was reported. A successor, which would make it again of the requests
// before and publish it at RELEASE, fails the handle.
func (img *image) fail() {
	img.failed = true
	img.by.record.SetFailed()
}

// clearFailed undoes fail.
func (img *image) clearFailed() {
	if img.failed && len(img.pins) < maxPins && !img.by.failed.Load() {
		img.by.record.ClearFailed()
	}
	img.failed = false
}

// drop forgets an image. The caller holds mu.
func (f *file) drop(img *image) {
	for i, x := range f.images {
		if x == img {
			f.witnesses.done(&img.who)
			img.unpin()
			f.images = append(f.images[:i], f.images[i+1:]...)
			return
		}
	}
}

// set notes what the servers have now. The caller holds mu.
func (f *file) set(s *sessfs.Session) {
	f.session = s
	f.readAt = sessfs.Boottime()
	f.changes++
	if s.Exists() {
		f.created = nil
	}
	f.note()
}

// changeCreated changes a session that open(O_CREAT) made here and that is still empty. It is not worth an item on the
// servers: PHP touches each one that a visitor's request began and left empty, and anybody can send cookies. It is for who
// has the lease, so that nobody else has stored it meanwhile. It reports false where that is not what f is, or where its last
// handle was released meanwhile, and a ghost stands for it.
func (fs *FS) changeCreated(f *file, attr sessfs.Attr) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refs == 0 || f.created == nil || f.session.Exists() {
		return false
	}
	f.created = &attr
	f.note()
	return true
}

// note notes for a successor what the handles of f have seen. The caller holds mu, or has f alone.
func (f *file) note() {
	f.record.SetVersion(f.session.Version)
	f.record.SetCreated(f.created)
}

// sight is what this host had of a session when a read of it began; nothing yet: the zero value.
type sight struct {
	file    *file
	changes uint64
}

// sight is to be taken before a read whose answer goes to observe.
func (f *file) sight() sight {
	if f == nil {
		return sight{}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return sight{f, f.changes}
}

// observe takes over what a read showed that began at the time of old; a change made here meanwhile wins. It reports
// whether the session that this file stands for is gone: its handles must not be led to a later one.
func (f *file) observe(s *sessfs.Session, old sight) (gone bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.detached || old != (sight{f, f.changes}) && s.Version.Counter <= f.session.Version.Counter {
		return false
	}
	if f.session.Exists() && !s.Exists() {
		return true
	}
	f.set(s)
	return false
}

// settle waits for stores at RELEASE that are under way, for no longer than bound.
func (f *file) settle(bound time.Duration) {
	f.mu.Lock()
	if f.pending == 0 {
		f.mu.Unlock()
		return
	}
	if f.settled == nil {
		f.settled = make(chan struct{})
	}
	ch := f.settled
	f.mu.Unlock()
	t := time.NewTimer(bound)
	defer t.Stop()
	select {
	case <-ch:
	case <-t.C:
	}
}

func now() int64 { return time.Now().UnixNano() }
