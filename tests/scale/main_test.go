// Package scale tests that the daemon stays small: many sessions, large ones, many waiting locks, many PHP processes.
// `make test` runs it small, `make scale` in full size (SESSFS_SCALE=full). What takes time is logged and never judged;
// memory, threads, descriptors and goroutines are judged.
//
// The program is built without the race detector, under which memory and threads are others.
package scale

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"

	"sessfs/internal/testkit"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == helperVerb {
		helper(os.Args[2:])
	}
	testkit.NoRace = true
	testkit.Main(m)
}

const (
	maxThreads = 64
	maxRSS     = 64 << 20 // of the daemon, after 100,000 sessions of 1 kB
)

// maxListing is how much more the daemon may need while 50,000 or a million sessions are listed.
func maxListing() int { return size(64, 320) << 20 }

// conf has servers that may take their time: the machine is loaded, and a timeout would make the test one of failures.
func conf(servers ...*testkit.Memcached) testkit.Conf {
	return testkit.Conf{Servers: servers, Cache: "  timeout: 20s\n", More: "lock: {lease: 60s}\n"}
}

// full tells whether the sizes are those of `make scale`.
var full = os.Getenv("SESSFS_SCALE") == "full"

// size is small, or whole in `make scale`.
func size(small, whole int) int {
	if full {
		return whole
	}
	return small
}

// figures is what the tests look at of `sessfs status --json`.
type figures struct {
	Files struct {
		OpenFiles    int `json:"open_files"`
		OpenSessions int `json:"open_sessions"`
		Nodes        int
		Errors       int
	}
	Locking struct {
		Claims, Leases, Waiting int
		LongestWait             time.Duration `json:"longest_wait_ns"`
	}
	RoundTrips int `json:"round_trips_waited"`
	Goroutines int
}

func status(t *testing.T, h *testkit.Host) (f figures) {
	t.Helper()
	h.Status(&f)
	return f
}

// idle waits until nothing is open, held or waited for, and fails when goroutines or descriptors are left that were
// not there before.
func idle(t *testing.T, h *testkit.Host, before usage) {
	t.Helper()
	var f figures
	end := time.Now().Add(30 * time.Second)
	for time.Now().Before(end) {
		f = status(t, h)
		if f.Files.OpenFiles == 0 && f.Files.OpenSessions == 0 && f.Locking.Claims == 0 && f.Locking.Leases == 0 && f.Locking.Waiting == 0 &&
			f.Goroutines <= before.goroutines+idleWorkers+spare && usageOf(t, h).descriptors <= before.descriptors+spare {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	now := usageOf(t, h)
	t.Errorf("something is left when all is done: %+v; %d descriptors, %d before; %d goroutines, %d before", f, now.descriptors, before.descriptors, now.goroutines, before.goroutines)
}

const (
	spare       = 16 // connections and goroutines that come and go, of the admin socket for one
	idleWorkers = 64 // goroutines that fusefs keeps for the next requests
)

// usage is what a daemon has of the machine.
type usage struct {
	rss, peak                        int // bytes
	threads, descriptors, goroutines int
	cpu                              time.Duration
}

func (u usage) String() string {
	return fmt.Sprintf("%.1f MiB resident (peak %.1f), %d threads, %d descriptors, %d goroutines, %v CPU",
		float64(u.rss)/(1<<20), float64(u.peak)/(1<<20), u.threads, u.descriptors, u.goroutines, u.cpu)
}

var statusLine = regexp.MustCompile(`(?m)^(VmRSS|VmHWM|Threads):\s*(\d+)`)

// resources is usageOf without the goroutines, which the daemon itself must be asked for.
func resources(t *testing.T, h *testkit.Host) (u usage) {
	t.Helper()
	proc := fmt.Sprintf("/proc/%d/", h.Process().PID())
	for _, m := range statusLine.FindAllStringSubmatch(read(t, proc+"status"), -1) {
		n, _ := strconv.Atoi(m[2])
		switch m[1] {
		case "VmRSS":
			u.rss = n << 10
		case "VmHWM":
			u.peak = n << 10
		case "Threads":
			u.threads = n
		}
	}
	fds, err := os.ReadDir(proc + "fd")
	if err != nil {
		t.Fatal(err)
	}
	u.descriptors = len(fds)
	f := afterName.FindStringSubmatch(read(t, proc+"stat"))
	user, _ := strconv.Atoi(f[1])
	system, _ := strconv.Atoi(f[2])
	u.cpu = time.Duration(user+system) * 10 * time.Millisecond // USER_HZ
	return u
}

// afterName finds the times (fields 14 and 15 of /proc/PID/stat) behind the name, which may have any bytes.
var afterName = regexp.MustCompile(`.*\) (?:\S+ ){11}(\d+) (\d+) `)

func usageOf(t *testing.T, h *testkit.Host) usage {
	t.Helper()
	u := resources(t, h)
	u.goroutines = status(t, h).Goroutines
	return u
}

// newPeak makes the kernel note the highest memory anew.
func newPeak(t *testing.T, h *testkit.Host) {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", h.Process().PID()), []byte("5"), 0); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
