package handover

import (
	"sync/atomic"

	"sessfs"
)

// States of a Handle; 0: no record.
const (
	Open     = 1 // the kernel has it
	Released = 2 // it was closed; an unstored change is left, which is being stored
)

// Handles are the open file descriptions. Handle and File are changed under the filesystem's own locks.
type Handles struct {
	table[Handle]
}

// Handle is the record of an open file description.
type Handle struct {
	state atomic.Uint32
	self  uint32
	FH    uint64 // the kernel's name for it
	Life  uint32 // of the node's name
	PID   uint32
	Flags uint32
	file  uint32
	// Kind is the sessfs.LockKind that it has; 0: none. Failed: every call fails.
	Kind    atomic.Uint32
	Failed  atomic.Bool
	Retired atomic.Bool // of the node: see fusefs
	UID     uint32      // of who opened it; 0 in records of a version that did not note it
	_       [12]byte
}

// File is the record of an open session, which some handles share.
type File struct {
	state    atomic.Uint32
	self     uint32
	Detached atomic.Bool // it was unlinked, and has no name any more
	created  atomic.Bool
	which    atomic.Uint32 // of versions: the one that holds
	versions [2]sessfs.Version
	attr     sessfs.Attr
	id       name
}

// name is a session's.
type name struct {
	n uint8
	b [255]byte
}

func (n *name) set(id sessfs.ID) { n.n = uint8(copy(n.b[:], id)) }
func (n *name) id() sessfs.ID    { return sessfs.ID(n.b[:n.n]) }

// NewFile makes the record of a session; nil: there is no room.
func (m *Memory) NewFile(id sessfs.ID) *File {
	if m == nil || len(id) > 255 {
		return nil
	}
	i, ok := m.files.take()
	if !ok {
		return nil
	}
	f := &m.files.recs[i]
	f.self = i
	f.Detached.Store(false)
	f.created.Store(false)
	f.which.Store(0)
	f.versions[0] = sessfs.Version{}
	f.id.set(id)
	f.state.Store(Open)
	return f
}

// ID is the session's.
func (f *File) ID() sessfs.ID { return f.id.id() }

// SetVersion notes which version its handles have seen.
func (f *File) SetVersion(v sessfs.Version) {
	if f == nil {
		return
	}
	next := 1 - f.which.Load()
	f.versions[next] = v
	f.which.Store(next)
}

// Version is what SetVersion has noted.
func (f *File) Version() sessfs.Version { return f.versions[f.which.Load()&1] }

// SetDetached notes that it has no name any more.
func (f *File) SetDetached() {
	if f != nil {
		f.Detached.Store(true)
	}
}

// SetCreated notes the attributes of a session that is not on the servers yet; nil: it is.
func (f *File) SetCreated(a *sessfs.Attr) {
	if f == nil || a == nil && !f.created.Load() {
		return
	}
	f.created.Store(false)
	if a != nil {
		f.attr = *a
		f.created.Store(true)
	}
}

// Created is what SetCreated has noted.
func (f *File) Created() *sessfs.Attr {
	if !f.created.Load() {
		return nil
	}
	a := f.attr
	return &a
}

// EndFile ends the record of a session that nobody has open any more.
func (m *Memory) EndFile(f *File) {
	if f != nil {
		f.state.Store(0)
		m.files.put(f.self)
	}
}

// NewHandle makes the record of an open file description of f, and fills it in; nil: there is no room.
func (m *Memory) NewHandle(f *File, fill func(*Handle)) *Handle {
	if m == nil || f == nil {
		return nil
	}
	i, ok := m.handles.take()
	if !ok {
		return nil
	}
	h := &m.handles.recs[i]
	h.self, h.file = i, f.self
	h.Kind.Store(0)
	h.Failed.Store(false)
	h.Retired.Store(false)
	fill(h)
	h.state.Store(Open)
	return h
}

// Move notes that h belongs to another session's record now.
func (h *Handle) Move(f *File) {
	if h != nil && f != nil {
		h.file = f.self
	}
}

// SetKind notes which lock it has.
func (h *Handle) SetKind(k sessfs.LockKind) {
	if h != nil {
		h.Kind.Store(uint32(k))
	}
}

// SetFailed notes that every call fails from now on.
func (h *Handle) SetFailed() {
	if h != nil {
		h.Failed.Store(true)
	}
}

// ClearFailed undoes SetFailed.
func (h *Handle) ClearFailed() {
	if h != nil {
		h.Failed.Store(false)
	}
}

// SetRetired notes that its node has no name any more.
func (h *Handle) SetRetired() {
	if h != nil {
		h.Retired.Store(true)
	}
}

// SetReleased notes that the kernel has closed it, and that a change is left to be stored.
func (h *Handle) SetReleased() {
	if h != nil {
		h.state.Store(Released)
	}
}

// State is Open or Released.
func (h *Handle) State() uint32 { return h.state.Load() }

// EndHandle ends the record.
func (m *Memory) EndHandle(h *Handle) {
	if h != nil {
		h.state.Store(0)
		m.handles.put(h.self)
	}
}

// possible tells whether a record can be one of a handle.
func (h *Handle) possible() bool {
	s := h.state.Load()
	return (s == Open || s == Released) && h.Kind.Load() <= uint32(sessfs.Exclusive)
}

// possible tells whether a record can be one of an open session.
func (f *File) possible() bool { return f.state.Load() == Open && f.ID().Valid() }

// LeftFile is a session that a former daemon had open, with its handles.
type LeftFile struct {
	*File
	Handles []*Handle
}

// LeftFiles returns what a former daemon had open. It is called once, before anything else.
func (m *Memory) LeftFiles() []*LeftFile {
	if m == nil {
		return nil
	}
	byIndex := make(map[uint32]*LeftFile)
	var list []*LeftFile
	m.handles.each(func(i uint32, h *Handle) bool {
		if !h.possible() {
			h.state.Store(0)
			return false
		}
		h.self = i
		f := byIndex[h.file]
		if f == nil {
			if h.file >= m.files.used.Load() || !m.files.recs[h.file].possible() {
				h.state.Store(0)
				return false
			}
			f = &LeftFile{File: &m.files.recs[h.file]}
			f.which.Store(f.which.Load() & 1)
			byIndex[h.file] = f
			list = append(list, f)
		}
		f.Handles = append(f.Handles, h)
		return true
	})
	m.files.each(func(i uint32, f *File) bool {
		if byIndex[i] == nil {
			f.state.Store(0)
			return false
		}
		f.self = i
		return true
	})
	return list
}
