package posix

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sessfs/internal/testkit"
)

// The rules of the filesystem that neither the differential test nor PHP's own sequences reach.

func hosts(t *testing.T, more string) (a, b *testkit.Host, m *testkit.Memcached) {
	t.Helper()
	m = testkit.StartMemcached(t)
	c := testkit.Conf{Servers: []*testkit.Memcached{m}, More: more, Cache: "  timeout: 2s\n  retry_interval: 2s\n"}
	return testkit.Mount(t, c), testkit.Mount(t, c), m
}

func must(t testing.TB, r result) result {
	t.Helper()
	if r.Errno != "" {
		t.Fatalf("failed: %v", r)
	}
	return r
}

func (a *actor) open(t testing.TB, path string, flags int) {
	t.Helper()
	must(t, a.do(t, call{Op: "open", Slot: 1, Path: raw(path), Flags: flags, Mode: 0o600}))
}

const rwc = unix.O_RDWR | unix.O_CREAT

// put replaces a file the way PHP does, through one open and lock.
func (a *actor) put(t testing.TB, path, data string) {
	t.Helper()
	a.open(t, path, rwc)
	must(t, a.do(t, call{Op: "flock", Slot: 1, Flags: unix.LOCK_EX}))
	must(t, a.do(t, call{Op: "ftruncate", Slot: 1}))
	must(t, a.do(t, call{Op: "pwrite", Slot: 1, Data: raw(data)}))
	must(t, a.do(t, call{Op: "close", Slot: 1}))
}

// Rule 1: who has opened and locked sees the size of what is there now, not one that the kernel remembers.
func TestAttributesAreCurrent(t *testing.T) {
	a, b, _ := hosts(t, "")
	onA, onB := startActor(t, 0), startActor(t, 0)
	for i := range 200 {
		data := strings.Repeat("x", i%50+1)
		onA.put(t, a.Path("sess_attr"), data)
		onB.open(t, b.Path("sess_attr"), rwc)
		must(t, onB.do(t, call{Op: "fstat", Slot: 1}))
		must(t, onB.do(t, call{Op: "flock", Slot: 1, Flags: unix.LOCK_EX}))
		st := must(t, onB.do(t, call{Op: "fstat", Slot: 1})).Stat
		got := must(t, onB.do(t, call{Op: "pread", Slot: 1, Size: 1000}))
		must(t, onB.do(t, call{Op: "close", Slot: 1}))
		if st.Size != int64(len(data)) || string(got.Data) != data {
			t.Fatalf("round %d: size %d, %d bytes read, %d written", i, st.Size, len(got.Data), len(data))
		}
	}
}

// Rule 1 where nothing is read in between: a read would make the kernel ask for the attributes anew. This is PHP's empty
// session, which it stats and does not read: with a remembered size of 0 it would start anew over what is there now.
func TestAttributesOfUnreadFiles(t *testing.T) {
	a, b, _ := hosts(t, "")
	onA, onB := startActor(t, 0), startActor(t, 0)
	var size int64
	sizeOnB := func(when string, round int) {
		t.Helper()
		if st := must(t, onB.do(t, call{Op: "fstat", Slot: 1})).Stat; st.Size != size {
			t.Fatalf("round %d, %s: size %d, %d bytes are there", round, when, st.Size, size)
		}
	}
	lock := call{Op: "flock", Slot: 1, Flags: unix.LOCK_EX}
	for i := range 30 {
		size++
		onA.put(t, a.Path("sess_unread"), strings.Repeat("x", int(size)))
		onB.open(t, b.Path("sess_unread"), rwc)
		sizeOnB("opened", i)
		must(t, onB.do(t, lock))
		sizeOnB("locked", i)
		must(t, onB.do(t, call{Op: "close", Slot: 1}))
		// And one that waits for the lock, opened before the change.
		onA.open(t, a.Path("sess_unread"), rwc)
		must(t, onA.do(t, lock))
		onB.open(t, b.Path("sess_unread"), rwc)
		sizeOnB("opened while it is locked", i)
		locked := make(chan error, 1)
		go func() { _, err := onB.try(lock); locked <- err }()
		size++
		must(t, onA.do(t, call{Op: "pwrite", Slot: 1, Data: raw(strings.Repeat("y", int(size)))}))
		must(t, onA.do(t, call{Op: "close", Slot: 1}))
		if err := <-locked; err != nil {
			t.Fatal(err)
		}
		sizeOnB("after the wait", i)
		must(t, onB.do(t, call{Op: "close", Slot: 1}))
	}
}

// Rule 6: of many processes on two hosts that make one file with O_EXCL, one succeeds.
func TestExclusiveCreate(t *testing.T) {
	a, b, _ := hosts(t, "")
	var actors []*actor
	for range 6 {
		actors = append(actors, startActor(t, 0))
	}
	for round := range 20 {
		name := fmt.Sprint("sess_excl", round)
		for i, x := range actors { // the first touch of a name may say EEXIST
			x.do(t, call{Op: "stat", Path: raw([]string{a.Dir, b.Dir}[i%2] + "/" + name)})
		}
		var all sync.WaitGroup
		won := make([]bool, len(actors))
		for i, x := range actors {
			all.Add(1)
			go func() {
				defer all.Done()
				for range 3 {
					r, err := x.try(call{Op: "open", Slot: 1, Path: raw([]string{a.Dir, b.Dir}[i%2] + "/" + name), Flags: rwc | unix.O_EXCL, Mode: 0o600})
					if err != nil {
						t.Error(err)
					}
					if r.Errno == "" {
						won[i] = true
						return
					}
				}
			}()
		}
		all.Wait()
		n := 0
		for _, w := range won {
			if w {
				n++
			}
		}
		if n != 1 {
			t.Fatalf("round %d: %d processes made the file", round, n)
		}
	}
}

// Rule 7: node ids are the same after a restart, and a name unlinked while it is open leads to another node.
func TestNodeIDs(t *testing.T) {
	a, _, _ := hosts(t, "")
	ino := func() string { return testkit.MustRun(t, "stat", "-c", "%i", a.Path("sess_ino")) }
	x := startActor(t, 0)
	x.put(t, a.Path("sess_ino"), "one")
	before := ino()
	x.open(t, a.Path("sess_ino"), unix.O_RDWR)
	must(t, x.do(t, call{Op: "unlink", Path: raw(a.Path("sess_ino"))}))
	y := startActor(t, 0)
	y.put(t, a.Path("sess_ino"), "two")
	if ino() == before {
		t.Error("the new file has the unlinked one's node id")
	}
	if got := must(t, x.do(t, call{Op: "pread", Slot: 1, Size: 10})); got.Data != "one" {
		t.Errorf("the unlinked file says %q", got.Data)
	}
	must(t, x.do(t, call{Op: "close", Slot: 1}))
	a.Stop()
	a.Start()
	if after := ino(); after != before {
		t.Errorf("node id %s before the restart, %s after it", before, after)
	}
}

// Rule 10: an unfinished change is seen by the process that makes it, and by no other.
func TestUnfinishedChangesAreOnesOwn(t *testing.T) {
	a, b, _ := hosts(t, "")
	x, y := startActor(t, 0), startActor(t, 0)
	x.put(t, a.Path("sess_own"), "published")
	x.open(t, a.Path("sess_own"), unix.O_RDWR)
	must(t, x.do(t, call{Op: "ftruncate", Slot: 1, Size: 3}))
	if r := must(t, x.do(t, call{Op: "fstat", Slot: 1})); r.Stat.Size != 3 {
		t.Errorf("its own process sees size %d", r.Stat.Size)
	}
	for _, h := range []*testkit.Host{a, b} {
		if r := must(t, y.do(t, call{Op: "stat", Path: raw(h.Path("sess_own"))})); r.Stat.Size != 9 {
			t.Errorf("another process sees size %d", r.Stat.Size)
		}
		y.open(t, h.Path("sess_own"), unix.O_RDONLY)
		if r := must(t, y.do(t, call{Op: "pread", Slot: 1, Size: 100})); r.Data != "published" {
			t.Errorf("another process reads %q", r.Data)
		}
	}
}

// Rule 13: UNLINK and an exclusive CREATE, which the kernel sends under the directory's lock, fail at once while the
// breaker is open; names that are not sessions of this mount never wait.
func TestOutageIsNotServedUnderTheDirectorysLock(t *testing.T) {
	a, _, m := hosts(t, "")
	x := startActor(t, 0)
	x.put(t, a.Path("sess_known"), "x")
	m.Stop()
	if r := x.do(t, call{Op: "open", Slot: 1, Path: raw(a.Path("sess_known")), Flags: rwc}); r.Errno != "EIO" {
		t.Fatalf("open in an outage: %v", r)
	}
	begun := time.Now()
	for i := range 50 {
		if r := x.do(t, call{Op: "unlink", Path: raw(a.Path("sess_known"))}); r.Errno != "EIO" {
			t.Fatalf("unlink in an outage: %v", r)
		}
		r := x.do(t, call{Op: "open", Slot: 1, Path: raw(a.Path(fmt.Sprint("sess_new", i))), Flags: rwc | unix.O_EXCL})
		if r.Errno != "EIO" && r.Errno != "EEXIST" {
			t.Fatalf("O_EXCL in an outage: %v", r)
		}
	}
	if d := time.Since(begun); d > 10*time.Second { // not a timeout of 2 s each
		t.Errorf("100 calls took %v", d)
	}
}

// Rule 14: the lease that OPEN takes for an opener that never asks for the lock is given back.
func TestUnaskedLeaseIsGivenBack(t *testing.T) {
	a, b, _ := hosts(t, "")
	x, y := startActor(t, 0), startActor(t, 0)
	x.put(t, a.Path("sess_unasked"), "x")
	x.open(t, a.Path("sess_unasked"), unix.O_RDWR)
	y.open(t, b.Path("sess_unasked"), unix.O_RDWR)
	testkit.Until(t, time.Second, "the other host gets the lock", func() bool {
		return y.do(t, call{Op: "flock", Slot: 1, Flags: unix.LOCK_EX | unix.LOCK_NB}).Errno == ""
	})
	// A reader takes none.
	must(t, y.do(t, call{Op: "close", Slot: 1}))
	x.open(t, a.Path("sess_unasked"), unix.O_RDONLY)
	y.open(t, b.Path("sess_unasked"), unix.O_RDWR)
	must(t, y.do(t, call{Op: "flock", Slot: 1, Flags: unix.LOCK_EX}))
}

// Rule 6: the lock that an opener of a missing session won ends with the mark, where no CREATE follows.
func TestLeaseOfAMissingSessionIsGivenBack(t *testing.T) {
	a, b, _ := hosts(t, "")
	x, y := startActor(t, 0), startActor(t, 0)
	if r := x.do(t, call{Op: "open", Slot: 1, Path: raw(a.Path("sess_none")), Flags: unix.O_RDWR}); r.Errno != "ENOENT" {
		t.Fatalf("open of a missing session: %v", r)
	}
	y.open(t, b.Path("sess_none"), rwc)
	testkit.Until(t, 5*time.Second, "the other host gets the lock", func() bool { // the lease itself would last 10 s
		return y.do(t, call{Op: "flock", Slot: 1, Flags: unix.LOCK_EX | unix.LOCK_NB}).Errno == ""
	})
}

// What a session directory does not have: a clear errno.
func TestWhatIsNotThere(t *testing.T) {
	a, _, _ := hosts(t, "")
	x := startActor(t, 0)
	x.put(t, a.Path("sess_x"), "x")
	for _, tc := range []struct {
		c     call
		errno string
	}{
		{call{Op: "mkdir", Path: raw(a.Path("sess_dir")), Mode: 0o700}, "EPERM"},
		{call{Op: "symlink", Path: raw(a.Path("sess_link")), Data: "/etc/passwd"}, "EPERM"},
		{call{Op: "link", Path: raw(a.Path("sess_x")), Data: raw(a.Path("sess_y"))}, "EPERM"},
		{call{Op: "rename", Path: raw(a.Path("sess_x")), Data: raw(a.Path("sess_y"))}, "EPERM"},
		{call{Op: "mknod", Path: raw(a.Path("sess_fifo"))}, "EPERM"},
		{call{Op: "setxattr", Path: raw(a.Path("sess_x"))}, "ENOTSUP"},
		{call{Op: "open", Slot: 2, Path: raw(a.Path("other")), Flags: rwc, Mode: 0o600}, "EPERM"},
		{call{Op: "stat", Path: raw(a.Path("other"))}, "ENOENT"},
		{call{Op: "open", Slot: 2, Path: raw(a.Path("sess_x/y")), Flags: rwc}, "ENOTDIR"},
		{call{Op: "open", Slot: 2, Path: raw(a.Dir), Flags: unix.O_RDWR}, "EISDIR"},
		{call{Op: "unlink", Path: raw(a.Path("sess_none"))}, "ENOENT"},
		{call{Op: "stat", Path: raw(a.Path("sess_" + strings.Repeat("x", 251)))}, "ENAMETOOLONG"},
		{call{Op: "chmod", Path: raw(a.Dir), Mode: 0o777}, "EPERM"},
	} {
		for _, name := range []raw{tc.c.Path, tc.c.Data} { // the first touch of a name may say EEXIST
			x.do(t, call{Op: "stat", Path: name})
		}
		if r := x.do(t, tc.c); r.Errno != tc.errno {
			t.Errorf("%s %s: %v, not %s", tc.c.Op, tc.c.Path, r, tc.errno)
		}
	}
	if r := must(t, x.do(t, call{Op: "statfs", Path: raw(a.Dir)})); r.N < 1 {
		t.Errorf("%d MiB free", r.N)
	}
}

// Hostile names reach no server unhashed and break nothing: PHP's strict mode stats whatever stands in the cookie.
func TestHostileNames(t *testing.T) {
	a, b, m := hosts(t, "")
	x, y := startActor(t, 0), startActor(t, 0)
	var names []string
	for c := 1; c < 256; c++ {
		if c != '/' {
			names = append(names, "sess_"+string([]byte{byte(c)})+"x")
		}
	}
	names = append(names, "sess_"+strings.Repeat("l", 250), "sess_a\r\nflush_all\r\n", "sess_ 0 0 1\r\nx\r\nflush_all", "sess_..", "sess_%2e%2e", "sess_")
	x.put(t, a.Path("sess_canary"), "alive")
	for i, n := range names {
		data := fmt.Sprint("value ", i)
		if r := x.do(t, call{Op: "stat", Path: raw(a.Path(n))}); r.Errno != "ENOENT" {
			t.Fatalf("stat of %q: %v", n, r)
		}
		x.put(t, a.Path(n), data)
		y.open(t, b.Path(n), unix.O_RDONLY)
		if r := must(t, y.do(t, call{Op: "pread", Slot: 1, Size: 100})); string(r.Data) != data {
			t.Fatalf("%q reads %q, not %q", n, r.Data, data)
		}
	}
	y.do(t, call{Op: "stat", Path: raw(a.Path("sess_../x"))})
	for _, n := range append(names, "sess_canary") {
		must(t, y.do(t, call{Op: "stat", Path: raw(b.Path(n))}))
	}
	// The keys on the server are short, printable, and those of odd names are hashes.
	for _, line := range strings.Split(m.Dump(), "\n") {
		key, ok := strings.CutPrefix(strings.Fields(line + " x")[0], "key=")
		if !ok || key == "%25sessfs.hosts" || key == "sessfs%3A%21lists" { // where hosts tell of themselves, and of their servers
			continue
		}
		if len(key) > 250 || !strings.HasPrefix(key, "sessfs%3A") && !strings.HasPrefix(key, "sessfs:") {
			t.Errorf("a key on the server: %s", key)
		}
		plain, err := url.PathUnescape(key)
		if err != nil {
			t.Error(err)
		}
		for _, c := range plain {
			if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-,.:#@", c) {
				t.Errorf("a key on the server: %s", key)
			}
		}
	}
	listed := make(map[string]bool)
	for _, name := range ls(t, a) {
		listed[name] = true
	}
	for _, n := range names {
		if !listed[n] {
			t.Errorf("%q is not listed", n)
		}
	}
}

// ls is the names that `sessfs ls` prints.
func ls(t *testing.T, h *testkit.Host) (names []string) {
	t.Helper()
	out, code := h.Sessfs("ls", "--json")
	if code != 0 {
		t.Fatalf("ls: exit %d: %s", code, out)
	}
	for line := range strings.Lines(out) {
		var e struct {
			ID      string
			IDBytes []byte `json:"id_bytes"` // where the name is not UTF-8
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if e.IDBytes != nil {
			e.ID = string(e.IDBytes)
		}
		names = append(names, e.ID)
	}
	return names
}

// depth serves the virtual directories of save_path = "N;/path".
func TestDepth(t *testing.T) {
	a, b, _ := hosts(t, "depth: 2\n")
	set := []string{`session.save_path="2;` + a.Dir + `"`}
	if out := testkit.PHPWith(t, a, set, `session_id('abcdef'); session_start(); $_SESSION['v'] = 'deep'; echo 'ok';`); out != "ok" {
		t.Fatal(out)
	}
	if out := testkit.PHPWith(t, b, []string{`session.save_path="2;` + b.Dir + `"`}, `session_id('abcdef'); session_start(); echo $_SESSION['v'];`); out != "deep" {
		t.Errorf("the other host: %s", out)
	}
	if out := testkit.MustRun(t, "find", b.Dir, "-type", "f"); strings.TrimSpace(out) != b.Path("a/b/sess_abcdef") {
		t.Errorf("find: %s", out)
	}
	// PHP collects no garbage below N > 0; find does.
	testkit.MustRun(t, "find", a.Dir, "-depth", "-mindepth", "1", "-name", "sess_*", "-type", "f", "-delete")
	if out := testkit.MustRun(t, "find", b.Dir, "-type", "f"); out != "" {
		t.Errorf("after find -delete: %s", out)
	}
	x := startActor(t, 0)
	if r := x.do(t, call{Op: "stat", Path: raw(a.Path("b/a/sess_abcdef"))}); r.Errno != "ENOENT" {
		t.Errorf("in a wrong directory: %v", r)
	}
}
