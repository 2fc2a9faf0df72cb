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
	direct   uniques        // of requests that are with a worker and that no signal ends
	failed   atomic.Bool    // reading failed; the kernel still has the mount
	readers  sync.WaitGroup // that have not seen the end of the mount
	large    sync.Pool      // *[]byte of requestSize
	small    sync.Pool      // *[]byte of smallSize, for requests without a payload
}

// reader is the device in one event loop. It implements loop.Source.
type reader struct {
	*device
	loop *loop.Loop
	in   *[]byte // what the next request is read into
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
	requestSize   = 1<<20 + 4096 // the longest request: a WRITE of maxWrite, its headers, rounded up
	smallSize     = 4096
	gather        = 32 // requests that are read before what they left to write is written
)

func newDevice(fd int, fs *FS, opts *fuse.MountOptions) *device {
	d := &device{fd: fd, fs: fs, counters: &fs.counters, log: fs.log, proto: fuse.NewProtocolServer(fs, opts)}
	d.large.New = func() any { b := make([]byte, requestSize); return &b }
	d.small.New = func() any { b := make([]byte, smallSize); return &b }
	d.workers.handle = d.handleApart
	return d
}

// initTimeout is how long the kernel may take to send INIT, which it does when it mounts.
const initTimeout = 5 * time.Second

// serve answers INIT, so that all loops know what it brought, and has them read the device; they end with the mount.
func (d *device) serve(g *loop.Group) error {
	if _, err := unix.Poll([]unix.PollFd{{Fd: int32(d.fd), Events: unix.POLLIN}}, int(initTimeout/time.Millisecond)); err != nil && err != unix.EINTR {
		return fmt.Errorf("waiting for the kernel: poll: %w", err)
	}
	buf := d.large.Get().(*[]byte)
	defer d.large.Put(buf)
	n, errno := loop.Read(d.fd, *buf)
	if errno != 0 || n < inHeaderSize || binary.NativeEndian.Uint32((*buf)[4:]) != opInit {
		return fmt.Errorf("the kernel did not begin with INIT: %d bytes, errno %d", n, errno)
	}
	d.handle((*buf)[:n], opInit)
	for i, l := range g.Loops() {
		d.readers.Add(1)
		r := &reader{device: d, loop: l, in: d.large.Get().(*[]byte), burst: 1}
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

// Poll takes the requests that the kernel has ready.
func (r *reader) Poll() bool {
	if r.in == nil {
		return false
	}
	i := 0
	defer func() { r.counted(i) }()
	for ; i < r.burst; i++ {
		n, errno := loop.Read(r.fd, *r.in)
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
			r.in = nil
			r.loop.Remove(r.fd)
			r.readers.Done()
			return true
		}
	}
	r.burst = min(2*r.burst, gather)
	return true
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

// take sees to the request of n bytes in r.in.
func (r *reader) take(n int) {
	begun := hist.Now()
	op := binary.NativeEndian.Uint32((*r.in)[4:])
	if op < maxOpcode {
		r.counters.ops[op].Add(1)
	}
	if op == opInterrupt && n >= sizeInterruptIn && r.direct.has(binary.NativeEndian.Uint64((*r.in)[inHeaderSize:])) {
		return // without an answer, which the kernel does not need: EAGAIN would have it ask again at once
	}
	if r.atOnce((*r.in)[:n], op) {
		r.counters.took(op, begun)
		return
	}
	if inline(op) {
		r.handle((*r.in)[:n], op)
		r.counters.took(op, begun)
		return
	}
	if op == opOpen || op == opWrite {
		r.direct.add(unique((*r.in)[:n]))
	}
	if n <= smallSize {
		req := r.small.Get().(*[]byte)
		copy(*req, (*r.in)[:n])
		r.workers.do(work{req, n, op, &r.small, begun})
		return
	}
	r.workers.do(work{r.in, n, op, &r.large, begun})
	r.in = r.large.Get().(*[]byte)
}

// inline tells which requests are answered from memory, never waiting for anything.
func inline(op uint32) bool {
	switch op {
	case opForget, opBatchForget, opRelease, opFlush, opReaddir, opReleasedir, opInterrupt, opGetxattr, opListxattr, opFsyncdir:
		return true
	}
	return false
}

func (d *device) handleApart(w work) {
	in := (*w.buf)[:w.n]
	if !d.apart(in, w.op) {
		d.handle(in, w.op)
	}
	if w.op == opOpen || w.op == opWrite {
		d.direct.remove(unique(in))
	}
	d.counters.took(w.op, w.begun)
	w.pool.Put(w.buf)
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
