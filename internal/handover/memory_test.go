package handover

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sessfs"
)

func newMemory(t *testing.T) *Memory {
	t.Helper()
	m, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// successor is what another process finds, which the one before can do nothing about.
func successor(t *testing.T, m *Memory) *Memory {
	t.Helper()
	fd, err := unix.Dup(m.Fd())
	if err != nil {
		t.Fatal(err)
	}
	next, err := Attach(fd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(next.Close)
	return next
}

func request(unique uint64, size int) []byte {
	b := make([]byte, size)
	binary.NativeEndian.PutUint32(b, uint32(size))
	binary.NativeEndian.PutUint32(b[4:], 16)
	binary.NativeEndian.PutUint64(b[8:], unique)
	return b
}

// What was read and not answered is left, and what was kept, first.
func TestRequests(t *testing.T) {
	m := newMemory(t)
	r := m.Requests()
	large := r.Large()
	copy(large.Room(), request(8, 100_000))
	answered := r.Small(request(2, 100))
	kept, waiting := r.Small(request(10, 100)), r.Small(request(6, 100))
	kept.Keep()
	kept.Free() // answered
	answered.Free()
	if stamp := waiting.Stamp(77); stamp != 77 || waiting.Stamp(78) != 77 {
		t.Error("a stamp is not kept")
	}
	waiting.Begun()
	twice := r.Small(large.Room()[:100]) // about to be copied when the daemon died
	binary.NativeEndian.PutUint32(twice.Room(), 100)
	order := func(list []*Request) (uniques []uint64) {
		for _, q := range list {
			uniques = append(uniques, binary.NativeEndian.Uint64(q.Room()[8:]))
		}
		return uniques
	}
	left := successor(t, m).Requests().Left()
	if got := order(left); !slices.Equal(got, []uint64{10, 6, 8}) {
		t.Fatalf("left are %v", got)
	}
	if q := left[1]; q.Stamp(99) != 77 || q.Again() || q.Begun() != 2 || !q.Again() {
		t.Errorf("the request that was begun with has stamp %d", q.Stamp(99))
	}
	for _, q := range left {
		q.Free()
	}
	if again := successor(t, m).Requests().Left(); len(again) != 0 {
		t.Errorf("%v are left of nothing", order(again))
	}
}

// There is room for so many; the others have no place, and nothing else is different.
func TestRequestsWithoutRoom(t *testing.T) {
	r := newMemory(t).Requests()
	var all []*Request
	for i := range maxLarge + 3 {
		q := r.Large()
		copy(q.Room(), request(uint64(i), 50))
		all = append(all, q)
	}
	for _, q := range all {
		q.Free()
	}
	if q := r.Large(); q.all == nil {
		t.Error("room was lost")
	}
}

func TestFiles(t *testing.T) {
	m := newMemory(t)
	a, b, gone := m.NewFile("sess_a"), m.NewFile("sess_b"), m.NewFile("sess_gone")
	fill := func(fh uint64) func(*Handle) { return func(h *Handle) { h.FH, h.PID, h.Life = fh, 7, 3 } }
	h1, h2, h3 := m.NewHandle(a, fill(1)), m.NewHandle(a, fill(2)), m.NewHandle(b, fill(3))
	ended := m.NewHandle(gone, fill(4))
	a.SetVersion(sessfs.Version{Counter: 5, Nonce: 6})
	a.SetVersion(sessfs.Version{Counter: 7, Nonce: 8})
	b.SetCreated(&sessfs.Attr{UID: 33, Mtime: 9})
	h1.SetKind(sessfs.Exclusive)
	h2.SetReleased()
	h3.SetFailed()
	m.EndHandle(ended)
	m.EndFile(gone)
	left := successor(t, m).LeftFiles()
	if len(left) != 2 || left[0].ID() != "sess_a" || left[1].ID() != "sess_b" {
		t.Fatalf("left are %d", len(left))
	}
	if f := left[0]; f.Version() != (sessfs.Version{Counter: 7, Nonce: 8}) || f.Created() != nil || len(f.Handles) != 2 ||
		f.Handles[0].Kind.Load() != uint32(sessfs.Exclusive) || f.Handles[0].Life != 3 || f.Handles[1].State() != Released {
		t.Errorf("the first: %+v, %v", f.File, f.Handles)
	}
	if f := left[1]; f.Created() == nil || f.Created().UID != 33 || !f.Handles[0].Failed.Load() {
		t.Errorf("the second: %+v", f.File)
	}
}

// A record of a lease stands from before a server is asked until a while after it was told that the lock is free.
func TestLeases(t *testing.T) {
	m := newMemory(t)
	l := m.Leases()
	old := l.Begin("sess_old", sessfs.Holder{Token: "t0"})
	l.End(old)
	old.ended -= int64(time.Minute)
	since := time.Unix(5, 6)
	l.Hold(l.Begin("sess_held", sessfs.Holder{Token: "t1", PID: 9, Since: since, Keep: time.Second}), 1234)
	l.Begin("sess_asked", sessfs.Holder{Token: "t2"})
	l.End(l.Begin("sess_freed", sessfs.Holder{Token: "t3"}))
	l.Forget(l.Begin("sess_forgotten", sessfs.Holder{Token: "t4"}))
	next := successor(t, m).Leases()
	left := next.Left()
	var got []string
	for _, x := range left {
		got = append(got, fmt.Sprint(x.ID, " ", x.Holder.Token, " ", x.Held))
	}
	if want := []string{"sess_held t1 true", "sess_asked t2 false", "sess_freed t3 false"}; !slices.Equal(got, want) {
		t.Fatalf("left are %v", got)
	}
	if x := left[0]; x.Deadline != 1234 || x.Holder.PID != 9 || !x.Holder.Since.Equal(since) || x.Holder.Keep != time.Second {
		t.Errorf("%+v", x)
	}
	for _, x := range left {
		next.Forget(x.Record)
	}
	if left := successor(t, m).Leases().Left(); len(left) != 0 {
		t.Errorf("%+v are left of nothing", left)
	}
	for range 3 * maxLeases { // no record is lost
		l.End(l.Begin("sess_x", sessfs.Holder{Token: "t"}))
	}
	if used := l.used.Load(); used > 2000 {
		t.Errorf("%d records are used for one at a time", used)
	}
}

func TestNodesAndMore(t *testing.T) {
	m := newMemory(t)
	m.PutNode(77, "sess_n", 2)
	m.PutNode(78, sessfs.ID(make([]byte, 60)), 0)
	m.PutNode(79, "sess_r", 0)
	m.RemoveNode(79)
	m.KeepInit([]byte("init"))
	for _, text := range []string{"a long text", "short"} {
		if err := m.Save([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if m.Save(make([]byte, maxSaved)) == nil {
		t.Error("more was saved than there is room for")
	}
	next := successor(t, m)
	if id, life, ok := next.Node(77); id != "sess_n" || life != 2 || !ok {
		t.Errorf("node 77 is %s, %d, %v", id, life, ok)
	}
	for _, ino := range []uint64{78, 79, 80, 77 + maxNodes} {
		if _, _, ok := next.Node(ino); ok {
			t.Errorf("node %d is known", ino)
		}
	}
	if string(next.Init()) != "init" || string(next.Saved()) != "short" || m.Begin() != 1 || next.Begin() != 2 {
		t.Errorf("%q, %q", next.Init(), next.Saved())
	}
}

// Memory of another version, or of another program, is refused.
func TestLayout(t *testing.T) {
	m := newMemory(t)
	m.head.layout++
	fd, _ := unix.Dup(m.Fd())
	if _, err := Attach(fd); !errors.Is(err, ErrLayout) {
		t.Errorf("another layout: %v", err)
	}
	empty, err := unix.MemfdCreate("empty", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Attach(empty); err == nil {
		t.Error("an empty file is taken over")
	}
}

// Without a memory everything is as if there was room for nothing.
func TestNil(t *testing.T) {
	var m *Memory
	f := m.NewFile("sess_x")
	h := m.NewHandle(f, nil)
	f.SetVersion(sessfs.Version{})
	f.SetCreated(nil)
	f.SetDetached()
	h.SetKind(sessfs.Shared)
	h.SetFailed()
	h.Move(f)
	m.EndHandle(h)
	m.EndFile(f)
	m.PutNode(1, "x", 0)
	m.RemoveNode(1)
	m.Leases().End(m.Leases().Begin("sess_x", sessfs.Holder{}))
	if m.Init() != nil || m.Saved() != nil || m.Begin() != 1 || len(m.LeftFiles())+len(m.Leases().Left())+len(m.Requests().Left()) != 0 {
		t.Error("there is something in no memory")
	}
	q := m.Requests().Large()
	copy(q.Room(), request(1, 50))
	q.Free()
	m.Close()
}

// What large requests needed is given back, but for those in use.
func TestTrim(t *testing.T) {
	m := newMemory(t)
	r := m.Requests()
	var all []*Request
	for i := range 8 {
		q := r.Large()
		copy(q.Room(), request(uint64(i), LargeSize))
		for at := 4096; at < LargeSize; at += 4096 {
			q.Room()[at] = byte(i + 1)
		}
		all = append(all, q)
	}
	blocks := func() int64 {
		var st unix.Stat_t
		if err := unix.Fstat(m.Fd(), &st); err != nil {
			t.Fatal(err)
		}
		return st.Blocks * 512
	}
	before := blocks()
	for _, q := range all[1:] {
		q.Free()
	}
	r.Trim()
	if after := blocks(); after > before-7<<20+7*2*4096 {
		t.Errorf("of %d bytes %d are left", before, after)
	}
	for at := 4096; at < LargeSize; at += 4096 {
		if all[0].Room()[at] != 1 {
			t.Fatalf("byte %d of a request in use was lost", at)
		}
	}
	again := r.Large()
	if again.Room()[4096] != 0 {
		t.Error("what was given back is still there")
	}
	if left := successor(t, m).Requests().Left(); len(left) != 1 {
		t.Errorf("%d requests are left", len(left))
	}
}
