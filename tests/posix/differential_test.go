package posix

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"sessfs/internal/testkit"
)

// step is a call by one of the actors.
type step struct {
	Who  int
	Call call
	name string // the file, without the directory
}

func (s step) String() string {
	c := s.Call
	c.Path = raw(s.name)
	return fmt.Sprintf("user %d: %+v", users[s.Who], c)
}

// users are root and two ordinary users.
var users = []uint32{0, 2001, 2002}

const slots = 3 // open files of each actor

// world is a directory and a process for each user.
type world struct {
	dir    string
	actors []*actor
}

func newWorld(t testing.TB, dir string) *world {
	w := &world{dir: dir}
	for _, u := range users {
		w.actors = append(w.actors, startActor(t, u))
	}
	return w
}

func (w *world) run(s step) (result, error) {
	c := s.Call
	if s.name != "" {
		c.Path = raw(filepath.Join(w.dir, s.name))
	}
	if c.Op == "readdir" {
		c.Path = raw(w.dir)
	}
	return w.actors[s.Who].try(c)
}

var openModes = []uint32{0o600, 0o644, 0o660, 0o666, 0o400, 0o200, 0}

// genStep draws a call. What a process does not finish is seen by itself alone (docs/semantics.md), so that a truncation
// or a partial overwrite comes with the fsync that finishes it.
func genStep(names []string) *rapid.Generator[[]step] {
	return rapid.Custom(func(t *rapid.T) []step {
		who := rapid.IntRange(0, len(users)-1).Draw(t, "who")
		slot := rapid.IntRange(1, slots).Draw(t, "slot")
		name := rapid.SampledFrom(names).Draw(t, "name")
		on := func(c call) step { c.Slot = slot; return step{Who: who, Call: c} }
		at := func(c call) step { return step{Who: who, Call: c, name: name} }
		data := func() raw { return raw(rapid.StringMatching(`[a-z]{0,12}`).Draw(t, "data")) }
		size := func() int64 { return rapid.Int64Range(0, 16).Draw(t, "size") }
		sync := on(call{Op: "fsync"})
		switch rapid.SampledFrom([]string{"open", "open", "open", "close", "pread", "pwrite", "pwrite", "php", "ftruncate", "truncate",
			"fstat", "stat", "stat", "flock", "flock", "utimens", "chmod", "fchmod", "chown", "unlink", "access", "readdir"}).Draw(t, "op") {
		case "open":
			flags := rapid.SampledFrom([]int{unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR, unix.O_RDWR}).Draw(t, "access")
			for _, f := range []int{unix.O_CREAT, unix.O_CREAT, unix.O_EXCL, unix.O_TRUNC, unix.O_APPEND} {
				if rapid.IntRange(0, 3).Draw(t, "flag") == 0 {
					flags |= f
				}
			}
			if flags&unix.O_CREAT == 0 {
				flags &^= unix.O_EXCL
			}
			o := at(call{Op: "open", Flags: flags, Mode: rapid.SampledFrom(openModes).Draw(t, "mode")})
			o.Call.Slot = slot
			if flags&unix.O_TRUNC != 0 {
				return []step{o, sync}
			}
			return []step{o}
		case "close":
			return []step{on(call{Op: "close"})}
		case "pread":
			return []step{on(call{Op: "pread", Off: size(), Size: size()})}
		case "pwrite":
			return []step{on(call{Op: "pwrite", Off: size(), Data: data()}), sync}
		case "php": // the write order of PHP 8.2.36
			return []step{on(call{Op: "ftruncate"}), on(call{Op: "pwrite", Data: data()}), sync}
		case "ftruncate":
			return []step{on(call{Op: "ftruncate", Size: size()}), sync}
		case "truncate":
			return []step{at(call{Op: "truncate", Size: size()})}
		case "fstat":
			return []step{on(call{Op: "fstat"})}
		case "stat":
			return []step{at(call{Op: "stat"})}
		case "flock":
			return []step{on(call{Op: "flock", Flags: rapid.SampledFrom([]int{unix.LOCK_EX | unix.LOCK_NB, unix.LOCK_SH | unix.LOCK_NB, unix.LOCK_UN}).Draw(t, "lock")})}
		case "utimens":
			if rapid.Bool().Draw(t, "now") {
				return []step{at(call{Op: "utimens"})}
			}
			return []step{at(call{Op: "utimens", Times: []int64{rapid.Int64Range(0, 2e9).Draw(t, "atime") / 2, rapid.Int64Range(0, 2e9).Draw(t, "mtime") / 2}})}
		case "chmod":
			return []step{at(call{Op: "chmod", Mode: rapid.SampledFrom([]uint32{0o600, 0o640, 0o644, 0o666, 0o606, 0o060, 0o400, 0o4755, 0o2755, 0o2644}).Draw(t, "mode")})}
		case "fchmod":
			return []step{on(call{Op: "fchmod", Mode: rapid.SampledFrom([]uint32{0o600, 0o644, 0o666}).Draw(t, "mode")})}
		case "chown":
			return []step{at(call{Op: "chown", Off: int64(rapid.SampledFrom([]int{-1, 0, 2001, 2002}).Draw(t, "uid")), Size: int64(rapid.SampledFrom([]int{-1, 0, 2001, 2002}).Draw(t, "gid"))})}
		case "unlink":
			return []step{at(call{Op: "unlink"})}
		case "access":
			return []step{at(call{Op: "access", Mode: rapid.SampledFrom([]uint32{0, 2, 4, 6}).Draw(t, "mode")})}
		default:
			return []step{{Who: who, Call: call{Op: "readdir"}}}
		}
	})
}

// TestDifferential drives the same sequences on the mount and on a tmpfs directory of mode 1733.
func TestDifferential(t *testing.T) {
	protectedRegular(t)
	h := testkit.Mount(t, testkit.Conf{Servers: []*testkit.Memcached{testkit.StartMemcached(t)}})
	local := tmpfs(t)
	differential(t, newWorld(t, h.Dir), newWorld(t, local))
	if t.Failed() {
		t.Log(h.Log())
	}
}

func differential(t *testing.T, mount, local *world) {
	round := 0
	rapid.Check(t, func(t *rapid.T) {
		round++
		names := []string{fmt.Sprintf("sess_%da", round), fmt.Sprintf("sess_%db", round)}
		var history []step
		play := func(s step) {
			history = append(history, s)
			want, err := local.run(s)
			if err != nil {
				t.Fatal(err)
			}
			got, err := mount.run(s)
			// RELEASE follows a close: a lock and a last change may come a moment later.
			for end := time.Now().Add(time.Second); err == nil && !same(s, got, want) && repeatable(s) && time.Now().Before(end); {
				time.Sleep(5 * time.Millisecond)
				got, err = mount.run(s)
			}
			if err != nil {
				t.Fatal(err)
			}
			if !same(s, got, want) {
				for _, s := range history {
					t.Log(s)
				}
				t.Fatalf("found a difference: %v\n mount %v\n tmpfs %v", s, got, want)
			}
		}
		for _, steps := range rapid.SliceOfN(genStep(names), 1, 40).Draw(t, "steps") {
			for _, s := range steps {
				play(s)
			}
		}
		for who := range users {
			for slot := 1; slot <= slots; slot++ {
				play(step{Who: who, Call: call{Op: "close", Slot: slot}})
			}
		}
		for _, n := range names {
			play(step{Call: call{Op: "stat"}, name: n})
			for who := len(users) - 1; who >= 0; who-- { // root last: it is never refused
				play(step{Who: who, Call: call{Op: "unlink"}, name: n})
			}
		}
	})
}

// repeatable calls change nothing when they fail, or change nothing at all. O_EXCL is one of them: the first touch of a
// name may say EEXIST (docs/semantics.md).
func repeatable(s step) bool {
	switch s.Call.Op {
	case "open":
		return s.Call.Flags&unix.O_EXCL != 0
	case "stat", "fstat", "pread", "readdir", "flock", "access":
		return true
	}
	return false
}

// same compares what a program can rely on.
func same(s step, a, b result) bool {
	if a.Errno != b.Errno || a.N != b.N || a.Data != b.Data || (a.Stat == nil) != (b.Stat == nil) {
		return false
	}
	if a.Stat == nil {
		return true
	}
	x, y := *a.Stat, *b.Stat
	// Reading does not move a session's atime, and a link count of an unlinked open file is not kept.
	x.Atime, y.Atime = 0, 0
	x.Nlink, y.Nlink = 0, 0
	return x == y
}

// tmpfs mounts one with a directory of mode 1733.
func tmpfs(t *testing.T) string {
	t.Helper()
	dir := testkit.Dir(t)
	testkit.MustRun(t, "mount", "-t", "tmpfs", "-o", "mode=1733,nosuid,nodev,noexec", "tmpfs", dir)
	t.Cleanup(func() { testkit.MustRun(t, "umount", dir) })
	return dir
}

// protectedRegular turns fs.protected_regular off for the test: it makes open(O_CREAT) of another user's file in a
// sticky directory fail, on the mount as on tmpfs, but on the mount with the directory's owner as the kernel saw it last.
func protectedRegular(t *testing.T) {
	t.Helper()
	const file = "/proc/sys/fs/protected_regular"
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.WriteFile(file, old, 0) })
}
