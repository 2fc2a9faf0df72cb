package admin

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"sessfs/internal/testkit"
)

const (
	writeMany = `for ($i = 0; $i < 500; $i++) {
		session_id("many$i"); session_start() or exit("no session $i");
		$_SESSION['v'] = "value $i"; session_write_close() or exit("session $i was not written"); $_SESSION = [];
	} echo "ok";`
	readMany = `$there = 0; for ($i = 0; $i < 500; $i++) {
		session_id("many$i"); session_start(['read_and_close' => true]) or exit("no session $i");
		$there += ($_SESSION['v'] ?? '-') === "value $i"; $_SESSION = [];
	} echo $there;`
)

// A server is added and another one taken out, while two hosts are mounted that learn of it one after the other. When
// rebalance has moved the sessions, the server that was taken out may die: all are there.
func TestRebalance(t *testing.T) {
	var servers []*testkit.Memcached
	for range 4 {
		servers = append(servers, testkit.StartMemcached(t))
	}
	before, after := testkit.Conf{Servers: servers[:3]}, testkit.Conf{Servers: servers[1:]}
	h, late := testkit.Mount(t, before), testkit.Mount(t, before)
	testkit.Want(t, testkit.PHP(t, h, writeMany), "ok")

	h.Configure(after)
	logged(t, h, "keys=cache.servers")
	out, code := h.Sessfs("rebalance", "--dry-run")
	if code != 0 || !regexp.MustCompile(`(?m)^500 sessions, [1-9]\d* would be moved$`).MatchString(out) {
		t.Fatalf("a dry run: exit %d\n%s", code, out)
	}
	out, code = h.Sessfs("rebalance", "--rate", "5000")
	if code != 0 || !regexp.MustCompile(`(?m)^500 sessions, [1-9]\d* were moved$`).MatchString(out) {
		t.Fatalf("exit %d\n%s", code, out)
	}
	for i, line := range []string{`removed +\d+ +from .*: a host had it in its list`, `present +\d+ +no\n`, `present +\d+ +no\n`, `present +[1-9]\d* +no\n`} {
		if !regexp.MustCompile(regexp.QuoteMeta(servers[i].Addr) + ` +` + regexp.QuoteMeta(servers[i].Addr) + ` +` + line).MatchString(out) {
			t.Errorf("server %d is not said to be %q:\n%s", i+1, line, out)
		}
	}
	if out, code = h.Sessfs("rebalance", "--json"); code != 0 || !strings.Contains(out, `"moved": 0,`) {
		t.Errorf("once more: exit %d\n%s", code, out)
	}

	// A dump misses some items that were just used, another one shows them.
	copies := make(map[string]bool) // server and session
	key := regexp.MustCompile(`key=sessfs%3A(sess_many\d+) `)
	testkit.Until(t, 30*time.Second, "every session has two copies on the servers of the present list", func() bool {
		for _, m := range servers[1:] {
			for _, found := range key.FindAllStringSubmatch(m.Dump(), -1) {
				copies[m.Addr+" "+found[1]] = true
			}
		}
		twice := 0
		for i := range 500 {
			n := 0
			for _, m := range servers[1:] {
				if copies[fmt.Sprintf("%s sess_many%d", m.Addr, i)] {
					n++
				}
			}
			if n >= 2 {
				twice++
			}
		}
		return twice == 500
	})

	servers[0].Stop()
	testkit.Want(t, testkit.PHP(t, h, readMany), "500")
	testkit.Want(t, testkit.PHP(t, late, readMany), "500")
	late.Configure(after)
	logged(t, late, "keys=cache.servers")
	testkit.Want(t, testkit.PHP(t, late, readMany), "500")
}

func TestRebalanceWithoutServers(t *testing.T) {
	h := testkit.Mount(t, testkit.Conf{})
	if out, code := h.Sessfs("rebalance"); code != 1 || !strings.Contains(out, "kept in the process") {
		t.Errorf("exit %d: %s", code, out)
	}
	if out, code := h.Sessfs("rebalance", "--rate", "-1"); code != 2 || !strings.Contains(out, "--rate") {
		t.Errorf("exit %d: %s", code, out)
	}
}
