package fusefs

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"sessfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMatches(t *testing.T) {
	for _, tc := range []struct {
		pattern, name string
		want          bool
	}{
		{"sess_*", "sess_abc", true}, {"sess_*", "sess_", true}, {"sess_*", "ses_abc", false}, {"*", "x", true}, {"plain", "plain", true},
		{"plain", "plainer", false}, {"a*b*c", "aXbYc", true}, {"a*b*c", "acb", false}, {"a*a", "a", false}, {"a*a", "aa", true},
		{"a[b]?", "a[b]?", true}, {"a[b]?", "ab?", false}, {"sess_*", "sess_\xff\n", true},
	} {
		if got := Matches(tc.pattern, tc.name); got != tc.want {
			t.Errorf("%q with pattern %q: %v", tc.name, tc.pattern, got)
		}
	}
}

// The path of a virtual directory is its node id, and no file's id is a directory's.
func TestDirectoryNodes(t *testing.T) {
	s := newNames([]string{"sess_*"}, 7, []byte("key"))
	rapid.Check(t, func(t *rapid.T) {
		levels := rapid.StringMatching(`[a-zA-Z0-9,-]{0,7}`).Draw(t, "levels")
		if got, ok := s.dirPath(dirNode(levels)); !ok || got != levels {
			t.Fatalf("%q became %q", levels, got)
		}
		ino := s.inode(sessfs.ID(rapid.String().Draw(t, "name")), rapid.Uint32().Draw(t, "n"))
		if _, ok := s.dirPath(ino); ok || ino == 0 {
			t.Fatalf("the node id %d of a file", ino)
		}
	})
}

// Rule 7: the same key gives the same ids in every process, another key others.
func TestNodeIDsAreKeyed(t *testing.T) {
	a, b, again := newNames(nil, 0, []byte("a")), newNames(nil, 0, []byte("b")), newNames(nil, 0, []byte("a"))
	if a.inode("sess_x", 0) != again.inode("sess_x", 0) || a.inode("sess_x", 0) == a.inode("sess_x", 1) || a.inode("sess_x", 0) == b.inode("sess_x", 0) {
		t.Error("node ids do not depend on key, name and life alone")
	}
}

// A listing gives back its names, wherever one begins to read.
func TestListing(t *testing.T) {
	var l listing
	if name, _ := l.at(0); name != "" {
		t.Errorf("an empty directory has %q", name)
	}
	const many = 20000
	for i := range many {
		l.add(fmt.Sprintf("sess_%0*d", 6+i%200, i))
	}
	if len(l.blocks) < 3 {
		t.Fatalf("%d blocks are too few for the test", len(l.blocks))
	}
	pos := 0
	for i := range many {
		name, next := l.at(pos)
		if want := fmt.Sprintf("sess_%0*d", 6+i%200, i); name != want || next <= pos {
			t.Fatalf("name %d is %q, %q is expected; the place after %d is %d", i, name, want, pos, next)
		}
		pos = next
	}
	if name, next := l.at(pos); name != "" || next != pos {
		t.Errorf("behind the last name stands %q", name)
	}
}

// Rule 6: marks belong to a name and a process, end with its CREATE or after a second, and are bounded.
func TestMarks(t *testing.T) {
	var m marks
	m.init()
	key := markKey{"sess_x", 7}
	has := func(key markKey) bool {
		missing, again, _ := m.ask(key)
		return missing || again
	}
	m.set(key, &closedClaim{}, &sessfs.Session{})
	if !has(key) || has(markKey{"sess_x", 8}) || has(markKey{"sess_y", 7}) {
		t.Error("a mark belongs to one name and process")
	}
	if _, _, ok := m.take(key); !ok || has(key) {
		t.Error("a mark ends with its CREATE")
	}
	m.set(key, nil, nil)
	m.byKey[key].told -= int64(markPrompt) + 1
	if missing, again, _ := m.ask(key); missing || !again || has(key) {
		t.Error("what was missing some time ago must be asked for again, once")
	}
	m.set(key, nil, nil)
	m.expire(sessfs.Boottime() + int64(markLife) + 1)
	if has(key) || len(m.fresh)+len(m.late) != 0 {
		t.Error("a mark ends after its time")
	}
	// The mark of an OPEN waits for the LOOKUP that is sure to come, its claim does not.
	open := &closedClaim{}
	m.set(key, open, nil)
	now := sessfs.Boottime()
	if ended := m.expire(now + int64(markLife) + 1); len(ended) != 1 || ended[0] != open || m.byKey[key] == nil {
		t.Errorf("after its time an OPEN's mark gives back %v", ended)
	}
	if !has(key) || m.byKey[key].until < now+int64(markLife)+1 || !has(key) || m.byKey[key].until > sessfs.Boottime()+int64(markLife) {
		t.Error("the LOOKUPs that came late are not told, or the mark stays for long after them")
	}
	if claim, _, ok := m.take(key); !ok || claim != nil {
		t.Error("CREATE does not find the mark")
	}
	m.set(key, open, nil)
	m.byKey[key].told -= int64(markPatience) / 2
	if missing, _, _ := m.ask(key); !missing {
		t.Error("the first LOOKUP after an OPEN, which may come late, is not told")
	}
	m.byKey[key].told -= int64(markPrompt) + 1
	if missing, again, ended := m.ask(key); missing || !again || len(ended) != 1 {
		t.Errorf("a second one some time later: missing %v, again %v, ended %v", missing, again, ended)
	}
	m.set(key, open, nil)
	if ended := m.expire(now + int64(markPatience) + int64(time.Second)); len(ended) != 1 || m.byKey[key] != nil || len(m.fresh)+len(m.late) != 0 {
		t.Error("an OPEN's mark stays")
	}
	for i := range 3 * maxMarks {
		m.set(markKey{sessfs.ID(fmt.Sprint(i)), 1}, nil, nil)
	}
	if len(m.byKey) > maxMarks || len(m.fresh) > 2*maxMarks {
		t.Errorf("%d marks are kept", len(m.byKey))
	}
}

// closedClaim is a claim that nothing is asked of.
type closedClaim struct{ sessfs.Claim }

func TestAllowed(t *testing.T) {
	caller := func(uid, gid uint32) *fuse.Caller {
		return &fuse.Caller{Owner: fuse.Owner{Uid: uid, Gid: gid}, Pid: uint32(os.Getpid())}
	}
	for _, tc := range []struct {
		c    *fuse.Caller
		mode uint32
		want uint32
		ok   bool
	}{
		{caller(0, 0), 0, wantRead | wantWrite, true}, // root
		{caller(0, 0), 0o600, wantExec, false},
		{caller(10, 1), 0o600, wantRead | wantWrite, true}, // owner
		{caller(10, 1), 0o066, wantRead, false},            // the owner's bits alone count for the owner
		{caller(11, 20), 0o060, wantRead, true},            // group
		{caller(11, 20), 0o606, wantRead, false},
		{caller(11, 21), 0o606, wantRead, true}, // others
		{caller(11, 21), 0o660, wantRead, false},
		{&fuse.Caller{Owner: fuse.Owner{Uid: 11, Gid: 21}}, 0o604, wantRead, false}, // pid 0: its groups are not known
	} {
		if got := allowed(tc.c, 10, 20, tc.mode, tc.want); got != tc.ok {
			t.Errorf("uid %d gid %d, mode %04o, want %o: %v", tc.c.Uid, tc.c.Gid, tc.mode, tc.want, got)
		}
	}
}

// A snapshot of a session is never written to.
func TestSpliceLeavesSnapshotsAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		old := rapid.SliceOf(rapid.Byte()).Draw(t, "old")
		data := rapid.SliceOf(rapid.Byte()).Draw(t, "data")
		off := rapid.IntRange(0, 40).Draw(t, "off")
		shared := append(make([]byte, 0, len(old)+100), old...)
		got := splice(shared, false, off, data)
		if string(shared[:len(old)]) != string(old) || string(shared[len(old):cap(shared)]) != string(make([]byte, cap(shared)-len(old))) {
			t.Fatal("the snapshot was changed")
		}
		want := make([]byte, max(off+len(data), len(old)))
		copy(want, old)
		copy(want[off:], data)
		if string(got) != string(want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
}

func TestThreadGroup(t *testing.T) {
	if got := threadGroup(uint32(os.Getpid())); got != uint32(os.Getpid()) {
		t.Errorf("the process of its first thread is %d", got)
	}
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		var tid uint32
		fmt.Sscan(task.Name(), &tid)
		if got := threadGroup(tid); got != uint32(os.Getpid()) && got != tid { // it may be gone by now
			t.Errorf("thread %d belongs to %d", tid, got)
		}
	}
}
