package scale

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sessfs/internal/testkit"
)

// cycles makes a session of 1 kB of each number from $argv[1] to $argv[2], or adds to it: start, change, close.
const cycles = `$pad = str_repeat('x', 1000);
	for ($i = (int)$argv[1]; $i < (int)$argv[2]; $i++) {
		session_id(md5("s$i")); session_start() or exit("no session");
		$_SESSION['pad'] = $pad; $_SESSION['n'] = ($_SESSION['n'] ?? 0) + 1;
		if ($_SESSION['n'] != $argv[3]) exit("session $i was changed $_SESSION[n] times, not $argv[3]");
		session_write_close() or exit("not written"); } echo 'ok';`

// touch has PHP processes go through the sessions of a range, each of them for the nth time.
func touch(t *testing.T, h *testkit.Host, from, to, nth int) {
	t.Helper()
	const processes = 4
	var procs []*testkit.Process
	for i := range processes {
		procs = append(procs, testkit.StartPHP(t, h, nil, cycles, fmt.Sprint(from+(to-from)*i/processes), fmt.Sprint(from+(to-from)*(i+1)/processes), fmt.Sprint(nth)))
	}
	for _, p := range procs {
		p.Wait(t, 20*time.Minute)
		if p.Output() != "ok" {
			t.Fatalf("a process printed %.1000s", p.Output())
		}
	}
}

// The daemon stays small whatever number of sessions went through it. The kernel's inodes go under memory pressure, and
// what the daemon knows of them with them; the sessions stay.
func TestManySessions(t *testing.T) {
	h := testkit.Mount(t, conf(testkit.StartMemcached(t, "-m", "1024")))
	sessions := size(20000, 100000)
	before := usageOf(t, h)
	start := time.Now()
	touch(t, h, 0, sessions, 1)
	t.Logf("%d new sessions in %v", sessions, time.Since(start))
	idle(t, h, before)
	after := usageOf(t, h)
	t.Log("before:", before)
	t.Log("after: ", after)
	if after.peak > maxRSS {
		t.Errorf("%d bytes were resident after %d sessions, want %d at most", after.peak, sessions, maxRSS)
	}
	if after.threads > maxThreads {
		t.Errorf("%d threads", after.threads)
	}
	nth := 2
	if full { // more than the daemon knows the names of: it has the kernel look the first ones up again
		touch(t, h, sessions, 3*sessions/2, 1)
		touch(t, h, 0, sessions/10, nth)
		nth++
		now := usageOf(t, h)
		t.Logf("%d sessions: %v", 3*sessions/2, now)
		if now.peak > maxRSS {
			t.Errorf("%d bytes were resident after %d sessions, want %d at most", now.peak, 3*sessions/2, maxRSS)
		}
	}
	known := status(t, h).Files.Nodes
	testkit.Until(t, time.Minute, "the kernel forgets its inodes, and the daemon with it", func() bool {
		if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0); err != nil {
			t.Fatal(err)
		}
		return status(t, h).Files.Nodes < sessions/100
	})
	t.Logf("%d nodes, %d after drop_caches", known, status(t, h).Files.Nodes)
	start = time.Now()
	touch(t, h, 0, sessions/10, nth)
	t.Logf("%d sessions again in %v", sessions/10, time.Since(start))
	if f := status(t, h); f.Files.Errors != 0 {
		t.Errorf("%d operations failed", f.Files.Errors)
	}
	idle(t, h, before)
}

// Many PHP processes begin at the same moment.
func TestManyProcesses(t *testing.T) {
	h := testkit.Mount(t, conf(testkit.StartMemcached(t)))
	before := usageOf(t, h)
	gate := filepath.Join(testkit.Dir(t), "gate") // opening it waits for the one who opens it for writing
	if err := unix.Mkfifo(gate, 0o666); err != nil {
		t.Fatal(err)
	}
	const code = `echo "ready\n"; fclose(fopen($argv[2], 'r')); $longest = 0;
		for ($i = 0; $i < (int)$argv[3]; $i++) {
			$t = hrtime(true);
			session_id("p$argv[1]"); session_start() or exit("no session");
			$_SESSION['n'] = ($_SESSION['n'] ?? 0) + 1; session_write_close() or exit("not written");
			$longest = max($longest, hrtime(true) - $t); }
		session_start(); echo "count $_SESSION[n] longest $longest";`
	processes, rounds := size(60, 500), 20
	var procs []*testkit.Process
	for i := range processes {
		procs = append(procs, testkit.StartPHP(t, h, nil, code, fmt.Sprint(i), gate, fmt.Sprint(rounds)))
	}
	for _, p := range procs {
		testkit.Until(t, 3*time.Minute, "all processes are there", func() bool { return strings.Contains(p.Output(), "ready") })
	}
	start := time.Now()
	open, err := os.OpenFile(gate, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond) // for those that have said so and not opened it yet
	open.Close()
	threads, longest := 0, time.Duration(0)
	for _, p := range procs {
		for running := true; running; {
			select {
			case <-p.Done():
				running = false
			case <-time.After(20 * time.Millisecond):
				threads = max(threads, resources(t, h).threads)
			}
		}
		var n int
		var ns int64
		if _, err := fmt.Sscanf(p.Output(), "ready\ncount %d longest %d", &n, &ns); err != nil || n != rounds {
			t.Fatalf("a process printed %.1000s", p.Output())
		}
		longest = max(longest, time.Duration(ns))
	}
	t.Logf("%d processes with %d requests each: %v, the longest request %v", processes, rounds, time.Since(start), longest)
	t.Log("before:", before)
	t.Log("after: ", usageOf(t, h))
	if threads > maxThreads {
		t.Errorf("%d threads for %d processes", threads, processes)
	}
	idle(t, h, before)
}

// What large sessions need is given back.
func TestLargeSessions(t *testing.T) {
	h := testkit.Mount(t, conf(testkit.StartMemcached(t, "-m", "2048")))
	const code = `for ($i = 0; $i < (int)$argv[2]; $i++) {
			session_id("large$argv[1]x$i"); session_start() or exit("no session"); $_SESSION['v'] = str_repeat(chr(65 + $i % 26), 5000000); session_write_close() or exit("not written"); }
		for ($i = 0; $i < (int)$argv[2]; $i++) {
			session_id("large$argv[1]x$i"); session_start() or exit("no session"); strlen($_SESSION['v']) == 5000000 or exit("cut"); session_abort(); }
		echo 'ok';`
	before := usageOf(t, h)
	var procs []*testkit.Process
	for i := range 8 {
		procs = append(procs, testkit.StartPHP(t, h, nil, code, fmt.Sprint(i), fmt.Sprint(size(4, 13))))
	}
	for _, p := range procs {
		p.Wait(t, 5*time.Minute)
		if p.Output() != "ok" {
			t.Fatalf("a process printed %.1000s", p.Output())
		}
	}
	start := time.Now()
	idle(t, h, before)
	t.Log("before:", before)
	t.Log("after: ", usageOf(t, h))
	testkit.Until(t, time.Minute, "the memory of large sessions is given back", func() bool { return resources(t, h).rss < maxRSS })
	t.Logf("%v later: %v", time.Since(start).Round(time.Second), usageOf(t, h))
}
