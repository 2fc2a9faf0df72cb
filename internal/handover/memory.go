// Package handover keeps what a daemon must leave behind so that another goes on under the same mount, at whatever
// moment it dies: the requests that it has read and not answered, the files that are open, the leases it has.
//
// All of it stands in shared memory (a memfd), which the keeper, the daemon's parent, holds beside /dev/fuse. Requests
// are read straight into it, records are some stores into it: no system call, no message. Each record becomes valid
// with one store of its state, the last one made, and ends with another; a process that is killed leaves either.
//
// One process writes at a time. All methods may be called on nil, where nothing is kept: in tests without a kernel.
package handover

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// layout is the version of everything below. A daemon with another one cannot go on where this one ended.
const layout = 1

const magic = 0x7366_6573_7373_6601

// ErrLayout: the memory was written by a version of sessfs that keeps other records.
var ErrLayout = errors.New("the running daemon keeps its state in another form; unmount and mount again to change to this version")

// Memory is the shared memory of a mount.
type Memory struct {
	fd   int
	all  []byte
	head *header

	requests Requests
	handles  Handles
	files    table[File]
	leases   Leases
	nodes    []nodeRow
	saved    []byte
}

// header is the first page.
type header struct {
	magic   uint64
	layout  uint32
	started atomic.Uint32 // daemons, so far
	used    [tables]atomic.Uint32
	initLen atomic.Uint32 // of the kernel's INIT; 0: it was not read yet
	_       uint32
	init    [1024]byte
	saveAt  atomic.Uint64 // of what Save has kept: its length and in which half it is
}

// The tables of the memory.
const (
	smallRequests = iota
	largeRequests
	handleRecords
	fileRecords
	leaseRecords
	tables
)

// How many records of each kind there can be. The memory is sparse: what was never used takes no room. Where a table is
// full the daemon goes on, and what has no record does not survive it.
const (
	// MaxHandles is how many open files survive their daemon.
	MaxHandles = 32768

	maxSmall   = 16384
	maxLarge   = 256
	maxHandles = MaxHandles
	maxFiles   = 32768
	maxLeases  = 32768
	maxNodes   = 32768 // a power of two
	maxSaved   = 1 << 20
)

const page = 4096

func pages(n uintptr) uintptr { return (n + page - 1) / page * page }

// sections are the places of the tables, and the size of all.
func sections() (at [tables + 2]uintptr, size uintptr) {
	size = page
	for i, n := range []uintptr{
		maxSmall * smallStride, maxLarge * largeStride, maxHandles * unsafe.Sizeof(Handle{}), maxFiles * unsafe.Sizeof(File{}),
		maxLeases * unsafe.Sizeof(Lease{}), maxNodes * unsafe.Sizeof(nodeRow{}), maxSaved,
	} {
		at[i] = size
		size += pages(n)
	}
	return at, size
}

// New makes the memory of a new mount.
func New() (*Memory, error) {
	fd, err := unix.MemfdCreate("sessfs", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("making shared memory: memfd_create: %w", err)
	}
	_, size := sections()
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("making shared memory of %d bytes: ftruncate: %w", size, err)
	}
	m, err := open(fd)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	m.head.layout = layout
	m.head.magic = magic
	return m, nil
}

// Attach takes over the memory behind a descriptor, which it owns from then on, unless there is an error. ErrLayout.
func Attach(fd int) (*Memory, error) {
	unix.CloseOnExec(fd)
	var st unix.Stat_t
	_, size := sections()
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("taking over the shared memory: fstat: %w", err)
	}
	if st.Size < page {
		return nil, fmt.Errorf("taking over the shared memory: it has %d bytes", st.Size)
	}
	var head [16]byte
	if _, err := unix.Pread(fd, head[:], 0); err != nil {
		return nil, fmt.Errorf("taking over the shared memory: %w", err)
	}
	if binary.NativeEndian.Uint64(head[:]) != magic || binary.NativeEndian.Uint32(head[8:]) != layout || uintptr(st.Size) != size {
		return nil, ErrLayout
	}
	m, err := open(fd)
	if err != nil {
		return nil, err
	}
	if err := m.check(); err != nil {
		unix.Munmap(m.all)
		return nil, err
	}
	return m, nil
}

// check tells why another process cannot have left that. What is in the tables is looked at by those who take it over.
func (m *Memory) check() error {
	for i, n := range [tables]int{maxSmall, maxLarge, maxHandles, maxFiles, maxLeases} {
		if used := m.head.used[i].Load(); used > uint32(n) {
			return fmt.Errorf("taking over the shared memory: it is damaged: %d records of table %d are in use, there is room for %d", used, i, n)
		}
	}
	if n := m.head.initLen.Load(); n > uint32(len(m.head.init)) {
		return fmt.Errorf("taking over the shared memory: it is damaged: the kernel's INIT has %d bytes, there is room for %d", n, len(m.head.init))
	}
	if n := m.head.saveAt.Load() >> 1; n > maxSaved/2 {
		return fmt.Errorf("taking over the shared memory: it is damaged: %d bytes were saved, there is room for %d", n, maxSaved/2)
	}
	return nil
}

func open(fd int) (*Memory, error) {
	at, size := sections()
	all, err := unix.Mmap(fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("mapping shared memory of %d bytes: %w", size, err)
	}
	m := &Memory{fd: fd, all: all, head: (*header)(unsafe.Pointer(&all[0]))}
	m.requests.init(m.head, all[at[smallRequests]:], all[at[largeRequests]:])
	m.handles.init(all[at[handleRecords]:], maxHandles, &m.head.used[handleRecords])
	m.files.init(all[at[fileRecords]:], maxFiles, &m.head.used[fileRecords])
	m.leases.init(all[at[leaseRecords]:], maxLeases, &m.head.used[leaseRecords])
	m.nodes = unsafe.Slice((*nodeRow)(unsafe.Pointer(&all[at[tables]])), maxNodes)
	m.saved = all[at[tables+1]:][:maxSaved]
	return m, nil
}

// Close lets go of the memory. Nothing of it must be used any more.
func (m *Memory) Close() {
	if m == nil {
		return
	}
	unix.Munmap(m.all)
	unix.Close(m.fd)
}

// Fd is the memory's descriptor.
func (m *Memory) Fd() int { return m.fd }

// Begin notes that a daemon begins to work on the memory, and tells the how manieth it is: 1 for the first.
func (m *Memory) Begin() int {
	if m == nil {
		return 1
	}
	return int(m.head.started.Add(1))
}

// Init returns the kernel's INIT, which it sends once in the life of a mount; nil: it was not answered yet.
func (m *Memory) Init() []byte {
	if m == nil {
		return nil
	}
	return m.head.init[:m.head.initLen.Load()]
}

// KeepInit keeps the kernel's INIT, whose answer is about to be sent.
func (m *Memory) KeepInit(b []byte) {
	if m != nil {
		m.head.initLen.Store(uint32(copy(m.head.init[:], b)))
	}
}

// Save keeps bytes of the daemon's own choice, in the place of those before.
func (m *Memory) Save(b []byte) error {
	if m == nil {
		return nil
	}
	if len(b) > maxSaved/2 {
		return fmt.Errorf("keeping %d bytes in shared memory: there is room for %d", len(b), maxSaved/2)
	}
	half := 1 - m.head.saveAt.Load()&1
	n := copy(m.saved[half*maxSaved/2:], b)
	m.head.saveAt.Store(uint64(n)<<1 | half)
	return nil
}

// Saved returns a copy of what Save has kept; nil: nothing.
func (m *Memory) Saved() []byte {
	if m == nil || m.head.saveAt.Load()>>1 == 0 {
		return nil
	}
	at := m.head.saveAt.Load()
	return append([]byte(nil), m.saved[at&1*maxSaved/2:][:at>>1]...)
}

// Requests are those that were read and not answered.
func (m *Memory) Requests() *Requests {
	if m == nil {
		return nil
	}
	return &m.requests
}

// Handles are the open file descriptions.
func (m *Memory) Handles() *Handles {
	if m == nil {
		return nil
	}
	return &m.handles
}

// Leases are the locks among hosts that the daemon has.
func (m *Memory) Leases() *Leases {
	if m == nil {
		return nil
	}
	return &m.leases
}
