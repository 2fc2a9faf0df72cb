package scale

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"sessfs/internal/testkit"
)

// hold starts a process that holds the locks of so many sessions, until release is called.
func hold(t *testing.T, h *testkit.Host, name string, sessions int) (release func()) {
	t.Helper()
	in, end, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	cmd := locker(t, h, verbHold, name, sessions, 1)
	cmd.Stdin = in
	p := testkit.StartCmd(t, cmd)
	t.Cleanup(func() { end.Close() })
	testkit.Until(t, 2*time.Minute, "all locks are held", func() bool { return strings.Contains(p.Output(), done(verbHold, sessions)) })
	return func() {
		end.Close()
		p.Wait(t, time.Minute)
	}
}

// waiting returns when so many locks are waited for on h, by p.
func waiting(t *testing.T, h *testkit.Host, p *testkit.Process, locks int) {
	t.Helper()
	var f figures
	for end := time.Now().Add(3 * time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if f = status(t, h); f.Locking.Waiting == locks {
			return
		}
		if strings.Contains(p.Output(), "ing: ") { // a lock or an open failed
			break
		}
	}
	t.Fatalf("%d locks of %d are waited for; %d files are open; the waiters printed %.2000s", f.Locking.Waiting, locks, f.Files.OpenFiles, p.Output())
}

const otherRequests = `for ($i = 0; $i < 50; $i++) {
	session_id("other" . $i); session_start() or exit("no session"); $_SESSION['n'] = $i; session_write_close() or exit("not written"); } echo 'ok';`

// testWaiters lets so many locks be waited for at once on host a, which holder has. Every wait costs the daemon a
// goroutine; it must cost neither thread nor descriptor, and other sessions go on meanwhile.
func testWaiters(t *testing.T, a, holder *testkit.Host, sessions, times int) {
	if out := testkit.PHP(t, a, otherRequests); out != "ok" { // connections are made, buffers are there
		t.Fatal(out)
	}
	before := usageOf(t, a)
	t.Log("before:", before)
	release := hold(t, holder, "waited", sessions)
	waiters := testkit.StartCmd(t, locker(t, a, verbWait, "waited", sessions, times))
	waiting(t, a, waiters, sessions*times)
	first, start := status(t, a), time.Now()
	used := resources(t, a)
	if out := testkit.PHP(t, a, otherRequests); out != "ok" {
		t.Errorf("while %d locks are waited for, a process printed %s", sessions*times, out)
	}
	t.Logf("the requests of other sessions took %v", time.Since(start))
	time.Sleep(time.Duration(size(100, 5000)) * time.Millisecond)
	now := usageOf(t, a)
	t.Log("all wait:", now)
	sec := time.Since(start).Seconds()
	t.Logf("per second of waiting: %.0f round trips, %.0f ms CPU", float64(status(t, a).RoundTrips-first.RoundTrips)/sec, float64((now.cpu-used.cpu).Milliseconds())/sec)
	if now.threads > maxThreads {
		t.Errorf("%d threads while %d locks are waited for", now.threads, sessions*times)
	}
	if now.descriptors > before.descriptors+spare {
		t.Errorf("%d descriptors while %d locks are waited for, %d before", now.descriptors, sessions*times, before.descriptors)
	}
	start = time.Now()
	release()
	if err := waiters.Wait(t, 5*time.Minute); err != nil || !strings.Contains(waiters.Output(), done(verbWait, sessions*times)) {
		t.Errorf("the waiters: %v: %.1000s", err, waiters.Output())
	}
	t.Logf("all had their locks %v after the release", time.Since(start))
	idle(t, a, before)
	after := usageOf(t, a)
	t.Log("after:", after)
	if after.threads > maxThreads {
		t.Errorf("%d threads after %d waits", after.threads, sessions*times)
	}
	testkit.Until(t, time.Minute, "the memory of the waits is given back", func() bool { return resources(t, a).rss < maxRSS })
	t.Log("then: ", resources(t, a))
}

// Many processes of one host wait for a few sessions.
func TestWaitersOfOneHost(t *testing.T) {
	h := testkit.Mount(t, conf(testkit.StartMemcached(t)))
	testWaiters(t, h, h, size(25, 100), 20)
}

// One process each waits for sessions that another host holds.
func TestWaitersForAnotherHost(t *testing.T) {
	c := conf(testkit.StartMemcached(t))
	testWaiters(t, testkit.Mount(t, c), testkit.Mount(t, c), size(200, 2000), 1)
}

// Waiters that are killed go at once.
func TestKilledWaiters(t *testing.T) {
	h := testkit.Mount(t, conf(testkit.StartMemcached(t)))
	sessions, times := 25, size(20, 80)
	if out := testkit.PHP(t, h, otherRequests); out != "ok" {
		t.Fatal(out)
	}
	before := usageOf(t, h)
	release := hold(t, h, "killed", sessions)
	waiters := testkit.StartCmd(t, locker(t, h, verbWait, "killed", sessions, times))
	waiting(t, h, waiters, sessions*times)
	waiters.Signal(syscall.SIGKILL)
	waiters.Wait(t, time.Minute)
	waiting(t, h, waiters, 0)
	if f := status(t, h); f.Locking.Leases != sessions {
		t.Errorf("%d locks are held after others were killed, want %d", f.Locking.Leases, sessions)
	}
	release()
	idle(t, h, before)
}
