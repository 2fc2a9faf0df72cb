package php

import (
	"fmt"
	"testing"

	"sessfs/internal/testkit"
)

// figures is the part of `sessfs status --json` that counts.
type figures struct {
	Files struct {
		Operations map[string]int
		Lookups    int `json:"lookups_waited"`
	}
	RoundTrips int `json:"round_trips_waited"`
}

func count(t *testing.T, h *testkit.Host) (f figures) {
	t.Helper()
	h.Status(&f)
	return f
}

const cycles = 200

// requests are ordinary ones: start, change, close, by one process.
const requests = `for ($i = 0; $i < (int)$argv[2]; $i++) {
	session_id($argv[1] . ($i % 10)); session_start() or exit("no session");
	$_SESSION['n'] = ($_SESSION['n'] ?? 0) + 1; session_write_close() or exit("not written"); } echo 'ok';`

// The cost of a warm request: the kernel asks seven times, and two round trips are waited for, one with lock.keep.
func TestCostOfAWarmRequest(t *testing.T) {
	for _, tc := range []struct {
		keep  testkit.Keep
		trips int
	}{{"0s", 2}, {"5s", 1}} {
		t.Run("keep="+string(tc.keep), func(t *testing.T) { costOfAWarmRequest(t, tc.keep, tc.trips) })
	}
}

func costOfAWarmRequest(t *testing.T, k testkit.Keep, each int) {
	a, b, _ := pair(t, k.Lock(""))
	for _, h := range []*testkit.Host{a, b} { // the sessions exist, and both kernels know their names
		testkit.Want(t, testkit.PHP(t, h, requests, "cost", "10"), "ok")
	}
	testkit.Want(t, testkit.PHP(t, a, requests, "cost", "10"), "ok") // the last to use them
	before := count(t, a)
	testkit.Want(t, testkit.PHP(t, a, requests, "cost", fmt.Sprint(cycles)), "ok")
	after := count(t, a)
	allowed := map[string]bool{"OPEN": true, "GETATTR": true, "SETLKW": true, "READ": true, "SETATTR": true, "WRITE": true, "RELEASE": true}
	for op, n := range after.Files.Operations {
		n -= before.Files.Operations[op]
		t.Logf("%-10s %.2f per request", op, float64(n)/cycles)
		if n > cycles && allowed[op] || n > 0 && !allowed[op] && op != "FORGET" && op != "BATCH_FORGET" && op != "INTERRUPT" {
			t.Errorf("%d %s in %d requests", n, op, cycles)
		}
	}
	trips := after.RoundTrips - before.RoundTrips
	t.Logf("%.2f round trips waited for per request", float64(trips)/cycles)
	// Looks for marks in the background are not counted, by two counters that are not read at one moment. A busy machine
	// may let a kept lease end before it is used again.
	const room = cycles / 20
	if trips < each*cycles-room || trips > each*cycles+(2-each)*room {
		t.Errorf("%d round trips were waited for in %d requests, %d are right for each", trips, cycles, each)
	}
	if n := after.Files.Lookups - before.Files.Lookups; n != 0 {
		t.Errorf("%d LOOKUPs waited for the network", n)
	}
}

// A request that changes nothing only touches the session: as many round trips as one that does.
func TestCostOfATouch(t *testing.T) {
	a, _, _ := pair(t, "")
	testkit.Want(t, testkit.PHP(t, a, write, "touched", "x"), "ok")
	before := count(t, a)
	testkit.Want(t, testkit.PHP(t, a, `for ($i = 0; $i < 100; $i++) { session_id("touched"); session_start(); session_write_close(); } echo 'ok';`), "ok")
	after := count(t, a)
	if trips := after.RoundTrips - before.RoundTrips; trips > 2*100 {
		t.Errorf("%d round trips were waited for in 100 requests", trips)
	}
	if n := after.Files.Operations["WRITE"] - before.Files.Operations["WRITE"]; n != 0 {
		t.Errorf("%d of 100 requests wrote the session", n)
	}
}

// New sessions wait for the network in OPEN and WRITE alone, never in LOOKUP or CREATE, which the kernel sends under
// the directory's lock.
func TestCostOfANewSession(t *testing.T) {
	a, _, _ := pair(t, "")
	before := count(t, a)
	testkit.Want(t, testkit.PHP(t, a, `for ($i = 0; $i < 100; $i++) { session_id("new$i"); session_start(); $_SESSION['v'] = $i; session_write_close(); } echo 'ok';`), "ok")
	after := count(t, a)
	if n := after.Files.Lookups - before.Files.Lookups; n != 0 {
		t.Errorf("%d LOOKUPs waited for the network", n)
	}
	if trips := after.RoundTrips - before.RoundTrips; trips > 2*100 {
		t.Errorf("%d round trips were waited for in 100 new sessions", trips)
	}
}

// large are requests with one session of a size, that count and check what the ones before have left.
const large = `$size = (int)$argv[2]; for ($i = 0; $i < (int)$argv[3]; $i++) {
	session_id($argv[1]); session_start() or exit("no session");
	$n = $_SESSION['n'] ?? 0; if ($n && $_SESSION['pad'] !== str_repeat(chr(97 + $n % 26), $size)) exit("what is read after $n is not what was stored");
	if ($n < (int)$argv[4]) exit("$n is old");
	$_SESSION = ['n' => $n + 1, 'pad' => str_repeat(chr(97 + ($n + 1) % 26), $size)]; session_write_close() or exit("not written"); } echo 'ok';`

// A large session that comes back to a host is not sent by the server again, and waits for no round trip more than others; one
// in parts for one more, in which they are stored.
func TestCostOfALargeSession(t *testing.T) {
	for size, trips := range map[int]int{100_000: 2, 1_500_000: 3} {
		a, b, m := pair(t, "")
		testkit.Want(t, testkit.PHP(t, a, large, "large", fmt.Sprint(size), "5", "0"), "ok")
		before, sent := count(t, a), m.Stat("bytes_written")
		testkit.Want(t, testkit.PHP(t, a, large, "large", fmt.Sprint(size), "20", "5"), "ok")
		if n := count(t, a).RoundTrips - before.RoundTrips; n < 20*trips-2 || n > 20*trips+2 { // see above
			t.Errorf("%d bytes: %d round trips were waited for in 20 requests", size, n)
		}
		if n := m.Stat("bytes_written") - sent; n > 20*10_000 {
			t.Errorf("%d bytes: the server sent %d in 20 requests", size, n)
		}
		testkit.Want(t, testkit.PHP(t, b, large, "large", fmt.Sprint(size), "3", "25"), "ok")
		testkit.Want(t, testkit.PHP(t, a, large, "large", fmt.Sprint(size), "3", "28"), "ok")
	}
}
