// Package locks tests exclusion between processes and hosts, with real PHP, and what becomes of locks when somebody
// dies.
package locks

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sessfs/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

func pair(t *testing.T, more string) (a, b *testkit.Host) {
	t.Helper()
	c := testkit.Conf{Servers: []*testkit.Memcached{testkit.StartMemcached(t)}, More: more}
	return testkit.Mount(t, c), testkit.Mount(t, c)
}

const (
	start     = `session_id($argv[1]); session_start() or exit("no session"); `
	increment = `for ($i = 0; $i < (int)$argv[2]; $i++) {
		session_id($argv[1]); session_start() or exit("no session");
		$_SESSION['n'] = ($_SESSION['n'] ?? 0) + 1; usleep(1000); session_write_close() or exit("not written"); }
		echo 'ok';`
	count = start + `echo $_SESSION['n'] ?? 0;`
	// hold takes the lock, says so with the time, and keeps it.
	hold = start + `echo "held\n"; sleep(60);`
	// next waits for the lock and prints when it got it.
	next = `echo "waiting\n"; ` + start + `printf("%.6f\n", microtime(true));`
)

const workers, rounds = 4, 100

// P1, P2: 2 mounts × 4 processes × 100 increments of one session.
func TestIncrementsCLI(t *testing.T) { testkit.EachKeep(t, testIncrementsCLI) }

func testIncrementsCLI(t *testing.T, k testkit.Keep) {
	a, b := pair(t, k.Lock(""))
	var procs []*testkit.Process
	for _, h := range []*testkit.Host{a, b} {
		for range workers {
			procs = append(procs, testkit.StartPHP(t, h, nil, increment, "counter", fmt.Sprint(rounds)))
		}
	}
	for _, p := range procs {
		p.Wait(t, 2*time.Minute)
		if p.Output() != "ok" {
			t.Errorf("a process printed %s", p.Output())
		}
	}
	if got := testkit.PHP(t, a, count, "counter"); got != "800" {
		t.Errorf("%s increments of 800", got)
	}
}

func TestIncrementsFPM(t *testing.T) { testkit.EachKeep(t, testIncrementsFPM) }

func testIncrementsFPM(t *testing.T, k testkit.Keep) {
	a, b := pair(t, k.Lock(""))
	root := testkit.Dir(t)
	testkit.WriteFile(t, filepath.Join(root, "inc.php"), `<?php session_start() or exit('no session'); $_SESSION['n'] = ($_SESSION['n'] ?? 0) + 1; usleep(1000); session_write_close() or exit('not written'); echo 'ok';`)
	testkit.WriteFile(t, filepath.Join(root, "count.php"), `<?php session_start() or exit('no session'); echo $_SESSION['n'];`)
	var all sync.WaitGroup
	webs := []*testkit.Web{testkit.StartWeb(t, a, root, workers), testkit.StartWeb(t, b, root, workers)}
	for _, w := range webs {
		for range workers {
			all.Add(1)
			go func() {
				defer all.Done()
				for range rounds {
					if out, err := get(w.URL+"/inc.php", "fpmcounter"); err != nil || out != "ok" {
						t.Errorf("%v: %s", err, out)
						return
					}
				}
			}()
		}
	}
	all.Wait()
	if got := webs[0].Get(t, "/count.php", "fpmcounter"); got != "800" {
		t.Errorf("%s increments of 800", got)
	}
}

func get(url, session string) (string, error) {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	req.AddCookie(&http.Cookie{Name: "PHPSESSID", Value: session})
	res, err := (&http.Client{Timeout: time.Minute}).Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return string(b), err
}

// holder starts a process that holds the lock of id.
func holder(t *testing.T, h *testkit.Host, id string) *testkit.Process {
	t.Helper()
	p := testkit.StartPHP(t, h, nil, hold, id)
	testkit.Until(t, 10*time.Second, "the lock is held", func() bool { return strings.Contains(p.Output(), "held") })
	return p
}

// waiter starts a process that waits for the lock of id.
func waiter(t *testing.T, h *testkit.Host, id string) *testkit.Process {
	t.Helper()
	p := testkit.StartPHP(t, h, nil, next, id)
	testkit.Until(t, 10*time.Second, "it waits for the lock", func() bool {
		return strings.Contains(p.Output(), "waiting") && inFlock(p.PID())
	})
	return p
}

// inFlock tells whether a process sleeps in flock(2).
func inFlock(pid int) bool {
	return strings.HasPrefix(readFile(fmt.Sprintf("/proc/%d/syscall", pid)), fmt.Sprintf("%d ", syscall.SYS_FLOCK))
}

func gotLock(t *testing.T, p *testkit.Process, bound time.Duration) time.Time {
	t.Helper()
	p.Wait(t, bound)
	var sec float64
	if _, err := fmt.Sscanf(p.Output(), "waiting\n%f", &sec); err != nil {
		t.Fatalf("the waiter printed %s", p.Output())
	}
	return time.UnixMicro(int64(sec * 1e6))
}

// P5: the lock of a killed process is free at once, on this host and on the other. The bounds are 50 and 100 ms; the
// best of a few tries counts, since a loaded machine may take longer to start anything.
func TestHolderKilled(t *testing.T) { testkit.EachKeep(t, testHolderKilled) }

func testHolderKilled(t *testing.T, k testkit.Keep) {
	a, b := pair(t, k.Lock(""))
	for name, tc := range map[string]struct {
		host  *testkit.Host
		bound time.Duration
	}{"same host": {a, 50 * time.Millisecond}, "other host": {b, 100 * time.Millisecond}} {
		t.Run(name, func(t *testing.T) {
			best := time.Hour
			for try := range 5 {
				id := fmt.Sprintf("k%d%c", try, name[0])
				h := holder(t, a, id)
				w := waiter(t, tc.host, id)
				killed := time.Now()
				h.Signal(syscall.SIGKILL)
				best = min(best, gotLock(t, w, 10*time.Second).Sub(killed))
			}
			if best > tc.bound {
				t.Errorf("the next one started %v after the kill, the bound is %v", best, tc.bound)
			}
			t.Logf("the next one started after %v", best)
		})
	}
}

// A waiter that is killed ends at once, and its place in the queue with it.
func TestWaiterKilled(t *testing.T) { testkit.EachKeep(t, testWaiterKilled) }

func testWaiterKilled(t *testing.T, k testkit.Keep) {
	a, b := pair(t, k.Lock(""))
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		for i, host := range []*testkit.Host{a, b} {
			id := fmt.Sprintf("w%d%d", sig, i)
			h := holder(t, a, id)
			w := waiter(t, host, id)
			w.Signal(sig)
			select {
			case <-w.Done():
			case <-time.After(5 * time.Second):
				t.Errorf("a waiter is still there 5 s after signal %v", sig)
			}
			h.Signal(syscall.SIGKILL)
			if out := testkit.PHP(t, host, start+`echo 'next';`, id); out != "next" {
				t.Errorf("after the waiter was killed: %s", out)
			}
		}
	}
}

// A whole daemon killed: its sessions are free after one lease.
func TestDaemonKilled(t *testing.T) { testkit.EachKeep(t, testDaemonKilled) }

func testDaemonKilled(t *testing.T, k testkit.Keep) {
	a, b := pair(t, k.Lock("lease: 4s"))
	if out := testkit.PHP(t, a, start+`$_SESSION['n'] = 7; echo 'ok';`, "dk"); out != "ok" {
		t.Fatal(out)
	}
	h := holder(t, a, "dk")
	w := waiter(t, b, "dk")
	killed := time.Now()
	a.Crash()
	after := gotLock(t, w, 30*time.Second).Sub(killed)
	if after > 7*time.Second { // memcached counts whole seconds; the next lease would end after 8 s
		t.Errorf("free %v after the daemon's death, the lease is 4 s", after)
	}
	h.Signal(syscall.SIGKILL)
	if out := testkit.PHP(t, b, count, "dk"); out != "7" {
		t.Errorf("the session now says %s", out)
	}
	a.Start()
	if out := testkit.PHP(t, a, count, "dk"); out != "7" {
		t.Errorf("the session on the new daemon says %s", out)
	}
}

// A lock is held for longer than its lease: it is renewed.
func TestLongRequestKeepsItsLock(t *testing.T) { testkit.EachKeep(t, testLongRequestKeepsItsLock) }

func testLongRequestKeepsItsLock(t *testing.T, k testkit.Keep) {
	a, b := pair(t, k.Lock("lease: 3s"))
	h := testkit.StartPHP(t, a, nil, start+`echo "held\n"; sleep(7); $_SESSION['n'] = 1; session_write_close(); echo 'stored';`, "long")
	testkit.Until(t, 10*time.Second, "the lock is held", func() bool { return strings.Contains(h.Output(), "held") })
	w := testkit.StartPHP(t, b, nil, start+`echo $_SESSION['n'] ?? 'too early';`, "long")
	w.Wait(t, 30*time.Second)
	h.Wait(t, 30*time.Second)
	if w.Output() != "1" || !strings.Contains(h.Output(), "stored") {
		t.Errorf("the waiter saw %s, the holder said %s", w.Output(), h.Output())
	}
}

// `sessfs unlock` takes the lock from its holder, whose write then fails loudly.
func TestUnlock(t *testing.T) { testkit.EachKeep(t, testUnlock) }

func testUnlock(t *testing.T, k testkit.Keep) {
	a, b := pair(t, k.Lock(""))
	robbed := testkit.NewGate(t)
	h := testkit.StartPHP(t, a, nil, start+`echo "held\n"; `+robbed.PHP()+`$_SESSION['n'] = 'stolen'; session_write_close(); echo 'end';`, "ul")
	testkit.Until(t, 10*time.Second, "the lock is held", func() bool { return strings.Contains(h.Output(), "held") })
	out, code := b.Sessfs("unlock", "sess_ul")
	if code != 0 || !strings.Contains(out, fmt.Sprintf("held by pid %d", h.PID())) {
		t.Fatalf("unlock: exit %d: %s", code, out)
	}
	if got := testkit.PHP(t, b, start+`$_SESSION['n'] = 'mine'; echo 'ok';`, "ul"); got != "ok" {
		t.Fatal(got)
	}
	robbed.Open()
	h.Wait(t, 30*time.Second)
	if !strings.Contains(h.Output(), "Failed to write session data") {
		t.Errorf("the old holder was told nothing: %s", h.Output())
	}
	if got := testkit.PHP(t, a, count, "ul"); got != "mine" {
		t.Errorf("the session says %s", got)
	}
}

// lock.wait bounds the wait, and the session then fails instead of running without its lock.
func TestLockWait(t *testing.T) { testkit.EachKeep(t, testLockWait) }

func testLockWait(t *testing.T, k testkit.Keep) {
	a, b := pair(t, k.Lock("wait: 500ms"))
	for i, host := range []*testkit.Host{a, b} {
		id := fmt.Sprintf("lw%d", i)
		if out := testkit.PHP(t, a, start+`$_SESSION['n'] = 1; echo 'ok';`, id); out != "ok" {
			t.Fatal(out)
		}
		h := holder(t, a, id)
		out := testkit.PHP(t, host, start+`$_SESSION['n'] = 'unlocked'; echo 'ran';`, id)
		if !strings.Contains(out, "no session") {
			t.Errorf("a session without its lock: %s", out)
		}
		h.Signal(syscall.SIGKILL)
		if got := testkit.PHP(t, host, count, id); got != "1" {
			t.Errorf("the session says %s", got)
		}
		// PHP does not read an empty file, and ignores what flock says: the failure must show at fstat.
		id = fmt.Sprintf("new%d", i)
		h = holder(t, a, id)
		if out := testkit.PHP(t, host, start+`$_SESSION['n'] = 'unlocked'; echo 'ran';`, id); !strings.Contains(out, "no session") {
			t.Errorf("a new session without its lock: %s", out)
		}
		h.Signal(syscall.SIGKILL)
	}
}

// flock's other kinds, between hosts: LOCK_NB, LOCK_UN, LOCK_SH.
func TestFlockKinds(t *testing.T) { testkit.EachKeep(t, testFlockKinds) }

func testFlockKinds(t *testing.T, k testkit.Keep) {
	a, b := pair(t, k.Lock(""))
	file := "sess_kinds"
	testkit.PHP(t, a, `file_put_contents($argv[1], 'x');`, a.Path(file))
	enough := testkit.NewGate(t)
	h := testkit.StartPHP(t, a, nil, `$f = fopen($argv[1], 'r+'); flock($f, LOCK_EX); echo "ex\n"; `+enough.PHP()+`flock($f, LOCK_UN); echo "un\n"; sleep(60);`, a.Path(file))
	testkit.Until(t, 10*time.Second, "the lock is held", func() bool { return strings.Contains(h.Output(), "ex") })
	const try = `$f = fopen($argv[1], 'r+'); $t = microtime(true); echo flock($f, (int)$argv[2], $would) ? 'got' : "no $would", microtime(true) - $t < 1 ? '' : ' late';`
	for _, kind := range []string{"6", "5"} { // LOCK_EX and LOCK_SH with LOCK_NB, as PHP numbers them
		for _, host := range []*testkit.Host{a, b} {
			if out := testkit.PHP(t, host, try, host.Path(file), kind); out != "no 1" {
				t.Errorf("flock %s while it is held: %s", kind, out)
			}
		}
	}
	enough.Open()
	for _, host := range []*testkit.Host{b, a} {
		if out := testkit.PHP(t, host, try, host.Path(file), "2"); !strings.HasPrefix(out, "got") {
			t.Errorf("after LOCK_UN: %s", out)
		}
	}
	// Two readers of one host share the lock, and keep a writer out.
	const read = `$f = fopen($argv[1], 'r'); flock($f, LOCK_SH); echo "sh\n"; sleep(60);`
	reader := testkit.StartPHP(t, a, nil, read, a.Path(file))
	testkit.Until(t, 10*time.Second, "the reader has the lock", func() bool { return strings.Contains(reader.Output(), "sh") })
	if out := testkit.PHP(t, a, try, a.Path(file), "5"); out != "got" {
		t.Errorf("a second reader: %s", out)
	}
	for _, host := range []*testkit.Host{a, b} {
		if out := testkit.PHP(t, host, try, host.Path(file), "6"); out != "no 1" {
			t.Errorf("a writer beside a reader: %s", out)
		}
	}
}
