package scale

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sessfs/internal/testkit"
)

const (
	verbOpen  = "open" // opens as many sessions as it may, up to a number, and keeps them until its standard input ends
	userLimit = 16384  // files that one user may have open
	uidEnv    = "SCALE_UID"
)

// asUser makes a helper's command that of another user. It changes by itself, since others may not enter the test's directory.
func asUser(cmd *exec.Cmd, uid int) *exec.Cmd {
	cmd.Env = append(os.Environ(), uidEnv+"="+strconv.Itoa(uid))
	return cmd
}

// becomeUser is the helper's side.
func becomeUser() {
	uid, err := strconv.Atoi(os.Getenv(uidEnv))
	if err != nil {
		return
	}
	for _, err := range []error{syscall.Setgroups(nil), syscall.Setgid(uid), syscall.Setuid(uid)} {
		if err != nil {
			fail("becoming another user", err)
		}
	}
}

// openMany is the program of verbOpen.
func openMany(path string, n int) {
	for i := range n {
		if _, err := unix.Open(fmt.Sprint(path, i), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600); err != nil {
			fmt.Printf("opened %d: %v\n", i, err)
			io.Copy(io.Discard, os.Stdin)
			os.Exit(0)
		}
	}
	fmt.Printf("opened %d\n", n)
	io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// withInput starts a helper that goes on until end is called.
func withInput(t *testing.T, cmd *exec.Cmd) (p *testkit.Process, end func()) {
	t.Helper()
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	cmd.Stdin = in
	p = testkit.StartCmd(t, cmd)
	t.Cleanup(func() { out.Close() })
	return p, func() { out.Close() }
}

// One user has thousands of locks, and waits for thousands: what another user does takes the same round trips, and about the
// same time.
func TestLocksOfOneUser(t *testing.T) {
	h := testkit.Mount(t, conf(testkit.StartMemcached(t)))
	perRequest := func(f func()) (trips float64, median time.Duration) {
		before := status(t, h)
		median, n := latencies(t, h, f)
		return float64(status(t, h).RoundTrips-before.RoundTrips) / float64(n), median
	}
	pause := func() { time.Sleep(time.Duration(size(500, 5000)) * time.Millisecond) }
	trips, median := perRequest(pause)
	held, sessions, times := size(500, 5000), size(50, 500), 4
	holder, release := withInput(t, asUser(locker(t, h, verbHold, "taken", held, 1), 2001))
	testkit.Until(t, 2*time.Minute, "all locks are held", func() bool { return strings.Contains(holder.Output(), done(verbHold, held)) })
	waiters := testkit.StartCmd(t, asUser(locker(t, h, verbWait, "taken", sessions, times), 2001))
	waiting(t, h, waiters, sessions*times)
	nowTrips, nowMedian := perRequest(pause)
	t.Logf("alone: %.2f round trips and %v; while another user has %d locks and waits for %d: %.2f and %v, %.2f times as long",
		trips, median, held, sessions*times, nowTrips, nowMedian, float64(nowMedian)/float64(median))
	if nowTrips > trips+0.5 {
		t.Errorf("a request waited for %.2f round trips, %.2f before", nowTrips, trips)
	}
	release()
	if err := waiters.Wait(t, time.Minute); err != nil {
		t.Errorf("the waiters: %v: %.300s", err, waiters.Output())
	}
}

// One user cannot open so many sessions that others have none.
func TestOpensOfOneUser(t *testing.T) {
	h := testkit.Mount(t, conf(testkit.StartMemcached(t, "-m", "64")))
	open := func(uid, n int) (*testkit.Process, func()) {
		p, end := withInput(t, asUser(helperCommand(t, verbOpen, h.Path(fmt.Sprint("sess_u", uid, "x")), strconv.Itoa(n)), uid))
		testkit.Until(t, 3*time.Minute, "files are open", func() bool { return strings.Contains(p.Output(), "opened ") })
		return p, end
	}
	greedy, end := open(2001, userLimit+1)
	if want := fmt.Sprintf("opened %d: too many open files in system\n", userLimit); greedy.Output() != want {
		t.Errorf("one user has %q, not %q", greedy.Output(), want)
	}
	again, endAgain := open(2001, 1)
	other, endOther := open(2002, 100)
	if again.Output() != "opened 0: too many open files in system\n" || other.Output() != "opened 100\n" {
		t.Errorf("then %q, another user %q", again.Output(), other.Output())
	}
	now, peak := rssOf(t, h)
	var f struct {
		Files struct {
			OpenFiles int `json:"open_files"`
			Refused   int `json:"opens_refused"`
		}
	}
	h.Status(&f)
	t.Logf("%d files are open: %.1f MiB resident, %.1f at most", f.Files.OpenFiles, float64(now)/(1<<20), float64(peak)/(1<<20))
	if f.Files.OpenFiles != userLimit+100 || f.Files.Refused != 2 {
		t.Errorf("%+v", f.Files)
	}
	if peak > maxFloodRSS {
		t.Errorf("keeper and daemon had %d bytes, want %d at most", peak, maxFloodRSS)
	}
	if n := strings.Count(h.Log(), "may not open more sessions"); n != 1 {
		t.Errorf("it was logged %d times", n)
	}
	// Another daemon counts on.
	h.Process().KillDaemon()
	testkit.Until(t, time.Minute, "another daemon serves", func() bool { return strings.Contains(h.Log(), "another daemon serves") })
	if more, endMore := open(2001, 1); more.Output() != "opened 0: too many open files in system\n" {
		t.Errorf("with another daemon: %q", more.Output())
	} else {
		endMore()
	}
	for _, f := range []func(){end, endAgain, endOther} {
		f()
	}
	greedy.Wait(t, time.Minute)
	testkit.Until(t, time.Minute, "the files are closed", func() bool { return status(t, h).Files.OpenFiles == 0 })
	if p, endLast := open(2001, 100); p.Output() != "opened 100\n" {
		t.Errorf("after that: %q", p.Output())
	} else {
		endLast()
	}
}
