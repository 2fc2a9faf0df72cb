package fusefs

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"syscall"
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
	if _, st := open(t, fs, entry.NodeId, 7); st != estale {
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

func open(t *testing.T, fs *FS, node uint64, pid uint32) (fh uint64, st fuse.Status) {
	t.Helper()
	var out fuse.OpenOut
	st = fs.Open(nil, &fuse.OpenIn{InHeader: header(node, pid), Flags: syscall.O_RDWR}, &out)
	return out.Fh, st
}

func create(t *testing.T, fs *FS, name string, pid uint32) (fh, node uint64) {
	t.Helper()
	var out fuse.CreateOut
	in := &fuse.CreateIn{InHeader: header(1, pid), Flags: syscall.O_RDWR | syscall.O_CREAT, Mode: 0o600}
	if st := fs.Create(nil, in, name, &out); st != fuse.OK {
		t.Fatal(st)
	}
	return out.Fh, out.NodeId
}

// write replaces a session as PHP does, with the lock.
func write(t *testing.T, fs *FS, fh uint64, pid uint32, data string) {
	t.Helper()
	lk := &fuse.LkIn{InHeader: header(0, pid), Fh: fh, Lk: fuse.FileLock{Typ: syscall.F_WRLCK}, LkFlags: fuse.FUSE_LK_FLOCK}
	if st := fs.SetLkw(make(chan struct{}), lk); st != fuse.OK {
		t.Fatal(st)
	}
	if _, st := fs.Write(nil, &fuse.WriteIn{InHeader: header(0, pid), Fh: fh, Size: uint32(len(data))}, []byte(data)); st != fuse.OK {
		t.Fatal(st)
	}
}

// Of two processes that make a session at once, the CREATE of the later one comes with an answer of the servers from
// before the session was made. It must not be taken for news: the session would count as gone, and those who have it
// open, or open it next, would be without its lock.
func TestCreateWithAnOldAnswer(t *testing.T) {
	fs, _ := testFS(t)
	var entry fuse.EntryOut
	root := header(1, 8)
	if st := fs.Lookup(nil, &root, "sess_new", &entry); st != fuse.OK {
		t.Fatal(st)
	}
	if _, st := open(t, fs, entry.NodeId, 8); st != estale {
		t.Fatalf("OPEN of a missing session: %v", st)
	}
	first, node := create(t, fs, "sess_new", 7)
	write(t, fs, first, 7, "first")
	second, node2 := create(t, fs, "sess_new", 8)
	if node2 != node {
		t.Errorf("the second process was given another node: the session counts as gone")
	}
	for _, fh := range []uint64{first, second} {
		if _, f, claim := fs.handle(fh); claim == nil || string(f.view(0).data) != "first" {
			t.Errorf("a handle has claim %v and shows %q", claim, f.view(0).data)
		}
	}
	if _, st := open(t, fs, node, 9); st != fuse.OK {
		t.Errorf("a third process: %v", st)
	}
}

// A session that another host destroyed while it was open here: whoever opens its name next is led to a new session,
// with a lock, although the kernel still has the old node's name.
func TestOpenAfterADestroyElsewhere(t *testing.T) {
	fs, m := testFS(t)
	fh, node := create(t, fs, "sess_gone", 7)
	write(t, fs, fh, 7, "old")
	if _, err := m.Destroy(t.Context(), "sess_gone"); err != nil {
		t.Fatal(err)
	}
	if _, st := open(t, fs, node, 8); st != estale {
		t.Fatalf("the OPEN that finds it destroyed: %v", st)
	}
	if st := lookup(fs, "sess_gone", 8); st != fuse.ENOENT {
		t.Errorf("the LOOKUP after it: %v", st)
	}
	if _, st := open(t, fs, node, 9); st != estale {
		t.Errorf("an OPEN of the retired node: %v", st)
	}
	fresh, now := create(t, fs, "sess_gone", 8)
	if _, _, claim := fs.handle(fresh); claim == nil || now == node {
		t.Errorf("the new session has claim %v and node %x, the old one was %x", claim, now, node)
	}
}

// Rule 3: what becomes of an unpublished image is told by how its process went on.
func TestFateOfUnpublishedImages(t *testing.T) {
	var ws witnesses
	defer ws.close()
	child := func(script string) (*exec.Cmd, witness) {
		cmd := exec.Command("sh", "-c", script)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		w := ws.watch(uint32(cmd.Process.Pid))
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
	ws.done(&w)

	cmd, w = child("read x; exit 3")
	zombie(cmd)
	check("ended", w, false, true, true)
	cmd.Wait()
	check("ended and reaped", w, false, true, told)
	ws.done(&w)
	check("never known", ws.watch(0), false, true, false)
}

// A process that changes sessions again and again is watched over one descriptor; another that gets its pid is not taken
// for it.
func TestWitnesses(t *testing.T) {
	var ws witnesses
	defer ws.close()
	start := func() *exec.Cmd {
		cmd := exec.Command("sleep", "60")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	cmd := start()
	pid := uint32(cmd.Process.Pid)
	first := ws.watch(pid)
	second := ws.watch(pid) // two sessions at once
	ws.done(&first)
	ws.done(&second)
	again := ws.watch(pid)
	if again.pidfd < 0 || again.pidfd != first.pidfd || second.pidfd != first.pidfd {
		t.Errorf("descriptors %d, %d and %d for one process", first.pidfd, second.pidfd, again.pidfd)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if got := again.fate(); got != fateKilled && got != fateUnknown { // unknown before Linux 6.15
		t.Errorf("the fate of a killed process is %d", got)
	}
	// As if the next process had got that pid.
	next := start()
	defer func() { next.Process.Kill(); next.Wait() }()
	k := again.kept
	ws.done(&again)
	ws.kept[uint32(next.Process.Pid)%uint32(len(ws.kept))] = keptPidfd{pid: uint32(next.Process.Pid), fd: k.fd}
	*k = keptPidfd{}
	w := ws.watch(uint32(next.Process.Pid))
	if got := w.fate(); got != fateFine {
		t.Errorf("the fate of the next process with that pid is %d", got)
	}
	ws.done(&w)
}

// stateOf is the letter in /proc/PID/stat.
func stateOf(pid int) byte {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if i := bytes.LastIndexByte(b, ')'); err == nil && i >= 0 && i+2 < len(b) {
		return b[i+2]
	}
	return 0
}
