package posix

import (
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"sessfs/internal/testkit"
)

// Rule 12: in a sticky directory only the owner of a file, or root, unlinks it; without the bit whoever may write there.
func TestStickyBit(t *testing.T) {
	for mode, others := range map[string]string{"1733": "EPERM", "0733": ""} {
		t.Run(mode, func(t *testing.T) {
			a, _, _ := hosts(t, "directory: {mode: \""+mode+"\"}\n")
			owner, other, root := startActor(t, 2001), startActor(t, 2002), startActor(t, 0)
			for _, who := range []struct {
				*actor
				errno string
			}{{other, others}, {owner, ""}, {root, ""}} {
				must(t, owner.do(t, call{Op: "open", Slot: 1, Path: raw(a.Path("sess_sticky")), Flags: unix.O_RDWR | unix.O_CREAT, Mode: 0o666}))
				must(t, owner.do(t, call{Op: "pwrite", Slot: 1, Data: "x"}))
				must(t, owner.do(t, call{Op: "close", Slot: 1}))
				if r := who.do(t, call{Op: "unlink", Path: raw(a.Path("sess_sticky"))}); r.Errno != who.errno {
					t.Errorf("unlink by user %d: %v, not %q", who.uid, r, who.errno)
				}
			}
		})
	}
}

// Rule 12: supplementary groups count, and so does x on the directory.
func TestGroupsAndDirectory(t *testing.T) {
	a, _, _ := hosts(t, "directory: {group: \"2500\", mode: \"0770\"}\n")
	x := startActor(t, 0)
	x.put(t, a.Path("sess_group"), "x")
	must(t, x.do(t, call{Op: "chown", Path: raw(a.Path("sess_group")), Off: 0, Size: 2600}))
	must(t, x.do(t, call{Op: "chmod", Path: raw(a.Path("sess_group")), Mode: 0o640}))
	for _, tc := range []struct {
		groups []uint32
		err    string
	}{{nil, "Permission denied"}, {[]uint32{2500}, "Permission denied"}, {[]uint32{2600}, "Permission denied"}, {[]uint32{2500, 2600}, ""}} {
		cmd := exec.Command("cat", a.Path("sess_group"))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 2001, Gid: 2001, Groups: tc.groups}}
		out, err := cmd.CombinedOutput()
		if (err == nil) != (tc.err == "") || !strings.Contains(string(out), tc.err) {
			t.Errorf("groups %v: %v: %s", tc.groups, err, out)
		}
	}
}

// Who may not enter the directory is told nothing of a file that others have open either.
func TestStatOfAnOpenFile(t *testing.T) {
	h := testkit.Mount(t, testkit.Conf{More: "directory: {mode: \"0700\"}\n"})
	root, other := startActor(t, 0), startActor(t, 2001)
	root.open(t, h.Path("sess_held"), rwc)
	must(t, root.do(t, call{Op: "pwrite", Slot: 1, Data: "x"}))
	for _, op := range []string{"stat", "access", "utimens", "unlink"} {
		if r := other.do(t, call{Op: op, Path: raw(h.Path("sess_held"))}); r.Errno != "EACCES" {
			t.Errorf("%s by somebody who may not enter: %v", op, r)
		}
	}
	must(t, root.do(t, call{Op: "stat", Path: raw(h.Path("sess_held"))}))
}

// Rule 12: what the directory's own mode allows to others, compared with tmpfs: w to make and unlink, x to come to a
// file, r to list.
func TestDirectoryModes(t *testing.T) {
	protectedRegular(t)
	m := testkit.StartMemcached(t)
	root, user := startActor(t, 0), startActor(t, 2001)
	for _, mode := range []uint32{0o1733, 0o755, 0o711, 0o744, 0o733, 0o700, 0o777} {
		h := testkit.Mount(t, testkit.Conf{Servers: []*testkit.Memcached{m}, More: fmt.Sprintf("directory: {mode: \"%04o\"}\n", mode)})
		local := tmpfs(t)
		must(t, root.do(t, call{Op: "chmod", Path: raw(local), Mode: mode}))
		for _, dir := range []string{h.Dir, local} { // one that is the user's own
			root.put(t, dir+"/sess_own", "x")
			must(t, root.do(t, call{Op: "chown", Path: raw(dir + "/sess_own"), Off: 2001, Size: 2001}))
		}
		for _, tc := range []struct {
			what string
			c    call
			name string
		}{
			{"stat", call{Op: "stat"}, "/sess_own"},
			{"access", call{Op: "access", Mode: 4}, "/sess_own"},
			{"read", call{Op: "open", Slot: 1, Flags: unix.O_RDONLY}, "/sess_own"},
			{"open for both", call{Op: "open", Slot: 1, Flags: rwc, Mode: 0o600}, "/sess_own"},
			{"chmod", call{Op: "chmod", Mode: 0o640}, "/sess_own"},
			{"touch", call{Op: "utimens"}, "/sess_own"},
			{"truncate", call{Op: "truncate", Size: 1}, "/sess_own"},
			{"stat of a missing one", call{Op: "stat"}, "/sess_new"},
			{"make", call{Op: "open", Slot: 1, Flags: rwc, Mode: 0o600}, "/sess_new"},
			{"stat of another missing one", call{Op: "stat"}, "/sess_excl"},
			{"make with O_EXCL", call{Op: "open", Slot: 1, Flags: rwc | unix.O_EXCL, Mode: 0o600}, "/sess_excl"},
			{"unlink", call{Op: "unlink"}, "/sess_own"},
			{"list", call{Op: "readdir"}, ""},
		} {
			var got [2]string
			for i, dir := range []string{h.Dir, local} {
				tc.c.Path = raw(dir + tc.name)
				got[i] = user.do(t, tc.c).Errno
			}
			if got[0] != got[1] {
				t.Errorf("mode %04o, %s: %q, on tmpfs %q", mode, tc.what, got[0], got[1])
			}
		}
		user.do(t, call{Op: "close", Slot: 1})
		for _, n := range []string{"/sess_own", "/sess_new", "/sess_excl"} {
			root.do(t, call{Op: "unlink", Path: raw(h.Dir + n)})
		}
	}
}
