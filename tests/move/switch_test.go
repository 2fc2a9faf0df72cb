package move

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sessfs/internal/testkit"
)

// visits is PHP code of a user who makes one request after the other until the file is there, and says how many. A counter
// that goes back, or starts anew, ends it with an error.
const visits = `[, $id, $end] = $argv;
$last = 0; $mine = 0; $first = false;
while (!file_exists($end)) {
  session_id($id);
  if (!session_start()) { echo "session_start failed\n"; exit(1); }
  $n = $_SESSION['n'] ?? 0;
  if ($n < $last || $n === 0 && $mine > 0) { echo "the counter was $last, and is $n\n"; exit(1); }
  $_SESSION['n'] = $last = $n + 1;
  if (!session_write_close()) { echo "session_write_close failed\n"; exit(1); }
  $mine++;
  usleep(mt_rand(0, 4000));
}
echo "visits $mine\n";`

// TestSwitch: PHP goes on all the time while its sessions are imported and the mount takes the place of the directory. Every
// request of every user counts, two of whom have two windows open.
func TestSwitch(t *testing.T) {
	m := testkit.StartMemcached(t)
	h := testkit.NewHost(t, testkit.Conf{Servers: []*testkit.Memcached{m}})
	for i := range 500 {
		oldFile(t, fmt.Sprintf("%s/sess_idle%d", h.Dir, i), "n|i:1;", 0, 0o600, time.Minute)
	}
	end := filepath.Join(testkit.Dir(t), "end")
	ids := []string{"one", "one", "two", "two", "three", "four"}
	var users []*testkit.Process
	for _, id := range ids {
		users = append(users, testkit.StartPHP(t, h, nil, visits, id, end))
	}
	testkit.Until(t, 20*time.Second, "all users have sessions", func() bool {
		list, _ := filepath.Glob(h.Dir + "/sess_[oft]*")
		return len(list) == 4
	})
	moved(t, h, 0, "import", h.Dir)
	time.Sleep(300 * time.Millisecond)
	h.Start("--import", h.Dir)
	time.Sleep(700 * time.Millisecond)
	if err := os.WriteFile(end, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	made := make(map[string]int)
	for i, p := range users {
		if err := p.Wait(t, 20*time.Second); err != nil {
			t.Errorf("user %s: %v: %s", ids[i], err, p.Output())
		}
		var n int
		fmt.Sscanf(p.Output(), "visits %d", &n)
		made[ids[i]] += n
	}
	for id, n := range made {
		if got := testkit.PHP(t, h, increment(id)); got != fmt.Sprint(n+1) {
			t.Errorf("user %s has made %d requests, and one more makes %s", id, n, got)
		}
	}
	if got := testkit.PHP(t, h, increment("idle7")); got != "2" {
		t.Errorf("who was away counts on to %s", got)
	}
	testkit.Until(t, 20*time.Second, "the import is done", func() bool { return strings.Contains(h.Log(), "the sessions of a directory were imported") })
}

// TestSwitchByHand: import, mount over the directory, and import the rest from below the mount.
func TestSwitchByHand(t *testing.T) {
	m := testkit.StartMemcached(t)
	h := testkit.NewHost(t, testkit.Conf{Servers: []*testkit.Memcached{m}})
	below := filepath.Join(testkit.Dir(t), "old")
	if err := os.Mkdir(below, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"away", "open"} {
		phpIn(t, h, h.Dir, increment(id))
	}
	testkit.MustRun(t, "mount", "--bind", h.Dir, below)
	t.Cleanup(func() { testkit.MustRun(t, "umount", below) })
	moved(t, h, 0, "import", below)
	gate := testkit.NewGate(t)
	open := testkit.StartPHP(t, h, nil, `session_id("open"); session_start(); echo "open"; `+gate.PHP()+`$_SESSION["n"]++; session_write_close();`)
	testkit.Until(t, 20*time.Second, "PHP has a file open", func() bool { return open.Output() == "open" })
	h.Start()
	gate.Open()
	open.Wait(t, 20*time.Second)
	if r := moved(t, h, 0, "import", below); r.Counts["imported"] < 1 || r.Counts["newer"] != 0 {
		t.Errorf("the rest: %+v", r)
	}
	if got := testkit.PHP(t, h, increment("open")+increment("away")); got != "32" {
		t.Errorf("PHP counts on to %s, want 3 and 2", got)
	}
}

// TestMountFails: a mount that cannot import is none, and the files are as they were.
func TestMountFails(t *testing.T) {
	m := testkit.StartMemcached(t)
	h := testkit.NewHost(t, testkit.Conf{Servers: []*testkit.Memcached{m}})
	if out, code := h.Sessfs("mount", "--import", h.Dir+"/none"); code != 2 || !strings.Contains(out, "--import") || h.Mounted() {
		t.Errorf("exit %d: %s", code, out)
	}
	oldFile(t, h.Dir+"/sess_a", "n|i:1;", 0, 0o600, time.Minute)
	if got := phpIn(t, h, h.Dir, increment("a")); got != "2" {
		t.Errorf("PHP says %s", got)
	}
}
