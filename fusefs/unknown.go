package fusefs

import (
	"github.com/hanwen/go-fuse/v2/fuse"

	"sessfs"
)

// unknownNodes are node ids that fell out of the table and that the kernel has just asked for. They are answered with
// ESTALE, whereupon the kernel looks their name up again; that LOOKUP must tell the truth, because a second ESTALE would
// reach the process. Other names go on without the network. An id whose place another takes before that LOOKUP is looked
// up like any name: of a session that is gone its process hears ESTALE then.
type unknownNodes [1024]struct {
	ino   uint64
	until int64 // Boottime
}

func (u *unknownNodes) add(ino uint64) {
	e := &u[ino%uint64(len(u))]
	e.ino, e.until = ino, sessfs.Boottime()+int64(markPatience)
}

func (u *unknownNodes) has(ino uint64, now int64) bool {
	e := &u[ino%uint64(len(u))]
	return e.ino == ino && e.until > now
}

// unknownNode answers for a node id that fell out of the table.
func (fs *FS) unknownNode(ino uint64) fuse.Status {
	fs.mu.Lock()
	fs.unknown.add(ino)
	fs.mu.Unlock()
	return estale
}
