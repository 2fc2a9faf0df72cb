package fusefs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"sessfs"
)

// retries are the open(2)s that were answered with ESTALE: the kernel looks the name up again, and sends OPEN once more where
// it was told that the session exists. A second ESTALE would reach the process. It is due when the
// session was destroyed, by another host or here, after that LOOKUP; see openLast. They are told by the thread, which makes
// one system call at a time.
type retries [1024]retry

type retry struct {
	pid     uint32
	id      sessfs.ID // "" where the node was not known
	until   int64     // Boottime
	lookups int       // that came
	node    uint64    // that the last one was told; 0: that the session is missing
	life    uint32    // of the node
}

const (
	// maxRetried is how many LOOKUPs one open(2) is believed to send after its ESTALE: two, and one more for each other
	// process that looks the name up at the same moment.
	maxRetried = 16
	// retryLife is how soon after a LOOKUP that was told that the session is missing another belongs to the same open(2).
	// It is shorter than the mark lasts which that LOOKUP met or left: a later open(2) is told the truth, and not what is
	// said of a name that nobody knows.
	retryLife = markLife / 2
)

// stale notes an OPEN that is answered with ESTALE.
func (r *retries) stale(pid uint32, id sessfs.ID) {
	if pid != 0 {
		r[pid%uint32(len(r))] = retry{pid: pid, id: id, until: sessfs.Boottime() + int64(markPatience)}
	}
}

// lookedUp notes which node, in which life, a LOOKUP was told; 0: none.
func (r *retries) lookedUp(pid uint32, id sessfs.ID, node uint64, life uint32) {
	e := &r[pid%uint32(len(r))]
	if e.pid != pid || e.pid == 0 {
		return
	}
	now := sessfs.Boottime()
	if e.lookups++; e.id != "" && e.id != id || e.lookups > maxRetried || e.until <= now {
		*e = retry{}
		return
	}
	e.id, e.node, e.life = id, node, life
	e.until = now + int64(retryLife)
	if node != 0 {
		e.until = now + int64(markPatience)
	}
}

// last tells whether an OPEN of that node is the second of its system call, what of, and forgets that.
func (r *retries) last(pid uint32, node uint64) (e retry, last bool) {
	at := &r[pid%uint32(len(r))]
	if at.pid != pid || pid == 0 {
		return e, false
	}
	e, *at = *at, retry{}
	return e, e.node == node && node != 0 && e.until > sessfs.Boottime()
}

// lastNode returns the node of such an OPEN where it is not known any more, because the session was destroyed and those who
// had it open have closed it. The caller holds FS.mu.
func (t *nodeTable) lastNode(e retry) *node {
	n := t.life(e.id, e.life)
	n.retired = n.retired || t.current[e.id] != n
	return n
}

// openLast answers the second OPEN of a system call that finds nothing: the session was there when its LOOKUP came, and is
// gone. It goes on as if it had opened the session before that, and had waited for its lock: what it has is a new, empty
// one, of which nothing is stored before it is written, on condition that nobody else has done so. That holds for those,
// too, who did not ask for O_CREAT, which OPEN does not tell. Who only reads hears that there is nothing. The claim stays
// the caller's where it fails. The caller holds FS.mu.
func (fs *FS) openLast(n *node, claim sessfs.Claim, s *sessfs.Session, in *fuse.OpenIn) (*handle, fuse.Status) {
	switch {
	case in.Flags&syscall.O_ACCMODE == syscall.O_RDONLY:
		return nil, fuse.ENOENT
	case !fs.dirAllowed(&in.Caller, wantWrite|wantExec):
		return nil, fuse.EACCES
	}
	return fs.attachNew(n, claim, s, &fuse.CreateIn{InHeader: in.InHeader, Flags: in.Flags, Mode: 0o600}), fuse.OK
}
