package faults

import (
	"fmt"
	"testing"
	"time"

	"sessfs/internal/testkit"
)

// The list of servers changes while PHP works: a fourth server is added and the first removed, the hosts take that over some
// time apart, and a host that starts in between knows what the others know. No session and no update is lost, and when the
// sessions were moved the removed server may go.
func TestServersChangeUnderLoad(t *testing.T) { testkit.EachKeep(t, testServersChangeUnderLoad) }

func testServersChangeUnderLoad(t *testing.T, k testkit.Keep) {
	const sessions, processes = 40, 8
	g := newGroup(t, 3, 2, k.Lock(""))
	g.all(g.hosts[0], 200, true)
	tried, acknowledged, present := g.count(processes, sessions, func() {
		time.Sleep(time.Second)
		g.servers = append(g.servers, testkit.StartMemcached(t))
		next := g.conf(g.servers[1:], k.Lock(""))
		g.hosts[0].Configure(next)
		testkit.Until(t, 10*time.Second, "the first host has the new list", func() bool { return status(t, g.hosts[0]).Copies.Lists == 2 })
		g.hosts = append(g.hosts, testkit.Mount(t, next)) // knows the old one from the servers
		if s := status(t, g.hosts[2]); s.Copies.Lists != 2 {
			t.Errorf("a host that starts after the change uses %d lists", s.Copies.Lists)
		}
		if ok, _, _ := g.all(g.hosts[2], 200, false); ok != 200 {
			t.Errorf("a host that starts after the change finds %d of 200 sessions", ok)
		}
		time.Sleep(2 * time.Second)
		g.hosts[1].Configure(next)
		testkit.Until(t, 10*time.Second, "the second host has the new list", func() bool { return status(t, g.hosts[1]).Copies.Lists == 2 })
		time.Sleep(2 * time.Second)
	})
	for i := range acknowledged {
		if acknowledged[i] != tried || present[i] != tried {
			t.Errorf("session %d: of %d increments %d were acknowledged and %d are there, and no server failed", i, tried, acknowledged[i], present[i])
		}
	}
	for i, h := range g.hosts {
		if ok, _, _ := g.all(h, 200, false); ok != 200 {
			t.Errorf("host %d finds %d of 200 sessions", i+1, ok)
		}
	}
	if out, code := g.hosts[0].Sessfs("rebalance"); code != 0 {
		t.Fatalf("rebalance: exit %d: %s", code, out)
	}
	g.servers[0].Stop()
	for i, h := range g.hosts {
		if ok, _, _ := g.all(h, 200, false); ok != 200 {
			t.Errorf("after the removed server's end host %d finds %d of 200 sessions", i+1, ok)
		}
	}
	for i := range sessions {
		testkit.Want(t, testkit.PHP(t, g.hosts[i%3], start+`echo $_SESSION['n'];`, fmt.Sprint("counter", i)), fmt.Sprint(present[i]))
	}
}
