package backend

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sessfs"
)

// announced is a host of the servers that has told of itself.
func announced(t *testing.T, name string, o Options) *Cluster {
	t.Helper()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.Check(context.Background()); err != nil {
		t.Fatal(err)
	}
	c.Announce(HostRecord{ID: "id" + name, Host: name, Mountpoint: "/sessions", Version: "1", Owner: "keep", Depth: 1})
	return c
}

// seenBy are the names of the hosts in the register of each server.
func seenBy(t *testing.T, o Options) (names [][]string) {
	t.Helper()
	for _, e := range Examine(context.Background(), o) {
		if e.Err != nil || e.HostsErr != nil {
			t.Logf("%s: %v, %v", e.Server.Name, e.Err, e.HostsErr)
		}
		var list []string
		for _, h := range e.Hosts {
			list = append(list, h.Prefix+h.Host)
		}
		slices.Sort(list)
		names = append(names, list)
	}
	return names
}

func TestHostsFindEachOther(t *testing.T) {
	both(t, func(t *testing.T, kind Options, _ *memcached) {
		servers, o := servers(t, 2)
		o.ForceClassic = kind.ForceClassic
		web1 := announced(t, "web1", o)
		other := o
		other.Prefix = "another:"
		web2 := announced(t, "web2", other)
		all := []string{"another:web2", o.Prefix + "web1"}
		everywhere := func() bool {
			for _, list := range seenBy(t, o) {
				if !slices.Equal(list, all) {
					return false
				}
			}
			return true
		}
		until(t, "both hosts are in the register of both servers", everywhere)
		// A server that was restarted, and one whose register was damaged, has all of it again.
		servers[0].stop()
		servers[0].start()
		until(t, "they are on a server that was restarted", func() bool {
			for _, c := range []*Cluster{web1, web2} {
				c.Check(context.Background())
				if o.ForceClassic { // there is no connection that stands, and shows it: it would be five minutes
					c.announceSoon()
				}
			}
			return everywhere()
		})
		until(t, "a damaged register is told", func() bool { // an announcement that is under way may mend it at once
			servers[1].raw("set %s 0 0 7\r\ngarbage\r\n", hostsKey)
			e := Examine(context.Background(), o)[1]
			return e.HostsErr != nil && e.Err == nil && len(e.Hosts) == 0
		})
		web1.announceSoon()
		until(t, "the damaged register is mended", func() bool { return slices.Contains(seenBy(t, o)[1], o.Prefix+"web1") })
		list, addresses := Digest(o.Servers, o.Replicas)
		until(t, "a host has read of itself", func() bool {
			hosts := web1.Hosts()
			i := slices.IndexFunc(hosts, func(h HostRecord) bool { return h.Host == "web1" })
			return i >= 0 && hosts[i].List == list && hosts[i].Addresses == addresses && hosts[i].Depth == 1 && hosts[i].Lifetime == int64(o.Lifetime/time.Second)
		})
	})
}

func TestExamine(t *testing.T) {
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("user:secret\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	good, login, down, noCAS := startMemcached(t, "-m", "8"), startMemcached(t, "-Y", password), startMemcached(t), startMemcached(t, "-C")
	down.stop()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(good.socket, link); err != nil {
		t.Fatal(err)
	}
	before := good.raw("stats\r\n")
	o := Options{Timeout: 5 * time.Second, Prefix: "p:"}
	for _, s := range []Server{{Name: "good", Address: good.socket}, {Name: "login", Address: login.socket}, {Name: "down", Address: down.socket},
		{Name: "again", Address: link}, {Name: "nocas", Address: noCAS.socket}} {
		s.Network = "unix"
		o.Servers = append(o.Servers, s)
	}
	found := Examine(context.Background(), o)
	if e := found[0]; e.Err != nil || !e.Meta || !slices.Equal(e.SameAs, []string{"again"}) || e.Settings["item_size_max"] != "1048576" ||
		number(e.Stats, "limit_maxbytes") != 8<<20 || e.RoundTrip <= 0 || e.Connect <= 0 || !strings.HasPrefix(e.Version, "1.") || time.Since(e.Asked) > time.Minute {
		t.Errorf("a good server: %+v", e)
	}
	var refusal *Refusal
	if e := found[1]; !errors.As(e.Err, &refusal) || refusal.Kind != RefusedLogin {
		t.Errorf("a server with passwords: %+v", e)
	}
	if e := found[2]; e.Err == nil || errors.As(e.Err, &refusal) {
		t.Errorf("a server that is down: %+v", e)
	}
	if e := found[3]; !slices.Equal(e.SameAs, []string{"good"}) {
		t.Errorf("the good server by another name: %+v", e)
	}
	if e := found[4]; !errors.Is(e.Err, sessfs.ErrNotSupported) {
		t.Errorf("a server without cas: %+v", e)
	}
	if after := good.raw("stats\r\n"); items0(before) != items0(after) {
		t.Errorf("items were left: %s before, %s after", items0(before), items0(after))
	}
}

// items0 is the line of the number of items.
func items0(stats string) string {
	_, after, _ := strings.Cut(stats, "STAT curr_items ")
	n, _, _ := strings.Cut(after, "\r\n")
	return n
}
