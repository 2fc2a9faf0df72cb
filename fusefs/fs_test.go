package fusefs

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"sessfs"
	"sessfs/backend/memory"
	"sessfs/locking"
)

// testFS is a filesystem over a store in memory, without a kernel.
func testFS(t *testing.T) (*FS, *locking.Manager) {
	t.Helper()
	b := memory.New(memory.Options{Lifetime: time.Minute, Lease: 10 * time.Second, MaxSize: 1 << 20})
	m := locking.New(b, locking.Options{Settings: locking.Settings{Lease: 10 * time.Second}})
	t.Cleanup(func() { m.Close(); b.Close() })
	return newFS(m, Options{DirMode: 0o1733, Files: []string{"sess_*"}, Key: []byte("key"), Log: slog.New(slog.DiscardHandler),
		Settings: Settings{MaxSize: 1 << 20, Lease: 10 * time.Second, Lifetime: time.Minute, Timeout: time.Second}}), m
}

func header(node uint64, pid uint32) fuse.InHeader {
	return fuse.InHeader{NodeId: node, Caller: fuse.Caller{Pid: pid}}
}

func lookup(fs *FS, name string, pid uint32) fuse.Status {
	in := header(1, pid)
	return fs.Lookup(nil, &in, name, &fuse.EntryOut{})
}

// Rule 7: a node id that fell out of the table is ESTALE, and the LOOKUP that follows tells the truth: a second ESTALE
// would reach the process.
func TestUnknownNode(t *testing.T) {
	for name, ask := range map[string]func(fs *FS, node uint64) fuse.Status{
		"GETATTR": func(fs *FS, node uint64) fuse.Status {
			return fs.GetAttr(nil, &fuse.GetAttrIn{InHeader: header(node, 7)}, &fuse.AttrOut{})
		},
		"OPEN": func(fs *FS, node uint64) fuse.Status {
			return fs.Open(nil, &fuse.OpenIn{InHeader: header(node, 7)}, &fuse.OpenOut{})
		},
		"ACCESS": func(fs *FS, node uint64) fuse.Status {
			return fs.Access(nil, &fuse.AccessIn{InHeader: header(node, 7)})
		},
		"SETATTR": func(fs *FS, node uint64) fuse.Status {
			in := &fuse.SetAttrIn{}
			in.InHeader = header(node, 7)
			return fs.SetAttr(nil, in, &fuse.AttrOut{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			fs, m := testFS(t)
			if _, err := m.Commit(t.Context(), "sess_there", &sessfs.Session{}, sessfs.Attr{Mode: 0o600}, []byte("x")); err != nil {
				t.Fatal(err)
			}
			if st := lookup(fs, "sess_missing", 7); st != fuse.OK {
				t.Fatalf("a LOOKUP that nobody forces: %v", st)
			}
			for _, id := range []sessfs.ID{"sess_other", "sess_there"} { // as the kernel knows them from before
				if st := ask(fs, fs.names.inode(id, 0)); st != estale {
					t.Fatalf("an unknown node: %v", st)
				}
			}
			if st := lookup(fs, "sess_other", 7); st != fuse.ENOENT {
				t.Errorf("the LOOKUP after it, of a missing session: %v", st)
			}
			if st := lookup(fs, "sess_there", 7); st != fuse.OK {
				t.Errorf("the LOOKUP after it, of one that is there: %v", st)
			}
		})
	}
}

// Rule 6: a mark that no CREATE follows ends by itself, and with it the claim of the OPEN that made it.
func TestMarkEndsWithItsClaim(t *testing.T) {
	fs, m := testFS(t)
	var entry fuse.EntryOut
	root := header(1, 7)
	if st := fs.Lookup(nil, &root, "sess_missing", &entry); st != fuse.OK {
		t.Fatal(st)
	}
	if st := fs.Open(nil, &fuse.OpenIn{InHeader: header(entry.NodeId, 7), Flags: 2}, &fuse.OpenOut{}); st != estale {
		t.Fatalf("OPEN of a missing session: %v", st)
	}
	if n := m.Stats().Claims; n != 1 {
		t.Fatalf("%d claims in the mark", n)
	}
	if st := lookup(fs, "sess_missing", 7); st != fuse.ENOENT {
		t.Errorf("the LOOKUP after it: %v", st)
	}
	if st := lookup(fs, "sess_missing", 8); st != fuse.OK {
		t.Errorf("another process's LOOKUP: %v", st)
	}
	closeClaims(fs.marks.expire(sessfs.Boottime() + int64(markLife) + 1))
	if n := m.Stats().Claims; n != 0 {
		t.Errorf("%d claims after the mark's end", n)
	}
}

// Rule 3: what becomes of an unpublished image is told by how its process went on.
func TestFateOfUnpublishedImages(t *testing.T) {
	child := func(script string) (*exec.Cmd, witness) {
		cmd := exec.Command("sh", "-c", script)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		w := watch(uint32(cmd.Process.Pid))
		in.Close()
		return cmd, w
	}
	zombie := func(cmd *exec.Cmd) { // wait for its end, without reaping it
		for end := time.Now().Add(10 * time.Second); stateOf(cmd.Process.Pid) != 'Z'; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the child does not end")
			}
		}
	}
	check := func(what string, w witness, failed, empty, cut bool) {
		t.Helper()
		for data, want := range map[string]bool{"": empty, "cut": cut} {
			img := &image{who: w, data: []byte(data), failed: failed}
			if got := img.publishable(); got != want {
				t.Errorf("%s, image %q: published %v", what, data, got)
			}
		}
	}
	cmd, w := child("read x; exec sleep 60")
	check("alive", w, false, true, true)
	check("alive, its store failed", w, true, false, false)
	cmd.Process.Kill()
	zombie(cmd)
	check("killed", w, false, false, false)
	cmd.Wait()
	_, told := pidfdExit(w.pidfd) // from Linux 6.15 on a pidfd tells how a reaped process ended
	check("killed and reaped", w, false, !told, false)
	w.close()

	cmd, w = child("read x; exit 3")
	zombie(cmd)
	check("ended", w, false, true, true)
	cmd.Wait()
	check("ended and reaped", w, false, true, told)
	w.close()
	check("never known", watch(0), false, true, false)
}

// stateOf is the letter in /proc/PID/stat.
func stateOf(pid int) byte {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if i := bytes.LastIndexByte(b, ')'); err == nil && i >= 0 && i+2 < len(b) {
		return b[i+2]
	}
	return 0
}
