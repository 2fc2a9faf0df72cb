package faults

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"sessfs/internal/testkit"
)

// group is several servers and hosts that use all of them.
type group struct {
	t       *testing.T
	servers []*testkit.Memcached
	hosts   []*testkit.Host
}

// hosts starts so many servers and hosts with two copies of each session. more is further YAML.
func newGroup(t *testing.T, servers, hosts int, more string) *group {
	t.Helper()
	g := &group{t: t}
	for range servers {
		g.servers = append(g.servers, testkit.StartMemcached(t))
	}
	for range hosts {
		g.hosts = append(g.hosts, testkit.Mount(t, g.conf(g.servers, more)))
	}
	return g
}

func (g *group) conf(servers []*testkit.Memcached, more string) testkit.Conf {
	return testkit.Conf{Servers: servers, More: more, Cache: "  timeout: 2s\n  replicas: 2\n"}
}

type groupStatus struct {
	Copies struct {
		Lists  int    `json:"lists"`
		Mended uint64 `json:"mended"`
	} `json:"copies"`
	Servers []struct {
		Address string `json:"address"`
		Up      bool   `json:"up"`
		ToMend  int64  `json:"to_mend"`
		Leaving bool   `json:"leaving"`
	} `json:"servers"`
}

// status is read whether servers are down or not, which is status's exit code.
func status(t *testing.T, h *testkit.Host) (s groupStatus) {
	t.Helper()
	out, _ := h.Sessfs("status", "--json")
	if end := strings.LastIndex(out, "}"); end < 0 || json.Unmarshal([]byte(out[:end+1]), &s) != nil {
		t.Fatalf("status: %s", out)
	}
	return s
}

// mended waits until every host sees every server with all its copies.
func (g *group) mended() {
	g.t.Helper()
	testkit.Until(g.t, 60*time.Second, "all is mended", func() bool {
		for _, h := range g.hosts {
			for _, s := range status(g.t, h).Servers {
				if !s.Up || s.ToMend != 0 {
					return false
				}
			}
		}
		return true
	})
}

// all runs one PHP process that starts so many sessions and compares what is in them. It prints how many were right, and
// how long the slowest start took and how many took long.
const all = `
	for ($i = $ok = $slow = $worst = 0; $i < $argv[1]; $i++) {
		session_id("all$i");
		$t = hrtime(true);
		$started = session_start();
		$t = (hrtime(true) - $t) / 1e6;
		$worst = max($worst, $t);
		$slow += $t > $argv[3];
		$ok += $started && ($_SESSION['v'] ?? '') === "data of $i" . str_repeat('x', $i);
		if ($started) {
			if ($argv[2]) $_SESSION['v'] = "data of $i" . str_repeat('x', $i);
			session_write_close();
		}
	}
	printf("%d %d %d", $ok, $slow, $worst);`

func (g *group) all(h *testkit.Host, n int, write bool) (ok, slow, worst int) {
	g.t.Helper()
	flag := ""
	if write {
		flag = "1"
	}
	out := testkit.PHP(g.t, h, all, fmt.Sprint(n), flag, "500")
	last := out[strings.LastIndex(out, "\n")+1:]
	if _, err := fmt.Sscanf(last, "%d %d %d", &ok, &slow, &worst); err != nil {
		g.t.Fatalf("PHP printed %s", out)
	}
	return ok, slow, worst
}

// Two servers, two copies, 500 sessions: one dies, all start with their data; it comes back empty and the other dies: all
// again. A server's end costs each host one wait at most.
func TestOneOfTwoServersDies(t *testing.T) { testkit.EachKeep(t, testOneOfTwoServersDies) }

func testOneOfTwoServersDies(t *testing.T, k testkit.Keep) {
	n := 500
	for _, how := range []string{"killed", "hangs"} {
		t.Run(how, func(t *testing.T) {
			if how != "killed" || k != "0s" {
				n = 200
			}
			g := newGroup(t, 2, 2, k.Lock(""))
			g.all(g.hosts[0], n, true)
			for i, m := range g.servers {
				if how == "killed" {
					m.Stop()
				} else {
					m.Process().Freeze(t)
				}
				for j, h := range g.hosts {
					ok, slow, worst := g.all(h, n, false)
					t.Logf("server %d %s, host %d: %d of %d right, the slowest start took %d ms, %d took more than 500 ms", i+1, how, j+1, ok, n, worst, slow)
					if ok != n {
						t.Errorf("%d of %d sessions", ok, n)
					}
				}
				if how == "killed" {
					m.Start()
				} else {
					m.Process().Thaw()
				}
				g.mended()
			}
		})
	}
}

// counters increments n sessions in turn, all once more until a file exists, and prints how often, and how many increments
// of each were acknowledged.
const counters = `
	$acknowledged = array_fill(0, $argv[1], 0);
	set_error_handler(function ($no, $text) use (&$failed) { $failed = true; fprintf(STDERR, "%s\n", $text); return true; });
	for ($i = 0; $n = $i % $argv[1], $n || !$i || !file_exists($argv[2]); $i++) {
		session_id("counter$n");
		$failed = false;
		if (!session_start()) continue;
		$_SESSION['n'] = ($_SESSION['n'] ?? 0) + 1;
		usleep(2000);
		if (session_write_close() && !$failed) $acknowledged[$n]++;
	}
	echo "\n", $i / $argv[1], ' ', implode(' ', $acknowledged);`

// count runs some processes on each host until something was done meanwhile, and tells how many increments of each session
// were tried and how many acknowledged, and how many there are.
func (g *group) count(processes, sessions int, meanwhile func()) (tried int, acknowledged, present []int) {
	g.t.Helper()
	var procs []*testkit.Process
	enough := filepath.Join(testkit.Dir(g.t), "enough")
	for i := range processes {
		procs = append(procs, testkit.StartPHP(g.t, g.hosts[i%len(g.hosts)], nil, counters, fmt.Sprint(sessions), enough))
	}
	meanwhile()
	testkit.WriteFile(g.t, enough, "now")
	acknowledged = make([]int, sessions)
	for _, p := range procs {
		p.Wait(g.t, 4*time.Minute)
		out := strings.TrimSpace(p.Output())
		f := strings.Fields(out[strings.LastIndex(out, "\n")+1:])
		if len(f) != 1+sessions {
			g.t.Fatalf("PHP printed %s", out)
		}
		if lines := strings.Count(out, "\n"); lines > 1 {
			g.t.Logf("PHP said:\n%.1000s", out)
		}
		times, _ := strconv.Atoi(f[0])
		tried += times
		for i := range acknowledged {
			n, _ := strconv.Atoi(f[1+i])
			acknowledged[i] += n
		}
	}
	for i := range sessions {
		n, err := strconv.Atoi(strings.TrimSpace(testkit.PHP(g.t, g.hosts[i%len(g.hosts)], start+`echo $_SESSION['n'];`, fmt.Sprint("counter", i))))
		if err != nil {
			g.t.Fatal(err)
		}
		present = append(present, n)
	}
	return tried, acknowledged, present
}

// All servers hang for a while: every start fails loudly within the bound, an id lately seen is not thrown away, and all
// works after.
func TestAllServersHang(t *testing.T) { testkit.EachKeep(t, testAllServersHang) }

func testAllServersHang(t *testing.T, k testkit.Keep) {
	g := newGroup(t, 3, 2, k.Lock(""))
	testkit.Want(t, testkit.PHP(t, g.hosts[0], write, "known", "x"), "ok")
	for _, m := range g.servers {
		m.Process().Freeze(t)
	}
	for end := time.Now().Add(6 * time.Second); time.Now().Before(end); {
		out := testkit.PHPWith(t, g.hosts[0], []string{"session.use_strict_mode=1"},
			`$t = microtime(true); session_id($argv[1]); $ok = session_start(); printf("\n%s %.1f", $ok ? 'started' : 'false', microtime(true) - $t);`, "known")
		var how string
		var sec float64
		if _, err := fmt.Sscanf(out[strings.LastIndex(out, "\n")+1:], "%s %f", &how, &sec); err != nil || how != "false" || !strings.Contains(out, "sess_known, O_RDWR) failed: Input/output error") {
			t.Fatalf("PHP printed %s", out)
		}
		if sec > 4 {
			t.Errorf("a start took %.1f s with a timeout of 2 s", sec)
		}
	}
	for _, m := range g.servers {
		m.Process().Thaw()
	}
	g.mended()
	for _, h := range g.hosts {
		testkit.Want(t, testkit.PHP(t, h, read, "known"), "x")
		testkit.Want(t, testkit.PHP(t, h, write, "known", "x"), "ok")
	}
}
