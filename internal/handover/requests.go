package handover

import (
	"encoding/binary"
	"sort"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// SmallSize is the longest request of a small one, in bytes.
	SmallSize = 4096
	// LargeSize is the longest request: a WRITE of 1 MiB, its headers, rounded up.
	LargeSize = 1<<20 + 4096

	smallStride = unsafe.Sizeof(requestHead{}) + SmallSize
	largeStride = unsafe.Sizeof(requestHead{}) + LargeSize
)

// requestHead stands before a request's bytes.
type requestHead struct {
	stamp    int64
	attempts uint32
	kept     uint32
	_        [48]byte
}

type (
	smallRequest [smallStride]byte
	largeRequest [largeStride]byte
)

// Requests are the requests that were read and not answered, and those of which an unstored change consists. A request is
// in this state while its first 8 bytes (linux/fuse.h: length and opcode) are not 0: they come with the read itself.
type Requests struct {
	small table[smallRequest]
	large table[largeRequest]
	made  [2][]*Request // for each record, once it was used; whoever has taken it looks there
}

// Request is one of them.
type Request struct {
	all   *Requests // nil: it has no place in the shared memory
	head  *requestHead
	data  []byte
	index uint32
	large bool
	uses  atomic.Int32
}

func (r *Requests) init(h *header, small, large []byte) {
	r.small.init(small, maxSmall, &h.used[smallRequests])
	r.large.init(large, maxLarge, &h.used[largeRequests])
	r.made = [2][]*Request{make([]*Request, maxSmall), make([]*Request, maxLarge)}
}

// Large returns room for a request of any length.
func (r *Requests) Large() *Request {
	if r != nil {
		if i, ok := r.large.take(); ok {
			return r.largeAt(i).use()
		}
	}
	return (&Request{head: &requestHead{}, data: make([]byte, LargeSize), large: true}).use()
}

// Small returns a copy of a request that is no longer than SmallSize.
func (r *Requests) Small(b []byte) *Request {
	var q *Request
	if r != nil {
		if i, ok := r.small.take(); ok {
			q = r.smallAt(i)
		}
	}
	if q == nil {
		q = &Request{head: &requestHead{}, data: make([]byte, SmallSize)}
	}
	copy(q.data[8:], b[8:])
	q.valid().Store(binary.NativeEndian.Uint64(b))
	return q.use()
}

func (r *Requests) smallAt(i uint32) *Request {
	if r.made[0][i] == nil {
		b := &r.small.recs[i]
		r.made[0][i] = &Request{all: r, head: (*requestHead)(unsafe.Pointer(b)), data: b[unsafe.Sizeof(requestHead{}):], index: i}
	}
	return r.made[0][i]
}

func (r *Requests) largeAt(i uint32) *Request {
	if r.made[1][i] == nil {
		b := &r.large.recs[i]
		r.made[1][i] = &Request{all: r, head: (*requestHead)(unsafe.Pointer(b)), data: b[unsafe.Sizeof(requestHead{}):], index: i, large: true}
	}
	return r.made[1][i]
}

// Trim gives the memory of large requests back that are not in use: what large sessions needed.
func (r *Requests) Trim() {
	if r == nil {
		return
	}
	r.large.trim(func(rec *largeRequest) {
		first := (page - uintptr(unsafe.Pointer(rec))%page) % page
		unix.Madvise(rec[first:first+(largeStride-first)/page*page], unix.MADV_REMOVE) // where it fails the memory stays
	})
}

func (q *Request) valid() *atomic.Uint64 { return (*atomic.Uint64)(unsafe.Pointer(&q.data[0])) }

// Room is where the request is read to.
func (q *Request) Room() []byte { return q.data }

// Clear ends the request, whose room is used for the next one.
func (q *Request) Clear() {
	q.valid().Store(0)
	*q.head = requestHead{}
}

func (q *Request) use() *Request {
	q.uses.Store(1)
	return q
}

// Free ends a use of the request: it was answered, or what it was kept for is over. The last use ends the request.
func (q *Request) Free() {
	if q == nil || q.uses.Add(-1) > 0 {
		return
	}
	q.Clear()
	switch {
	case q.all == nil:
	case q.large:
		q.all.large.put(q.index)
	default:
		q.all.small.put(q.index)
	}
}

// Keep has the request stay after its answer: the change that it asked for is not stored yet. Free ends that use.
func (q *Request) Keep() *Request {
	q.uses.Add(1)
	q.head.kept = 1
	return q
}

// Kept tells whether Keep was called, perhaps by a former daemon.
func (q *Request) Kept() bool { return q.head.kept != 0 }

// Stamp is the time of a change, in unix nanoseconds: now, or what it was when a former daemon began with it. With 0 for
// now it only tells: 0: nobody has begun with a change.
func (q *Request) Stamp(now int64) int64 {
	if q == nil {
		return now
	}
	if q.head.stamp == 0 {
		q.head.stamp = now
	}
	return q.head.stamp
}

// Begun notes that the request is handled, and returns how often that was tried, this time included.
func (q *Request) Begun() int {
	q.head.attempts++
	return int(q.head.attempts)
}

// Again tells whether a former daemon has begun with the request, and may have done what it asks for.
func (q *Request) Again() bool { return q != nil && q.head.attempts > 1 }

// Left returns the requests that a former daemon has left, those that were kept first, each in the order in which the
// kernel made them. It is called once, before anything else.
func (r *Requests) Left() (list []*Request) {
	if r == nil {
		return nil
	}
	known := make(map[uint64]bool)
	add := func(q *Request, max int) bool {
		n := int(binary.NativeEndian.Uint32(q.data))
		if n < 40 || n > max {
			q.Clear()
			return false
		}
		unique := binary.NativeEndian.Uint64(q.data[8:])
		if known[unique] { // it was about to be copied
			q.Clear()
			return false
		}
		known[unique] = true
		list = append(list, q.use())
		return true
	}
	r.small.each(func(i uint32, _ *smallRequest) bool { return add(r.smallAt(i), SmallSize) })
	r.large.each(func(i uint32, _ *largeRequest) bool { return add(r.largeAt(i), LargeSize) })
	sort.SliceStable(list, func(i, j int) bool {
		a, b := list[i], list[j]
		if a.Kept() != b.Kept() {
			return a.Kept()
		}
		return binary.NativeEndian.Uint64(a.data[8:]) < binary.NativeEndian.Uint64(b.data[8:])
	})
	return list
}
