package fusefs

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// device is a loop of our own on /dev/fuse: go-fuse parses requests and makes the answers (ProtocolServer), this reads
// and writes them. A request that may wait (for the network, for a lock) gets a goroutine of its own; what is answered
// from memory is answered on the reading thread.
type device struct {
	fd       int
	proto    *fuse.ProtocolServer
	counters *counters
	log      *slog.Logger
	readers  sync.WaitGroup
	running  sync.WaitGroup // requests in goroutines of their own
	large    sync.Pool      // *[]byte of requestSize
	small    sync.Pool      // *[]byte of smallSize, for requests without a payload
	gone     atomic.Bool
}

// Opcodes of linux/fuse.h that the loop must tell apart.
const (
	opForget      = 2
	opRead        = 15
	opRelease     = 18
	opFlush       = 25
	opInit        = 26
	opReaddir     = 28
	opReleasedir  = 29
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
	readers       = 2
)

func newDevice(fd int, fs fuse.RawFileSystem, opts *fuse.MountOptions, c *counters, log *slog.Logger) *device {
	d := &device{fd: fd, counters: c, log: log, proto: fuse.NewProtocolServer(fs, opts)}
	d.large.New = func() any { b := make([]byte, requestSize); return &b }
	d.small.New = func() any { b := make([]byte, smallSize); return &b }
	return d
}

// serve starts the readers; they end when the mount is gone.
func (d *device) serve() {
	for range readers {
		d.readers.Add(1)
		go d.read()
	}
}

func (d *device) read() {
	defer d.readers.Done()
	buf := d.large.Get().(*[]byte)
	defer func() { d.large.Put(buf) }()
	for {
		n, err := unix.Read(d.fd, *buf)
		switch {
		case err == nil && n >= inHeaderSize:
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOENT):
			continue // ENOENT: the request was interrupted before it was read
		default:
			if !errors.Is(err, unix.ENODEV) { // ENODEV: unmounted
				d.log.Error("reading /dev/fuse failed; the mount ends", "err", err, "bytes", n)
			}
			d.gone.Store(true)
			return
		}
		op := binary.NativeEndian.Uint32((*buf)[4:])
		if op < uint32(len(d.counters.ops)) {
			d.counters.ops[op].Add(1)
		}
		if inline(op) {
			d.handle((*buf)[:n], op)
			continue
		}
		d.running.Add(1)
		if n <= smallSize {
			req := d.small.Get().(*[]byte)
			copy(*req, (*buf)[:n])
			go d.handleApart(req, n, op, &d.small)
			continue
		}
		go d.handleApart(buf, n, op, &d.large)
		buf = d.large.Get().(*[]byte)
	}
}

// inline tells which requests are answered from memory, never waiting for anything.
func inline(op uint32) bool {
	switch op {
	case opForget, opBatchForget, opRelease, opFlush, opReaddir, opReleasedir, opInterrupt, opGetxattr, opListxattr, opFsyncdir, opInit:
		return true
	}
	return false
}

func (d *device) handleApart(buf *[]byte, n int, op uint32, pool *sync.Pool) {
	defer d.running.Done()
	d.handle((*buf)[:n], op)
	pool.Put(buf)
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
		_, err := unix.Write(d.fd, b)
		switch {
		case err == nil, errors.Is(err, unix.ENOENT): // ENOENT: the caller was killed and is gone
			return
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			continue
		case errors.Is(err, unix.ENODEV), errors.Is(err, unix.EPERM): // EPERM: the connection was aborted
			return
		default:
			d.log.Error("an answer was refused by the kernel", "err", err, "bytes", len(b))
			return
		}
	}
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
	if _, err := unix.Write(d.fd, b); err != nil && !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.ENODEV) {
		d.log.Warn("attributes could not be invalidated", "err", err)
	}
}
