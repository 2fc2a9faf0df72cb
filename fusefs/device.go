package fusefs

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"sessfs/internal/handover"
	"sessfs/internal/hist"
	"sessfs/internal/loop"
)

// device is a loop of our own on /dev/fuse: go-fuse parses requests and makes the answers (ProtocolServer), this reads
// and writes them, from the daemon's event loops. A request that may wait (for the network, for a lock) gets a goroutine
// of its own (see workers); what is answered from memory is answered at once.
type device struct {
	fd       int
	fs       *FS
	proto    *fuse.ProtocolServer
	counters *counters
	log      *slog.Logger
	workers  workers
	requests *handover.Requests
	direct   uniques        // requests that are with a worker and that no signal ends
	failed   atomic.Bool    // reading failed; the kernel still has the mount
	leaving  atomic.Bool    // no more requests are read: another daemon takes over
	gone     atomic.Bool    // the mount is
	readers  sync.WaitGroup // that have not seen the end of the mount
	large    sync.Pool      // *[]byte of requestSize, for answers
	small    sync.Pool      // *[]byte of smallSize, for answers
}

// reader is the device in one event loop. It implements loop.Source.
type reader struct {
	*device
	loop *loop.Loop
	in   *handover.Request // what the next request is read into
	// burst is how many requests are read without asking whether there are more: about as many as there were lately.
	// A read in vain costs as much as one that brings a request.
	burst int
}

// Opcodes of linux/fuse.h that the loop must tell apart.
const (
	opForget      = 2
	opGetattr     = 3
	opSetattr     = 4
	opOpen        = 14
	opRead        = 15
	opWrite       = 16
	opRelease     = 18
	opFlush       = 25
	opInit        = 26
	opReaddir     = 28
	opReleasedir  = 29
	opSetlkw      = 33
	opInterrupt   = 36
	opBatchForget = 42
	opGetxattr    = 22
	opListxattr   = 23
	opFsyncdir    = 30
)

const (
	inHeaderSize  = 40
	outHeaderSize = 16
	requestSize   = handover.LargeSize
	smallSize     = handover.SmallSize
	gather        = 32 // requests that are read before what they left to write is written
)

func newDevice(fd int, fs *FS, opts *fuse.MountOptions) *device {
	d := &device{fd: fd, fs: fs, counters: &fs.counters, log: fs.log, proto: fuse.NewProtocolServer(fs, opts), requests: fs.memory.Requests()}
	d.large.New = func() any { b := make([]byte, requestSize); return &b }
	d.small.New = func() any { b := make([]byte, smallSize); return &b }
	d.workers.handle = d.handleApart
	return d
}

// initTimeout is how long the kernel may take to send INIT, which it does when it mounts.
const initTimeout = 5 * time.Second

// begin answers INIT, so that all loops know what it brought. Of a mount that a former daemon has served the kernel sends
// none: the one that was kept is handled again, without an answer.
func (d *device) begin() error {
	if kept := d.fs.memory.Init(); len(kept) > 0 {
		out := d.small.Get().(*[]byte)
		defer d.small.Put(out)
		if _, status := d.proto.HandleRequest([][]byte{kept}, [][]byte{*out}); status != fuse.OK {
			return fmt.Errorf("the kept INIT could not be handled: %v", status)
		}
		return nil
	}
	if _, err := unix.Poll([]unix.PollFd{{Fd: int32(d.fd), Events: unix.POLLIN}}, int(initTimeout/time.Millisecond)); err != nil && err != unix.EINTR {
		return fmt.Errorf("waiting for the kernel: poll: %w", err)
	}
	q := d.requests.Large()
	defer q.Free()
	n, errno := loop.Read(d.fd, q.Room())
	if errno != 0 || n < inHeaderSize || binary.NativeEndian.Uint32(q.Room()[4:]) != opInit {
		return fmt.Errorf("the kernel did not begin with INIT: %d bytes, errno %d", n, errno)
	}
	d.fs.memory.KeepInit(q.Room()[:n])
	d.handle(q.Room()[:n], opInit)
	return nil
}

// serve has all loops read the device; they end with the mount.
func (d *device) serve(g *loop.Group) error {
	for i, l := range g.Loops() {
		d.readers.Add(1)
		r := &reader{device: d, loop: l, in: d.requests.Large(), burst: 1}
		if err := l.Add(d.fd, r, true); err != nil {
			d.readers.Done()
			if i > 0 {
				d.log.Warn("a second reader of /dev/fuse could not be started", "err", err)
				return nil
			}
			return err
		}
	}
	return nil
}

// resume handles what a former daemon has read and not answered. First, one after the other, what makes up changes that
// are not stored yet; whether they were answered does not matter: the kernel refuses a second answer.
func (d *device) resume(left []*handover.Request) {
	for _, q := range left {
		in := q.Room()
		w := work{q, int(binary.NativeEndian.Uint32(in)), binary.NativeEndian.Uint32(in[4:]), hist.Now()}
		d.note(w)
		switch {
		case q.Kept():
			d.handleApart(w)
		case w.op == opSetlkw: // in the order in which they have come
			placed := d.fs.awaitQueued(unique(in))
			d.workers.do(w)
			select {
			case <-placed:
			case <-time.After(time.Second):
			}
		default:
			d.workers.do(w)
		}
	}
}

// Poll takes the requests that the kernel has ready.
func (r *reader) Poll() bool {
	if r.in == nil {
		return false
	}
	if r.leaving.Load() {
		r.end()
		return true
	}
	i := 0
	defer func() { r.counted(i) }()
	for ; i < r.burst; i++ {
		n, errno := loop.Read(r.fd, r.in.Room())
		switch {
		case errno == 0 && n >= inHeaderSize:
			r.take(n)
		case errno == unix.EAGAIN:
			r.burst = max(i, 1)
			return i > 0
		case errno == unix.EINTR, errno == unix.ENOENT: // ENOENT: the request was interrupted before it was read
		default:
			if errno != unix.ENODEV { // ENODEV: unmounted
				r.failed.Store(true)
				r.log.Error("reading /dev/fuse failed; the mount ends", "err", errno, "bytes", n)
			}
			r.gone.Store(true)
			r.end()
			return true
		}
	}
	r.burst = min(2*r.burst, gather)
	return true
}

// end ends the reading.
func (r *reader) end() {
	r.in = nil
	r.loop.Remove(r.fd)
	r.readers.Done()
}

// counted notes how many requests a poll has brought.
func (r *reader) counted(requests int) {
	if requests > 0 {
		r.counters.polls.Add(1)
	}
	if requests > 1 {
		r.counters.crowded.Add(1)
	}
}

// Flush implements loop.Source: every answer is written when it is made.
func (r *reader) Flush() {}

// End implements loop.Source.
func (r *reader) End() {}

// Tick implements loop.Source.
func (r *reader) Tick(time.Time) {}

// Waiting implements loop.Source: requests have no time limit here.
func (r *reader) Waiting() bool { return false }

// take sees to the request of n bytes in r.in. While it is there, or in a copy, a successor would find it.
func (r *reader) take(n int) {
	begun := hist.Now()
	in := r.in.Room()[:n]
	op := binary.NativeEndian.Uint32(in[4:])
	if op < maxOpcode {
		r.counters.ops[op].Add(1)
	}
	switch {
	case op == opInterrupt && n >= sizeInterruptIn && r.direct.has(binary.NativeEndian.Uint64(in[inHeaderSize:])):
		// without an answer, which the kernel does not need: EAGAIN would have it ask again at once
		r.in.Clear()
	case r.atOnce(in, op):
		r.in.Clear()
		r.counters.took(op, begun)
	case inline(op):
		r.handle(in, op)
		r.in.Clear()
		r.counters.took(op, begun)
	case n <= smallSize:
		w := work{r.requests.Small(in), n, op, begun}
		r.in.Clear()
		r.note(w)
		r.workers.do(w)
	default:
		w := work{r.in, n, op, begun}
		r.in = r.requests.Large()
		r.note(w)
		r.workers.do(w)
	}
}

// note has a request known while it is with a worker, but for those that a signal ends.
func (d *device) note(w work) {
	if w.op != opSetlkw {
		d.direct.add(unique(w.in()), w.q)
	}
}

// inline tells which requests are answered from memory, never waiting for anything.
func inline(op uint32) bool {
	switch op {
	case opForget, opBatchForget, opRelease, opFlush, opReaddir, opReleasedir, opInterrupt, opGetxattr, opListxattr, opFsyncdir:
		return true
	}
	return false
}

// maxAttempts is how many daemons may die of one request, or beside it. A wait for a lock outlives any number.
const maxAttempts = 8

func (d *device) handleApart(w work) {
	in := w.in()
	switch n := w.q.Begun(); {
	case n > maxAttempts && w.op != opSetlkw:
		d.log.Error("a request was with several daemons that died; it is not tried again", "opcode", w.op, "daemons", n-1)
		var h fuse.OutHeader
		d.reply(unsafe.Pointer(&h), outHeaderSize, in, fuse.EIO)
	case !d.apart(in, w.op):
		d.handle(in, w.op)
	}
	if w.op == opSetlkw {
		d.fs.queued(unique(in))
	} else {
		d.direct.remove(unique(in))
	}
	d.counters.took(w.op, w.begun)
	w.q.Free()
}

// handle answers one request.
func (d *device) handle(in []byte, op uint32) {
	pool := &d.small
	switch op {
	case opRead, opReaddir, opGetxattr, opListxattr:
		// The size asked for stands behind handle and offset (READ, READDIR) or first (xattrs).
		at := inHeaderSize + 16
		if op == opGetxattr || op == opListxattr {
			at = inHeaderSize
		}
		if len(in) >= at+4 && binary.NativeEndian.Uint32(in[at:])+outHeaderSize+16 > smallSize {
			pool = &d.large
		}
	}
	out := pool.Get().(*[]byte)
	defer pool.Put(out)
	n, status := d.proto.HandleRequest([][]byte{in}, [][]byte{*out})
	if status != fuse.OK {
		n = errorReply(*out, in, status)
	}
	if n > 0 {
		d.write((*out)[:n])
	}
}

// errorReply answers a request that go-fuse could not handle.
func errorReply(out, in []byte, status fuse.Status) int {
	binary.NativeEndian.PutUint32(out, outHeaderSize)
	binary.NativeEndian.PutUint32(out[4:], uint32(-int32(status)))
	copy(out[8:16], in[8:16]) // unique
	return outHeaderSize
}

func (d *device) write(b []byte) {
	for {
		_, errno := loop.Write(d.fd, b)
		if !d.again(errno, len(b)) {
			return
		}
	}
}

// again tells whether an answer that the kernel did not take is to be written once more.
func (d *device) again(errno syscall.Errno, size int) bool {
	switch errno {
	case 0, unix.ENOENT: // ENOENT: the caller was killed and is gone
	case unix.EINTR, unix.EAGAIN:
		return true
	case unix.ENODEV, unix.EPERM: // EPERM: the connection was aborted
	default:
		d.log.Error("an answer was refused by the kernel", "err", errno, "bytes", size)
	}
	return false
}

// notifyInvalInode is FUSE_NOTIFY_INVAL_INODE of linux/fuse.h.
const notifyInvalInode = 2

// invalidate makes the kernel forget the attributes of an inode, and nothing else (a negative offset): safe inside a
// handler. A kernel that does not know the inode has nothing to forget.
func (d *device) invalidate(ino uint64) {
	if d == nil {
		return
	}
	var msg struct {
		length       uint32
		code         int32
		unique       uint64
		ino          uint64
		off, length2 int64
	}
	msg.length = uint32(unsafe.Sizeof(msg))
	msg.code = notifyInvalInode
	msg.ino = ino
	msg.off = -1
	b := unsafe.Slice((*byte)(unsafe.Pointer(&msg)), unsafe.Sizeof(msg))
	if _, errno := loop.Write(d.fd, b); errno != 0 && errno != unix.ENOENT && errno != unix.ENODEV {
		d.log.Warn("attributes could not be invalidated", "err", errno)
	}
}
