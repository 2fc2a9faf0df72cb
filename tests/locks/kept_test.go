package locks

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sessfs/internal/testkit"
)

const write = start + `$_SESSION['n'] = $argv[2]; session_write_close() or exit("not written"); echo 'ok';`

func store(t *testing.T, h *testkit.Host, id, value string) {
	t.Helper()
	if out := testkit.PHP(t, h, write, id, value); out != "ok" {
		t.Fatal(out)
	}
}

// kept is how many leases a host keeps, as `sessfs status` says.
func kept(t *testing.T, h *testkit.Host) int {
	t.Helper()
	var s struct {
		Locking struct {
			Kept int `json:"kept"`
		}
	}
	h.Status(&s)
	return s.Locking.Kept
}

// Leases that are kept for much longer than any of this takes: other hosts get them all the same.
func TestKeptLeases(t *testing.T) {
	m := testkit.StartMemcached(t)
	c := testkit.Conf{Servers: []*testkit.Memcached{m}, More: "lock: {lease: 1h, keep: 30m}\n"}
	a, b := testkit.Mount(t, c), testkit.Mount(t, c)
	locked := func(id string) bool { return strings.HasPrefix(m.Command("get sessfs:@sess_%s", id), "VALUE") }

	for i := range 5 { // from host to host
		h, other := a, b
		if i%2 == 1 {
			h, other = b, a
		}
		store(t, h, "moving", fmt.Sprint(i))
		testkit.Until(t, 10*time.Second, "the lease is kept", func() bool { return kept(t, h) == 1 })
		if out := testkit.PHP(t, other, count, "moving"); out != fmt.Sprint(i) {
			t.Errorf("the other host reads %s, stored was %d", out, i)
		}
	}

	store(t, a, "unlocked", "x")
	if out, code := b.Sessfs("unlock", "sess_unlocked"); code != 0 || !strings.Contains(out, "held by pid") {
		t.Errorf("unlock: exit %d: %s", code, out)
	}
	if locked("unlocked") {
		t.Error("unlock left the lock of a kept lease")
	}
	store(t, b, "unlocked", "y")

	// P8: gone for those who keep it, too, once unlink has returned.
	for i := range 5 {
		id := fmt.Sprint("destroyed", i)
		store(t, a, id, "secret")
		if out := testkit.PHP(t, b, `echo unlink($argv[1]) ? 'gone' : 'there';`, b.Path("sess_"+id)); out != "gone" {
			t.Fatal(out)
		}
		if out := testkit.PHP(t, a, count, id); out != "0" {
			t.Errorf("the destroyed session says %s", out)
		}
	}

	store(t, a, "stopped", "x")
	if !locked("stopped") {
		t.Error("the lease is not kept")
	}
	a.Stop()
	if locked("stopped") {
		t.Error("the daemon's end left a kept lease behind")
	}
	store(t, b, "stopped", "y")
}

// P5: what a dead host kept is free when its lease ends.
func TestKeeperKilled(t *testing.T) {
	a, b := pair(t, "lock: {lease: 4s, keep: 1500ms}\n")
	store(t, a, "dead", "7")
	a.Crash()
	if out := testkit.PHP(t, b, count, "dead"); out != "7" {
		t.Errorf("the session says %s", out)
	}
	a.Start()
}
