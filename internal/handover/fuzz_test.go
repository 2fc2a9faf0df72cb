package handover

import (
	"encoding/binary"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"sessfs"
)

// places are where a process that went wrong may have written: the header, the first records of each table, what was saved.
func places() []uintptr {
	at, _ := sections()
	head := unsafe.Offsetof(header{}.used)
	return append(at[:], 0, head, unsafe.Offsetof(header{}.initLen), unsafe.Offsetof(header{}.saveAt),
		at[handleRecords]+unsafe.Sizeof(Handle{}), at[fileRecords]+unsafe.Sizeof(File{}), at[leaseRecords]+unsafe.Sizeof(Lease{}))
}

// scribble writes b to the memory as pieces: which of the places, how far behind it (2 bytes), how long, and the bytes.
func scribble(m *Memory, b []byte) {
	list := places()
	for len(b) > 4 {
		at := list[int(b[0])%len(list)] + uintptr(binary.LittleEndian.Uint16(b[1:]))%4096
		n := min(int(b[3]), len(b)-4)
		copy(m.all[at:], b[4:4+n])
		b = b[4+n:]
	}
}

// FuzzAttach: a successor takes over whatever another process has left, or says why not. What it finds are records that there
// can be: requests as long as their room, sessions with names that files can have.
func FuzzAttach(f *testing.F) {
	piece := func(place byte, off uint16, bytes ...byte) []byte {
		return append(binary.LittleEndian.AppendUint16([]byte{place}, off), append([]byte{byte(len(bytes))}, bytes...)...)
	}
	f.Add([]byte{})
	for i := range byte(14) {
		f.Add(piece(i, 0, 255, 255, 255, 255, 255, 255, 255, 255))
		f.Add(piece(i, 0, 41, 0, 0, 0, 255, 0, 0, 0, 1))
		f.Add(piece(i, 4, 255, 255, 255, 127))
	}
	f.Add(piece(3, uint16(unsafe.Offsetof(File{}.id)), 3, '.', '.', '/'))
	f.Add(piece(4, uint16(unsafe.Offsetof(Lease{}.id)), 3, 'a', 0, '/'))
	f.Add(piece(2, uint16(unsafe.Offsetof(Handle{}.file)), 9, 0, 0, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := newMemory(t)
		file := m.NewFile("sess_a")
		m.NewHandle(file, func(h *Handle) { h.FH = 7 })
		m.NewHandle(m.NewFile("sess_b"), func(h *Handle) { h.FH = 8 })
		m.Leases().Begin("sess_a", sessfs.Holder{Token: "t1"})
		m.Leases().Hold(m.Leases().Begin("sess_b", sessfs.Holder{Token: "t2"}), 5)
		m.Requests().Small(request(2, 100))
		copy(m.Requests().Large().Room(), request(4, 5000))
		m.PutNode(5, "sess_a", 1)
		m.KeepInit([]byte("init"))
		m.Save([]byte("saved"))
		scribble(m, b)
		fd, err := unix.Dup(m.Fd())
		if err != nil {
			t.Fatal(err)
		}
		next, err := Attach(fd)
		if err != nil {
			unix.Close(fd)
			return
		}
		defer next.Close()
		if len(next.Init()) > len(header{}.init) || len(next.Saved()) > maxSaved/2 {
			t.Fatal("more was kept than there is room for")
		}
		for _, q := range next.Requests().Left() {
			if n := binary.NativeEndian.Uint32(q.Room()); n < 40 || int(n) > len(q.Room()) {
				t.Fatalf("a request of %d bytes in room for %d", n, len(q.Room()))
			}
			q.Kept()
			q.Stamp(0)
			q.Free()
		}
		handles := make(map[*Handle]bool)
		for _, f := range next.LeftFiles() {
			if !f.ID().Valid() || len(f.Handles) == 0 {
				t.Fatalf("a session %q with %d handles", f.ID(), len(f.Handles))
			}
			f.Version()
			f.SetVersion(sessfs.Version{Counter: 1})
			f.Created()
			for _, h := range f.Handles {
				if handles[h] || h.State() != Open && h.State() != Released || h.Kind.Load() > uint32(sessfs.Exclusive) {
					t.Fatalf("a handle in state %d, twice: %v", h.State(), handles[h])
				}
				handles[h] = true
				next.EndHandle(h)
			}
			next.EndFile(f.File)
		}
		for _, l := range next.Leases().Left() {
			if !l.ID.Valid() || l.Holder.Token == "" {
				t.Fatalf("a lease of %q with token %q", l.ID, l.Holder.Token)
			}
			next.Leases().Forget(l.Record)
		}
		if id, _, ok := next.Node(5); ok && !id.Valid() {
			t.Fatalf("a node of %q", id)
		}
		// It goes on: there is room for what comes.
		if f := next.NewFile("sess_c"); f == nil || next.NewHandle(f, func(*Handle) {}) == nil {
			t.Fatal("there is no room for another session")
		}
		if again := successor(t, next); len(again.LeftFiles()) != 1 {
			t.Fatal("another successor does not find the one session that is open")
		}
	})
}
