package admin

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sessfs/internal/testkit"
)

// Debian's cleaner line and PHP's own GC, over 10,000 sessions each: exactly the expired go, and what is waited for is
// few round trips for each session (in time: docs/performance.md).
func TestCleaners(t *testing.T) {
	m := testkit.StartMemcached(t, "-m", "256")
	h := testkit.Mount(t, testkit.Conf{Servers: []*testkit.Memcached{m}, More: "session: {lifetime: 10d}\n"})
	const sessions, expired = 10000, 4000
	left := func() (old, fresh int) {
		for _, name := range strings.Fields(testkit.MustRun(t, "ls", "-U", h.Dir)) {
			if n, _ := strconv.Atoi(name[len(name)-6:]); n < expired {
				old++
			} else {
				fresh++
			}
		}
		return old, fresh
	}
	for name, clean := range map[string]func(){
		"gc": func() {
			out := testkit.PHPWith(t, h, []string{"session.gc_maxlifetime=3600"}, `session_id('collector'); session_start(); echo session_gc(); session_destroy();`)
			testkit.Want(t, out, fmt.Sprint(expired))
		},
		"cleaner": func() { // the line of Debian's sessionclean
			testkit.MustRun(t, "find", "-O3", h.Dir+"/", "-ignore_readdir_race", "-depth", "-mindepth", "1", "-name", "sess_*", "-type", "f", "-cmin", "+60", "-delete")
		},
	} {
		t.Run(name, func(t *testing.T) {
			fill(t, m, name, sessions, func(i int) time.Duration {
				if i < expired {
					return 2 * time.Hour
				}
				return 0
			})
			if old, fresh := left(); old != expired || fresh != sessions-expired {
				t.Fatalf("filled with %d and %d sessions", old, fresh)
			}
			begun, before := time.Now(), roundTrips(t, h)
			clean()
			t.Logf("it took %v", time.Since(begun)) // race detector included
			if old, fresh := left(); old != 0 || fresh != sessions-expired {
				t.Errorf("left are %d expired and %d fresh", old, fresh)
			}
			// One for each stat, two for each unlink that a read and a tombstone make, and the listings.
			if trips := roundTrips(t, h) - before; trips > sessions+3*expired+1000 {
				t.Errorf("%d round trips were waited for", trips)
			}
			testkit.MustRun(t, "find", h.Dir, "-mindepth", "1", "-name", "sess_*", "-delete")
		})
	}
}

func roundTrips(t *testing.T, h *testkit.Host) int {
	t.Helper()
	var f struct {
		RoundTrips int `json:"round_trips_waited"`
	}
	h.Status(&f)
	return f.RoundTrips
}

// ls as root lists all, as another user it is refused where the mode says so.
func TestListingIsRefused(t *testing.T) {
	servers := []*testkit.Memcached{testkit.StartMemcached(t)}
	for mode, allowed := range map[string]bool{"1733": false, "1777": true, "0770": false} {
		h := testkit.Mount(t, testkit.Conf{Servers: servers, More: fmt.Sprintf("directory: {mode: %q}\n", mode)})
		testkit.Want(t, testkit.PHP(t, h, write, "listed", "x"), "ok")
		testkit.Want(t, testkit.MustRun(t, "ls", h.Dir), "sess_listed")
		cmd := exec.Command("ls", h.Dir)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 2001, Gid: 2001}}
		out, err := cmd.CombinedOutput()
		if (err == nil) != allowed {
			t.Errorf("mode %s: another user's ls: %v: %s", mode, err, out)
		}
	}
}

// 300,000 sessions are listed in bounded memory.
func TestListingOfMany(t *testing.T) {
	m := testkit.StartMemcached(t, "-m", "1024")
	h := testkit.Mount(t, testkit.Conf{Servers: []*testkit.Memcached{m}, More: "session: {lifetime: 1d}\n"})
	const sessions = 300000
	testkit.Want(t, testkit.PHP(t, h, write, "template", "x"), "ok")
	fill(t, m, "many", sessions, func(int) time.Duration { return 0 })
	before := resident(t, h)
	out := testkit.MustRun(t, "sh", "-c", "ls -U "+h.Dir+" | wc -l")
	if n, _ := strconv.Atoi(strings.TrimSpace(out)); n != sessions+1 {
		t.Errorf("ls shows %s names of %d", strings.TrimSpace(out), sessions+1)
	}
	after := resident(t, h)
	t.Logf("resident: %d MiB before, %d MiB after", before>>20, after>>20)
	if grown := after - before; grown > 300<<20 { // under the race detector, which multiplies memory
		t.Errorf("the listing took %d MiB", grown>>20)
	}
}

func resident(t *testing.T, h *testkit.Host) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.Process().PID()))
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(strings.NewReader(string(b)))
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "VmHWM:"); ok {
			kb, _ := strconv.Atoi(strings.Fields(rest)[0])
			return kb << 10
		}
	}
	t.Fatal("no VmHWM")
	return 0
}
