package fusefs

import (
	"encoding/binary"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"sessfs"
)

// told gives fs a kernel that only listens, and returns what tells of which nodes it was told to forget the attributes
// since the last call.
func told(t *testing.T, fs *FS) func() []uint64 {
	t.Helper()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(p[0]); unix.Close(p[1]) })
	fs.device = &device{fd: p[1], log: slog.New(slog.DiscardHandler)}
	return func() (list []uint64) {
		var b [40]byte
		for {
			if n, err := unix.Read(p[0], b[:]); n != len(b) {
				if err != unix.EAGAIN {
					t.Fatalf("%d bytes of a message: %v", n, err)
				}
				return list
			}
			list = append(list, binary.NativeEndian.Uint64(b[16:]))
		}
	}
}

func stat(t *testing.T, fs *FS, node uint64, pid uint32) (size uint64, reused bool) {
	t.Helper()
	var out fuse.AttrOut
	if st := fs.GetAttr(nil, &fuse.GetAttrIn{InHeader: header(node, pid)}, &out); st != fuse.OK {
		t.Fatal(st)
	}
	return out.Size, out.AttrValid != 0 || out.AttrValidNsec != 0
}

func release(fs *FS, fh uint64) { fs.Release(nil, &fuse.ReleaseIn{Fh: fh}) }

// elsewhere changes a session behind the filesystem's back.
func elsewhere(t *testing.T, m sessfs.Store, id sessfs.ID, data string) {
	t.Helper()
	s, err := m.Read(t.Context(), id)
	if err == nil {
		_, err = m.Commit(t.Context(), id, s, sessfs.Attr{Mode: 0o600}, []byte(data))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Rule 1: whoever opens a session that is another one by now must not be shown the size of the old one, however long ago
// the kernel was given it: it may have taken that over later than it was answered, and its clock ticks seldom. PHP does
// not read a session whose size is 0, and would begin anew what another host had stored.
func TestOpenForgetsOldAttributes(t *testing.T) {
	for _, wait := range []time.Duration{0, attrTimeout + 10*time.Millisecond} {
		fs, m := testFS(t)
		forgotten := told(t, fs)
		fh, node := create(t, fs, "sess_x", 7)
		if _, reused := stat(t, fs, node, 7); !reused {
			t.Fatal("attributes of a session with its lease are not for reuse")
		}
		release(fs, fh)
		elsewhere(t, m, "sess_x", "new")
		time.Sleep(wait)
		if list := forgotten(); list != nil {
			t.Fatalf("told to forget %x before the OPEN", list)
		}
		fh, st := open(t, fs, node, 7)
		if st != fuse.OK {
			t.Fatal(st)
		}
		if list := forgotten(); !slices.Equal(list, []uint64{node}) {
			t.Errorf("after %v: told to forget %x, not %x", wait, list, node)
		}
		if size, reused := stat(t, fs, node, 7); size != 3 || !reused {
			t.Errorf("size %d, for reuse: %v", size, reused)
		}
		release(fs, fh)
		if _, st = open(t, fs, node, 7); st != fuse.OK || forgotten() != nil {
			t.Errorf("the same version again: %v, or told to forget it", st)
		}
	}
}

// The same for a lock that was waited for.
func TestLockForgetsOldAttributes(t *testing.T) {
	fs, m := testFS(t)
	forgotten := told(t, fs)
	fh, node := create(t, fs, "sess_x", 7)
	stat(t, fs, node, 7)
	release(fs, fh)
	fh, st := open(t, fs, node, 7)
	if st != fuse.OK {
		t.Fatal(st)
	}
	time.Sleep(attrTimeout + 10*time.Millisecond)
	elsewhere(t, m, "sess_x", "new")
	s, err := m.Read(t.Context(), "sess_x")
	if err != nil {
		t.Fatal(err)
	}
	h, _, _ := fs.handle(fh)
	h.waiting.Add(1)
	fs.rebind(h, s)
	if list := forgotten(); !slices.Equal(list, []uint64{node}) {
		t.Errorf("told to forget %x, not %x", list, node)
	}
}

// What PHP does with a session leaves the kernel with nothing to forget at the next OPEN: the answer to the truncation is
// not for reuse and takes the place of what was, and the thread that wrote had taken it. It is not so where somebody else
// asked in between, or where another thread wrote.
func TestNothingToForgetAfterAWrite(t *testing.T) {
	for _, c := range []struct {
		name          string
		asks          uint32
		writer, flags uint32
		forget        bool
	}{
		{name: "a write", writer: 7},
		{name: "asked in between", writer: 7, asks: 8, forget: true},
		{name: "another thread's write", writer: 8, forget: true},
		{name: "the kernel's own write", writer: 7, flags: fuse.WRITE_CACHE, forget: true},
	} {
		fs, _ := testFS(t)
		forgotten := told(t, fs)
		fh, node := create(t, fs, "sess_x", 7)
		write(t, fs, fh, 7, "old")
		if _, reused := stat(t, fs, node, 7); !reused {
			t.Fatalf("%s: attributes of a session with its lease are not for reuse", c.name)
		}
		in := &fuse.SetAttrIn{}
		in.InHeader, in.Valid, in.Fh = header(node, 7), fuse.FATTR_SIZE|fuse.FATTR_FH, fh
		var out fuse.AttrOut
		if st, ok := fs.truncateAtOnce(in, &out); !ok || st != fuse.OK || out.AttrValid != 0 || out.AttrValidNsec != 0 {
			t.Fatalf("%s: truncation: %v, %v, %+v", c.name, ok, st, out)
		}
		if c.asks != 0 {
			stat(t, fs, node, c.asks)
		}
		w := &fuse.WriteIn{InHeader: header(node, c.writer), Fh: fh, Size: 3, WriteFlags: c.flags}
		if _, st := fs.Write(nil, w, []byte("new")); st != fuse.OK {
			t.Fatalf("%s: %v", c.name, st)
		}
		release(fs, fh)
		if _, st := open(t, fs, node, 9); st != fuse.OK {
			t.Fatalf("%s: %v", c.name, st)
		}
		if told := forgotten() != nil; told != c.forget {
			t.Errorf("%s: told to forget: %v", c.name, told)
		}
	}
}

// Answers of another version than the kernel may have are not for reuse until it was told to forget that: the process that
// asked for them may get to run later than the one that has the lock. Nor are those of a node that has two sessions.
func TestOtherVersionsAreNotReused(t *testing.T) {
	fs, m := testFS(t)
	told(t, fs)
	fh, node := create(t, fs, "sess_x", 7)
	stat(t, fs, node, 7)
	write(t, fs, fh, 7, "new")
	if size, reused := stat(t, fs, node, 7); size != 3 || reused {
		t.Errorf("size %d, for reuse: %v", size, reused)
	}
	s, err := m.Read(t.Context(), "sess_x")
	if err != nil {
		t.Fatal(err)
	}
	fs.mu.Lock()
	n := fs.nodes.byIno[node]
	fs.forgetOld(n, s.Version)
	fs.mu.Unlock()
	if _, reused := stat(t, fs, node, 7); !reused {
		t.Error("not for reuse after the old one was forgotten")
	}
	fs.mu.Lock()
	n.retired, n.reused = true, false
	fs.mu.Unlock()
	if _, reused := stat(t, fs, node, 7); reused {
		t.Error("a retired node's are for reuse")
	}
}
