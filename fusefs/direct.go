package fusefs

import (
	"encoding/binary"
	"runtime/debug"
	"sync"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"sessfs/internal/handover"
	"sessfs/internal/loop"
)

// The seven requests that a PHP request consists of go straight to their handlers, in go-fuse's types, which are the
// kernel's (linux/fuse.h). ProtocolServer would make the same calls with four allocations each and one copy more of
// what is read. All others, and a SETLKW that has to wait and may be interrupted, go through it.

// Sizes of the requests with their headers.
const (
	sizeOpenIn    = int(unsafe.Sizeof(fuse.OpenIn{}))
	sizeGetAttrIn = int(unsafe.Sizeof(fuse.GetAttrIn{}))
	sizeSetAttrIn = int(unsafe.Sizeof(fuse.SetAttrIn{}))
	sizeLkIn      = int(unsafe.Sizeof(fuse.LkIn{}))
	sizeReadIn    = int(unsafe.Sizeof(fuse.ReadIn{}))
	sizeWriteIn   = int(unsafe.Sizeof(fuse.WriteIn{}))
	sizeReleaseIn = int(unsafe.Sizeof(fuse.ReleaseIn{}))

	sizeInterruptIn = inHeaderSize + 8
)

type (
	attrReply struct {
		fuse.OutHeader
		fuse.AttrOut
	}
	openReply struct {
		fuse.OutHeader
		fuse.OpenOut
	}
	writeReply struct {
		fuse.OutHeader
		fuse.WriteOut
	}
)

// atOnce answers a request from memory, on the loop itself. It reports false where that would mean to wait.
func (d *device) atOnce(in []byte, op uint32) (done bool) {
	defer d.recovered(in, &done)
	p := unsafe.Pointer(&in[0])
	switch {
	case op == opGetattr && len(in) >= sizeGetAttrIn:
		var r attrReply
		st, ok := d.fs.getAttrAtOnce((*fuse.GetAttrIn)(p), &r.AttrOut)
		if ok {
			d.reply(unsafe.Pointer(&r), unsafe.Sizeof(r), in, st)
		}
		return ok
	case op == opSetattr && len(in) >= sizeSetAttrIn:
		var r attrReply
		st, ok := d.fs.truncateAtOnce((*fuse.SetAttrIn)(p), &r.AttrOut)
		if ok {
			d.reply(unsafe.Pointer(&r), unsafe.Sizeof(r), in, st)
		}
		return ok
	case op == opSetlkw && len(in) >= sizeLkIn:
		var r fuse.OutHeader
		ok := d.fs.lockAtOnce((*fuse.LkIn)(p))
		if ok {
			d.reply(unsafe.Pointer(&r), unsafe.Sizeof(r), in, fuse.OK)
		}
		return ok
	case op == opRead && len(in) >= sizeReadIn:
		data, st, ok := d.fs.readAtOnce((*fuse.ReadIn)(p))
		if ok {
			d.replyData(in, data, st)
		}
		return ok
	case op == opRelease && len(in) >= sizeReleaseIn:
		var r fuse.OutHeader
		d.fs.Release(nil, (*fuse.ReleaseIn)(p))
		d.reply(unsafe.Pointer(&r), unsafe.Sizeof(r), in, fuse.OK)
		return true
	}
	return false
}

// apart answers a request that may wait for the network, on a goroutine of its own. It reports false where go-fuse is to
// do it.
func (d *device) apart(in []byte, op uint32) (done bool) {
	defer d.recovered(in, &done)
	p := unsafe.Pointer(&in[0])
	switch {
	case op == opOpen && len(in) >= sizeOpenIn:
		var r openReply
		st := d.fs.Open(nil, (*fuse.OpenIn)(p), &r.OpenOut)
		d.reply(unsafe.Pointer(&r), unsafe.Sizeof(r), in, st)
		return true
	case op == opWrite && len(in) >= sizeWriteIn:
		var r writeReply
		w := (*fuse.WriteIn)(p)
		data := in[sizeWriteIn:]
		if uint32(len(data)) != w.Size {
			return false
		}
		n, st := d.fs.Write(nil, w, data)
		r.Size = n
		d.reply(unsafe.Pointer(&r), unsafe.Sizeof(r), in, st)
		return true
	}
	return false
}

// reply writes the answer at r, which begins with a header and has size bytes, or the header alone after an error.
func (d *device) reply(r unsafe.Pointer, size uintptr, in []byte, st fuse.Status) {
	h := (*fuse.OutHeader)(r)
	if st != fuse.OK {
		size = outHeaderSize
	}
	h.Length, h.Status, h.Unique = uint32(size), -int32(st), unique(in)
	d.write(unsafe.Slice((*byte)(r), size))
}

// replyData answers a READ, without a copy.
func (d *device) replyData(in, data []byte, st fuse.Status) {
	h := fuse.OutHeader{Unique: unique(in)}
	if st != fuse.OK || len(data) == 0 {
		d.reply(unsafe.Pointer(&h), outHeaderSize, in, st)
		return
	}
	h.Length = uint32(outHeaderSize + len(data))
	iov := [2]unix.Iovec{{Base: (*byte)(unsafe.Pointer(&h))}, {Base: &data[0]}}
	iov[0].SetLen(outHeaderSize)
	iov[1].SetLen(len(data))
	for {
		_, errno := loop.Writev(d.fd, iov[:])
		if !d.again(errno, int(h.Length)) {
			return
		}
	}
}

// recovered answers a request whose handler panicked: one request fails, not the mount.
func (d *device) recovered(in []byte, done *bool) {
	if r := recover(); r != nil {
		*done = true
		d.log.Error("a request failed for a defect of this program; please report it", "panic", r, "opcode", binary.NativeEndian.Uint32(in[4:]), "stack", string(debug.Stack()))
		var h fuse.OutHeader
		d.reply(unsafe.Pointer(&h), outHeaderSize, in, fuse.EIO)
	}
}

// unique is the number of a request.
func unique(in []byte) uint64 { return binary.NativeEndian.Uint64(in[8:]) }

// uniques are requests by their number.
type uniques struct {
	mu  sync.Mutex
	set map[uint64]*handover.Request // guarded by mu
}

func (u *uniques) add(n uint64, q *handover.Request) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.set == nil {
		u.set = make(map[uint64]*handover.Request)
	}
	u.set[n] = q
}

func (u *uniques) remove(n uint64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.set, n)
}

func (u *uniques) has(n uint64) bool { return u.get(n) != nil }

func (u *uniques) get(n uint64) *handover.Request {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.set[n]
}

func (u *uniques) any() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.set) > 0
}

// request is the request with that number while it is with a worker; nil: it is not.
func (fs *FS) request(unique uint64) *handover.Request {
	if fs.device == nil {
		return nil
	}
	return fs.device.direct.get(unique)
}

// copied keeps a request that is answered on the loop, for the change that it begins.
func (fs *FS) copied(in *fuse.SetAttrIn) *handover.Request {
	if fs.device == nil {
		return nil
	}
	return fs.device.requests.Small(unsafe.Slice((*byte)(unsafe.Pointer(in)), sizeSetAttrIn))
}
