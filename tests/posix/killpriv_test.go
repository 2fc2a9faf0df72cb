package posix

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"sessfs/internal/testkit"
)

// A change of the content by anybody but root takes the setuid and setgid bits away, whichever way it is made.
func TestChangesTakeSetuidAway(t *testing.T) {
	protectedRegular(t)
	h := testkit.Mount(t, testkit.Conf{Servers: []*testkit.Memcached{testkit.StartMemcached(t)}})
	local := tmpfs(t)
	changes := map[string][]call{
		"write":               {{Op: "pwrite", Slot: 1, Data: "xy"}},
		"ftruncate":           {{Op: "ftruncate", Slot: 1, Size: 5}, {Op: "fsync", Slot: 1}},
		"truncate":            {{Op: "truncate", Size: 5}},
		"O_TRUNC":             {{Op: "open", Slot: 2, Flags: unix.O_WRONLY | unix.O_TRUNC}, {Op: "fsync", Slot: 2}},
		"O_TRUNC for reading": {{Op: "open", Slot: 2, Flags: unix.O_TRUNC}, {Op: "fsync", Slot: 2}},
		"O_CREAT and O_TRUNC": {{Op: "open", Slot: 2, Flags: rwc | unix.O_TRUNC, Mode: 0o600}, {Op: "pwrite", Slot: 2, Data: "z"}},
		"O_TRUNC and close":   {{Op: "open", Slot: 2, Flags: unix.O_TRUNC}, {Op: "close", Slot: 2}},
	}
	for _, uid := range []uint32{0, 2001} {
		x := startActor(t, uid)
		for how, change := range changes {
			for _, mode := range []uint32{0o4755, 0o2755, 0o2644, 0o4644} {
				after := func(dir string) uint32 {
					path := raw(fmt.Sprint(dir, "/sess_", uid))
					x.do(t, call{Op: "unlink", Path: path})
					must(t, x.do(t, call{Op: "open", Slot: 1, Path: path, Flags: rwc, Mode: 0o666}))
					must(t, x.do(t, call{Op: "pwrite", Slot: 1, Data: "x"}))
					must(t, x.do(t, call{Op: "chmod", Path: path, Mode: mode}))
					for _, c := range change {
						c.Path = path
						must(t, x.do(t, c))
					}
					return must(t, x.do(t, call{Op: "stat", Path: path})).Stat.Mode & 0o7777
				}
				if mount, tmp := after(h.Dir), after(local); mount != tmp {
					t.Errorf("%s by user %d: mode %04o became %04o, on tmpfs %04o", how, uid, mode, mount, tmp)
				}
			}
		}
	}
}
