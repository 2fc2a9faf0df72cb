package fusefs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"sessfs/internal/handover"
)

const (
	// maxOpen bounds the open files of a mount: as many as survive the daemon. Each is some memory, and a lock perhaps.
	maxOpen = handover.MaxHandles
	// maxOpenOfUser is how many of them one user may have, so that others can go on. A site's processes have one each.
	maxOpenOfUser = maxOpen / 2
)

// openFiles counts the open files of each user. Guarded by FS.mu.
type openFiles struct {
	of      map[uint32]int
	refused uint64
	said    map[uint32]bool // users whom the log has named
}

func (o *openFiles) init() {
	o.of = make(map[uint32]int)
	o.said = make(map[uint32]bool)
}

// mayOpen tells whether a user may open one more file: ENFILE where there are too many.
func (fs *FS) mayOpen(uid uint32) fuse.Status {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	n := fs.open.of[uid]
	if n < maxOpenOfUser && len(fs.handles) < maxOpen {
		return fuse.OK
	}
	fs.open.refused++
	if !fs.open.said[uid] && len(fs.open.said) < 64 {
		fs.open.said[uid] = true
		fs.log.Error("a user may not open more sessions at a time; this is logged once, and counted", "uid", uid, "open", n, "of_all", len(fs.handles),
			"most", maxOpenOfUser, "most_of_all", maxOpen)
	}
	return enfile
}

const enfile = fuse.Status(unix.ENFILE)

// opened counts a handle, closed takes it away. The caller holds FS.mu.
func (o *openFiles) opened(h *handle) { o.of[h.uid]++ }

func (o *openFiles) closed(h *handle) {
	if o.of[h.uid]--; o.of[h.uid] <= 0 {
		delete(o.of, h.uid)
		if len(o.of) == 0 {
			clear(o.said)
		}
	}
}
