package scale

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sessfs/internal/testkit"
)

const (
	verbFlood       = "flood"        // makes requests with made-up session ids, as PHP does
	verbFloodStrict = "flood-strict" // the same with session.use_strict_mode=1
	verbOthers      = "others"       // goes on with sessions that are there, and prints how long each request took

	othersPause = 5 * time.Millisecond // between two requests of other sessions

	maxFloodRSS = 128 << 20 // of keeper and daemon together, whatever number of cookies
)

// flood is the program of the first two. What PHP does of a request with an id that nobody knows, whose session stays empty, was
// read from strace: open, fstat, flock, fstat, utimensat by path, close; in strict mode stat, and then the same with an id of
// PHP's own.
func flood(dir string, requests int, strict bool) {
	id := make([]byte, 16)
	for i := range requests {
		rand.Read(id)
		path := dir + "/sess_" + hex.EncodeToString(id)
		if strict {
			var st unix.Stat_t
			if err := unix.Stat(path, &st); err != unix.ENOENT {
				fail("stat of a made-up session", err)
			}
			rand.Read(id)
			path = dir + "/sess_" + hex.EncodeToString(id)
		}
		fd := start(path)
		if err := unix.Utimes(path, []unix.Timeval{unix.NsecToTimeval(time.Now().UnixNano()), unix.NsecToTimeval(time.Now().UnixNano())}); err != nil {
			fail("utimensat", err)
		}
		unix.Close(fd)
		if i%1000 == 999 {
			fmt.Println(i + 1)
		}
	}
	os.Exit(0)
}

// start is session_start() up to where the session is read.
func start(path string) int {
	var st unix.Stat_t
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		fail("open", err)
	}
	if err := unix.Fstat(fd, &st); err != nil {
		fail("fstat", err)
	}
	for err = unix.EINTR; err == unix.EINTR; {
		err = unix.Flock(fd, unix.LOCK_EX)
	}
	if err != nil {
		fail("flock", err)
	}
	if err := unix.Fstat(fd, &st); err != nil {
		fail("fstat", err)
	}
	if st.Size > 0 {
		b := make([]byte, st.Size)
		if _, err := unix.Pread(fd, b, 0); err != nil {
			fail("pread", err)
		}
	}
	return fd
}

func fail(what string, err error) {
	fmt.Println(what, err)
	os.Exit(1)
}

// others changes a session every othersPause until its standard input ends, and then prints how long each request took: nobody
// is woken meanwhile to hear of it.
func others(dir string) {
	end := make(chan bool)
	go func() {
		bufio.NewReader(os.Stdin).ReadByte()
		close(end)
	}()
	data := []byte(strings.Repeat("x", 1000))
	var took []time.Duration
	for i := 0; ; i++ {
		begun := time.Now()
		fd := start(fmt.Sprint(dir, "/sess_other", i%50))
		if err := unix.Ftruncate(fd, 0); err != nil {
			fail("ftruncate", err)
		}
		if _, err := unix.Pwrite(fd, data, 0); err != nil {
			fail("pwrite", err)
		}
		unix.Close(fd)
		took = append(took, time.Since(begun))
		if i == 0 {
			fmt.Println("begun")
		}
		select {
		case <-end:
			for _, d := range took {
				fmt.Println("took", d.Nanoseconds())
			}
			os.Exit(0)
		case <-time.After(othersPause):
		}
	}
}

func helperCommand(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exec.Command(exe, append([]string{helperVerb}, args...)...)
}

// latencies runs others while f does, and returns the median of its requests and their number.
func latencies(t *testing.T, h *testkit.Host, f func()) (median time.Duration, n int) {
	t.Helper()
	in, end, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	cmd := helperCommand(t, verbOthers, h.Dir)
	cmd.Stdin = in
	p := testkit.StartCmd(t, cmd)
	testkit.Until(t, time.Minute, "other sessions are used", func() bool { return strings.Contains(p.Output(), "begun") })
	f()
	end.Close()
	if err := p.Wait(t, time.Minute); err != nil {
		t.Fatalf("the use of other sessions failed: %v: %.300s", err, p.Output())
	}
	var all []time.Duration
	for line := range strings.Lines(p.Output()) {
		if ns, err := strconv.ParseInt(strings.TrimSpace(strings.TrimPrefix(line, "took ")), 10, 64); err == nil {
			all = append(all, time.Duration(ns))
		}
	}
	slices.Sort(all)
	return all[len(all)/2], len(all)
}

// rssOf is what keeper and daemon have together, now and at most.
func rssOf(t *testing.T, h *testkit.Host) (now, peak int) {
	t.Helper()
	for _, pid := range []int{h.Process().PID(), h.Process().Process.PID()} {
		for _, m := range statusLine.FindAllStringSubmatch(read(t, fmt.Sprintf("/proc/%d/status", pid)), -1) {
			n, _ := strconv.Atoi(m[2])
			switch m[1] {
			case "VmRSS":
				now += n << 10
			case "VmHWM":
				peak += n << 10
			}
		}
	}
	return now, peak
}

// items are the sessions' on a server: locks of sessions that are in use may be there for a moment, and the mount's documents.
func items(m *testkit.Memcached) (list []string) {
	for line := range strings.Lines(m.Dump()) {
		key, _, _ := strings.Cut(strings.TrimPrefix(line, "key="), " ")
		if strings.Contains(key, "sess_") && !strings.Contains(key, "sess_other") {
			list = append(list, key)
		}
	}
	return list
}

// Made-up cookies, by the million: the daemon stays small, the servers get nothing, the kernel's inodes go under pressure,
// and nothing fails.
func TestMadeUpCookies(t *testing.T) {
	m := testkit.StartMemcached(t, "-m", "64")
	h := testkit.Mount(t, conf(m))
	if out := testkit.PHPWith(t, h, []string{"session.use_strict_mode=0"}, `for ($i = 0; $i < 200; $i++) { session_id(bin2hex(random_bytes(16))); session_start() or exit("no session"); session_write_close(); } echo 'ok';`); out != "ok" {
		t.Fatal(out)
	}
	if out := testkit.PHPWith(t, h, []string{"session.use_strict_mode=1"}, `for ($i = 0; $i < 200; $i++) { session_id(bin2hex(random_bytes(16))); session_start() or exit("no session"); session_write_close(); } echo 'ok';`); out != "ok" {
		t.Fatal(out)
	}
	if out := testkit.PHPWith(t, h, []string{"session.lazy_write=0"}, `for ($i = 0; $i < 200; $i++) { session_id(bin2hex(random_bytes(16))); session_start() or exit("no session"); session_write_close(); } echo 'ok';`); out != "ok" {
		t.Fatal(out)
	}
	requests := size(30_000, 5_000_000)
	alone, n := latencies(t, h, func() { time.Sleep(time.Duration(size(300, 10_000)) * time.Millisecond) })
	t.Logf("other sessions alone: a median of %v over %d requests", alone, n)
	begun := time.Now()
	during, n := latencies(t, h, func() {
		var all []*testkit.Process
		for _, verb := range []string{verbFlood, verbFloodStrict} {
			all = append(all, testkit.StartCmd(t, helperCommand(t, verb, h.Dir, strconv.Itoa(requests/2))))
		}
		for _, p := range all {
			if err := p.Wait(t, 2*time.Hour); err != nil {
				out := p.Output()
				t.Errorf("a request failed: %v: %s", err, out[max(0, len(out)-300):])
			}
		}
	})
	took := time.Since(begun)
	now, peak := rssOf(t, h)
	f := status(t, h)
	t.Logf("%d requests with made-up cookies in %v (%.0f a second): %.1f MiB resident, %.1f at most; %d names known", requests, took.Round(time.Second),
		float64(requests)/took.Seconds(), float64(now)/(1<<20), float64(peak)/(1<<20), f.Files.Nodes)
	t.Logf("other sessions meanwhile: a median of %v over %d requests, %.2f times as long", during, n, float64(during)/float64(alone))
	if peak > maxFloodRSS {
		t.Errorf("keeper and daemon had %d bytes, want %d at most", peak, maxFloodRSS)
	}
	if f.Files.Nodes > 131072 || f.Files.Errors != 0 {
		t.Errorf("%d names are known, %d operations failed", f.Files.Nodes, f.Files.Errors)
	}
	testkit.Until(t, time.Minute, "the servers have nothing of them", func() bool { return len(items(m)) == 0 })
	if stats := m.Command("stats"); !strings.Contains(stats, "STAT evictions 0\r\n") {
		t.Errorf("sessions were evicted:\n%s", stats)
	}
	if f := status(t, h); f.Files.OpenFiles != 0 || f.Locking.Claims != 0 || f.Locking.Leases != 0 {
		testkit.Until(t, time.Minute, "nothing is left", func() bool {
			f := status(t, h)
			return f.Files.OpenFiles == 0 && f.Locking.Claims == 0 && f.Locking.Leases == 0
		})
	}
	testkit.Until(t, time.Minute, "the kernel forgets its inodes, and the daemon with it", func() bool {
		if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0); err != nil {
			t.Fatal(err)
		}
		return status(t, h).Files.Nodes < 1000
	})
}
