package posix

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
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
