package fusefs

import (
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"sessfs"
	"sessfs/locking"
)

// between is an open(2) by thread 8 up to its second OPEN: the first one met a missing session, which process 7 then made,
// so that the LOOKUP after that said that it exists; and now it is gone.
func between(t *testing.T, close bool) (*FS, *locking.Manager, uint64) {
	t.Helper()
	fs, m := testFS(t)
	var entry fuse.EntryOut
	root := header(1, 8)
	if st := fs.Lookup(nil, &root, "sess_x", &entry); st != fuse.OK {
		t.Fatal(st)
	}
	if _, st := open(t, fs, entry.NodeId, 8); st != estale {
		t.Fatalf("OPEN of a missing session: %v", st)
	}
	fh, node := create(t, fs, "sess_x", 7)
	write(t, fs, fh, 7, "old")
	if st := lookup(fs, "sess_x", 8); st != fuse.OK {
		t.Fatalf("LOOKUP of one that is there: %v", st)
	}
	if close {
		release(fs, fh)
	}
	if _, err := m.Destroy(t.Context(), "sess_x"); err != nil {
		t.Fatal(err)
	}
	return fs, m, node
}

// A second ESTALE would reach the process: PHP's session_start() would fail. It gets a new session, with its lock; whether
// the old one was open here or not, and whether another OPEN has found it gone before.
func TestSecondOpenOfADestroyedSession(t *testing.T) {
	for name, found := range map[string]struct{ closed, retired, dropped bool }{
		"open here": {}, "closed": {closed: true}, "found gone before": {retired: true}, "found gone before and closed": {retired: true, dropped: true}} {
		t.Run(name, func(t *testing.T) {
			fs, m, node := between(t, found.closed)
			if found.retired {
				if _, st := open(t, fs, node, 9); st != estale {
					t.Fatalf("the first OPEN of another process: %v", st)
				}
				closeClaims(fs.marks.drop(markKey{"sess_x", 9}))
			}
			first := func() {
				for h, x := range fs.handles {
					if x.pid == 7 {
						release(fs, h)
					}
				}
			}
			if found.dropped {
				first()
				if fs.nodes.get(node) != nil {
					t.Fatal("the node is known still")
				}
			}
			fh, st := open(t, fs, node, 8)
			if st != fuse.OK {
				t.Fatalf("the second OPEN: %v", st)
			}
			if _, f, claim := fs.handle(fh); claim == nil || len(f.view(8).data) != 0 {
				t.Errorf("its claim is %v, it shows %q", claim, f.view(8).data)
			}
			if s, err := m.Read(t.Context(), "sess_x"); err != nil || s.Exists() {
				t.Errorf("something was stored: %v %v", s, err)
			}
			first()
			write(t, fs, fh, 8, "new")
			s, err := m.Read(t.Context(), "sess_x")
			if err != nil || string(s.Data) != "new" || s.Attr.Mode != 0o600 {
				t.Errorf("%v %v after its write", s, err)
			}
		})
	}
}

// Who only reads is told that there is nothing; who may not make a session, that.
func TestSecondOpenOfOthers(t *testing.T) {
	fs, m, node := between(t, true)
	in := &fuse.OpenIn{InHeader: header(node, 8), Flags: syscall.O_RDONLY}
	if st := fs.Open(nil, in, &fuse.OpenOut{}); st != fuse.ENOENT {
		t.Errorf("a reader: %v", st)
	}
	if n := m.Stats().Claims; n != 0 {
		t.Errorf("%d claims are left", n)
	}
	fs, m, node = between(t, true)
	fs.opts.DirMode = 0o755
	in = &fuse.OpenIn{InHeader: header(node, 8), Flags: syscall.O_RDWR}
	in.Uid = 1000
	if st := fs.Open(nil, in, &fuse.OpenOut{}); st != fuse.EACCES {
		t.Errorf("a user who may not write the directory: %v", st)
	}
	if n := m.Stats().Claims; n != 0 {
		t.Errorf("%d claims are left", n)
	}
}

// No other OPEN is taken for the second one: it would make a session for somebody who has not asked for that.
func TestRetries(t *testing.T) {
	const pid, id, node = 8, sessfs.ID("sess_x"), 77
	for name, c := range map[string]struct {
		steps func(r *retries)
		last  bool
	}{
		"nothing":                 {func(r *retries) {}, false},
		"a LOOKUP alone":          {func(r *retries) { r.lookedUp(pid, id, node, 0) }, false},
		"no LOOKUP":               {func(r *retries) { r.stale(pid, id) }, false},
		"told it exists":          {func(r *retries) { r.stale(pid, id); r.lookedUp(pid, id, node, 0) }, true},
		"told so the second time": {func(r *retries) { r.stale(pid, id); r.lookedUp(pid, id, 0, 0); r.lookedUp(pid, id, node, 0) }, true},
		"told it is missing":      {func(r *retries) { r.stale(pid, id); r.lookedUp(pid, id, node, 0); r.lookedUp(pid, id, 0, 0) }, false},
		"told so the third time": {func(r *retries) {
			r.stale(pid, id)
			r.lookedUp(pid, id, 0, 0)
			r.lookedUp(pid, id, 0, 0)
			r.lookedUp(pid, id, node, 0)
		}, true},
		"very many LOOKUPs": {func(r *retries) {
			r.stale(pid, id)
			for range maxRetried + 1 {
				r.lookedUp(pid, id, node, 0)
			}
		}, false},
		"a node that was not known": {func(r *retries) { r.stale(pid, ""); r.lookedUp(pid, id, node, 0) }, true},
		"another name":              {func(r *retries) { r.stale(pid, "sess_y"); r.lookedUp(pid, id, node, 0) }, false},
		"another node":              {func(r *retries) { r.stale(pid, id); r.lookedUp(pid, id, node+1, 1) }, false},
		"another thread's LOOKUP":   {func(r *retries) { r.stale(pid, id); r.lookedUp(pid+1, id, node, 0) }, false},
		"another in its place":      {func(r *retries) { r.stale(pid, id); r.lookedUp(pid, id, node, 0); r.stale(pid+uint32(len(r)), id) }, false},
		"its second OPEN came":      {func(r *retries) { r.stale(pid, id); r.lookedUp(pid, id, node, 0); r.last(pid, node) }, false},
		"a LOOKUP long after": {func(r *retries) {
			r.stale(pid, id)
			r.lookedUp(pid, id, 0, 0)
			r[pid].until = 1
			r.lookedUp(pid, id, node, 0)
		}, false},
		"a thread that is not known": {func(r *retries) { r.stale(0, id); r.lookedUp(0, id, node, 0) }, false},
	} {
		var r retries
		c.steps(&r)
		if _, last := r.last(pid, node); last != c.last {
			t.Errorf("%s: %v", name, last)
		}
	}
}

// The kernel sends the RELEASE of a file and what its process asks by path next beside each other: the handle that a chown
// goes through may end in the middle of it.
func TestChangeWhileTheFileIsReleased(t *testing.T) {
	for name, data := range map[string]string{"written": "data", "empty": "", "anew": ""} {
		t.Run(name, func(t *testing.T) {
			fs, m := testFS(t)
			if name == "anew" {
				fh, _ := create(t, fs, "sess_x", 7)
				write(t, fs, fh, 7, "old")
				release(fs, fh)
				in := header(1, 7)
				if st := fs.Unlink(nil, &in, "sess_x"); st != fuse.OK {
					t.Fatal(st)
				}
			}
			fh, node := create(t, fs, "sess_x", 7)
			if data != "" {
				write(t, fs, fh, 7, data)
			}
			f := fs.files["sess_x"]
			f.storing.Lock()
			done := make(chan fuse.Status)
			go func() {
				in := &fuse.SetAttrIn{}
				in.InHeader, in.Valid, in.Owner.Uid = header(node, 7), fuse.FATTR_UID, 1234
				done <- fs.SetAttr(nil, in, &fuse.AttrOut{})
			}()
			time.Sleep(20 * time.Millisecond) // it waits for f.storing with the handle's claim
			release(fs, fh)
			f.storing.Unlock()
			if st := <-done; st != fuse.OK {
				t.Error(st)
			}
			if s, err := m.Read(t.Context(), "sess_x"); err != nil || s.Attr.UID != 1234 || string(s.Data) != data {
				t.Errorf("%+v, %v", s, err)
			}
		})
	}
}

// The same where RELEASE has ended the file, and its claim not yet: a change of the ended file would be lost.
func TestChangeOfAnEndedFile(t *testing.T) {
	fs, _ := testFS(t)
	fh, _ := create(t, fs, "sess_x", 7)
	h := fs.handles[fh]
	f, claim := h.file, h.claim
	fs.mu.Lock() // as Release does, which closes the claim without it
	delete(fs.handles, fh)
	fs.nodes.closed(h.node, h)
	fs.unref(f)
	fs.mu.Unlock()
	v := f.published()
	v.attr.UID = 1234
	if err := fs.tryCommit(f, claim, v.base, v.attr, nil); err != nil {
		t.Fatal(err)
	}
	claim.Close()
	if a, _, st := fs.look("sess_x"); st != fuse.OK || a.UID != 1234 {
		t.Errorf("%+v, %v", a, st)
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if _, ok := fs.ghost("sess_x"); ok {
		t.Error("a ghost stands for a session that is stored")
	}
}
