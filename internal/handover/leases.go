package handover

import (
	"sync/atomic"
	"time"

	"sessfs"
)

// States of a Lease; 0: no record.
const (
	trying = 1 // the servers may be asked for it
	held   = 2
	freed  = 3 // the servers are being told
)

// lately is how long what is sent "later" may stand in the memory of the process: see loop.Group.Later.
const lately = 100 * time.Millisecond

// Leases are the locks among hosts that the daemon has, or may have: the record is made before a server is asked, and
// stands for a while after it was told that the lock is free.
type Leases struct {
	table[Lease]
}

// Lease is a record of one.
type Lease struct {
	state    atomic.Uint32
	self     uint32
	pid      uint32
	_        uint32
	deadline atomic.Int64
	ended    int64 // Boottime
	since    int64 // unix nanoseconds
	keep     int64
	token    name
	id       name
}

func (l *Leases) init(at []byte, n int, used *atomic.Uint32) {
	l.table.init(at, n, used)
	l.spare = 512
}

// Begin notes that the lease is about to be asked for; h has its token. nil: there is no room.
func (l *Leases) Begin(id sessfs.ID, h sessfs.Holder) *Lease {
	if l == nil || len(id) > 255 || len(h.Token) > 255 {
		return nil
	}
	i, ok := l.take()
	if !ok {
		return nil
	}
	r := &l.recs[i]
	r.state.Store(0)
	r.self, r.pid, r.since, r.keep = i, h.PID, h.Since.UnixNano(), int64(h.Keep)
	r.deadline.Store(0)
	r.token.set(sessfs.ID(h.Token))
	r.id.set(id)
	r.state.Store(trying)
	return r
}

// Hold notes that it is held, until deadline (Boottime).
func (l *Leases) Hold(r *Lease, deadline int64) {
	if r != nil {
		r.deadline.Store(deadline)
		r.state.Store(held)
	}
}

// End notes that it is not held any more.
func (l *Leases) End(r *Lease) {
	if r != nil {
		r.ended = sessfs.Boottime()
		r.state.Store(freed)
		l.put(r.self)
	}
}

// Forget ends the record of a lease that was given back for certain, or has another record.
func (l *Leases) Forget(r *Lease) {
	if r != nil {
		r.state.Store(0)
		l.put(r.self)
	}
}

// LeftLease is a lease that a former daemon has left on the servers, perhaps.
type LeftLease struct {
	ID       sessfs.ID
	Holder   sessfs.Holder // its host and boot id are not set
	Held     bool          // it was held for certain
	Deadline int64         // Boottime
	Record   *Lease        // for End, once it is known to be free
}

// Left returns what a former daemon has left. It is called once, before anything else.
func (l *Leases) Left() (list []LeftLease) {
	if l == nil {
		return nil
	}
	last := int64(0)
	for i := range l.used.Load() {
		if r := &l.recs[i]; r.state.Load() == freed {
			last = max(last, r.ended)
		}
	}
	l.each(func(i uint32, r *Lease) bool {
		s := r.state.Load()
		stands := s == trying || s == held || s == freed && r.ended > last-int64(lately)
		if !stands || !r.id.id().Valid() || r.token.n == 0 {
			r.state.Store(0)
			return false
		}
		r.self = i
		list = append(list, LeftLease{ID: r.id.id(), Held: s == held, Deadline: r.deadline.Load(), Record: r,
			Holder: sessfs.Holder{PID: r.pid, Since: time.Unix(0, r.since), Keep: time.Duration(r.keep), Token: string(r.token.id())}})
		return true
	})
	return list
}
