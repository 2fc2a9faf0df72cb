package seal

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"sessfs/internal/testkit"
)

// increments counts in some sessions until its standard input ends; it prints how often, and ends at the first failure. It
// leaves them a while: what is always locked is tried again for half a minute by who moves or seals it.
const increments = `stream_set_blocking(STDIN, false); $n = 0;
while (!feof(STDIN)) { fread(STDIN, 1);
	session_id("counter" . $n % 20); session_start() or exit("no session after $n");
	$_SESSION['n'] = ($_SESSION['n'] ?? 0) + 1; session_write_close() or exit("not written after $n"); $n++; usleep(10000); }
echo $n;`

// load is PHP processes on some hosts.
type load struct {
	t     *testing.T
	procs []*testkit.Process
	ends  []*os.File
}

func startLoad(t *testing.T, hosts []*testkit.Host, n int) *load {
	t.Helper()
	l := &load{t: t}
	for i := range n {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd := testkit.PHPCommand(hosts[i%len(hosts)], nil, increments)
		cmd.Stdin = r
		l.procs = append(l.procs, testkit.StartCmd(t, cmd))
		r.Close()
		l.ends = append(l.ends, w)
	}
	return l
}

// end ends the load, and returns how often it counted.
func (l *load) end() (sum int) {
	l.t.Helper()
	for _, w := range l.ends {
		w.Close()
	}
	for _, p := range l.procs {
		p.Wait(l.t, time.Minute)
		n := 0
		if _, err := fmt.Sscanf(p.Output(), "%d", &n); err != nil || n == 0 {
			l.t.Errorf("a process says: %s", p.Output())
		}
		sum += n
	}
	return sum
}

// counted is what the sessions say.
func counted(t *testing.T, h *testkit.Host) (sum int) {
	t.Helper()
	out := testkit.PHP(t, h, `$n = 0; for ($i = 0; $i < 20; $i++) { session_id("counter$i"); session_start(); $n += $_SESSION['n']; session_write_close(); } echo $n;`)
	if _, err := fmt.Sscanf(out, "%d", &sum); err != nil {
		t.Errorf("the sessions say: %s", out)
	}
	return sum
}

// taken waits until a host has these keys.
func taken(t *testing.T, h *testkit.Host, text string) {
	t.Helper()
	testkit.Until(t, 10*time.Second, "status says "+text, func() bool {
		out, _ := h.Sessfs("status")
		return strings.Contains(out, text)
	})
}

// Sealing is introduced on two hosts, one after the other at each step, and later the key is changed, while PHP works: no
// request fails, no increment is lost, and at the end nothing on the servers can be opened with the old key.
func TestKeysChangeUnderLoad(t *testing.T) {
	servers := []*testkit.Memcached{testkit.StartMemcached(t), testkit.StartMemcached(t)}
	dir := testkit.Dir(t)
	k1 := newKey(t, dir, "k1.key", "")
	k2 := newKey(t, dir, "k2.key", k1)
	conf := func(seal string) testkit.Conf { return testkit.Conf{Servers: servers, More: seal} }
	hosts := []*testkit.Host{testkit.Mount(t, conf("")), testkit.Mount(t, conf(""))}
	quiet := `for ($i = 0; $i < 300; $i++) { session_id("quiet$i"); session_start(); %s session_write_close(); } echo $n ?? 'stored';`
	testkit.Want(t, testkit.PHP(t, hosts[0], fmt.Sprintf(quiet, `$_SESSION['v'] = "value of $i";`)), "stored")
	l := startLoad(t, hosts, 8)
	step := func(status, seal string) {
		t.Helper()
		for _, h := range hosts {
			h.Configure(conf(seal))
			taken(t, h, status)
			time.Sleep(300 * time.Millisecond) // in which PHP works with hosts that differ
		}
	}
	rotate := func(want string) {
		t.Helper()
		out, code := hosts[1].Sessfs("seal", "rotate")
		if code != 0 || !strings.Contains(out, want) {
			t.Fatalf("seal rotate: exit %d: %s", code, out)
		}
	}
	step("not yet (seal.write_plain); keys: k1", sealed("  accept_plain: true\n  write_plain: true\n", "k1", k1))
	step("with k1; what is not sealed is read, too", sealed("  accept_plain: true\n", "k1", k1))
	rotate("sealed with k1")
	step("with k1\n", sealed("", "k1", k1))
	step("with k1; k2 open, too", sealed("", "k1", k1, "k2", k2))
	step("with k2; k1 open, too", sealed("", "k2", k2, "k1", k1))
	rotate("sealed with k2")
	step("with k2\n", sealed("", "k2", k2))
	if err := os.Remove(k1); err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond)
	did := l.end()
	for i, h := range hosts {
		if n := counted(t, h); n != did {
			t.Errorf("%d increments were acknowledged, host %d finds %d", did, i+1, n)
		}
		testkit.Want(t, testkit.PHP(t, h, fmt.Sprintf(quiet, `$n = ($n ?? 0) + (int)($_SESSION['v'] === "value of $i");`)), "300")
		for reason, n := range refused(t, h) {
			if n != 0 {
				t.Errorf("host %d has refused %d records: %s", i+1, n, reason)
			}
		}
	}
	t.Logf("%d increments", did)
}

// A host without keys does not go on beside those that seal: it says what is missing.
func TestHostWithoutKeys(t *testing.T) {
	m := testkit.StartMemcached(t)
	servers := []*testkit.Memcached{m}
	k1 := newKey(t, testkit.Dir(t), "k1.key", "")
	a := testkit.Mount(t, testkit.Conf{Servers: servers, More: sealed("", "k1", k1)})
	testkit.Want(t, testkit.PHP(t, a, start+`$_SESSION['n'] = 1; echo session_write_close();`, "a"), "1")
	testkit.Until(t, 10*time.Second, "the list is on the server", func() bool { return strings.HasPrefix(m.Command("get sessfs:!lists"), "VALUE") })
	b := testkit.Mount(t, testkit.Conf{Servers: servers})
	if out := testkit.PHP(t, b, start+`echo $_SESSION['n'];`, "a"); !strings.Contains(out, "Input/output error") {
		t.Errorf("PHP got %s", out)
	}
	if log := b.Log(); !strings.Contains(log, "this one has not their keys") {
		t.Errorf("the log says:\n%s", log)
	}
	b.Configure(testkit.Conf{Servers: servers, More: sealed("", "k1", k1)})
	taken(t, b, "with k1")
	testkit.Want(t, testkit.PHP(t, b, start+`echo $_SESSION['n'];`, "a"), "1")
}
