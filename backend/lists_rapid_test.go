package backend

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// someLists draws lists of a small world, so that many are equal in a part.
func someLists(t *rapid.T, label string) history {
	var lists []list
	for range rapid.IntRange(0, 4).Draw(t, label) {
		l := list{Used: ago(time.Duration(rapid.IntRange(-3, 40).Draw(t, "used")) * time.Minute)}
		if rapid.Bool().Draw(t, "was moved") {
			l.Moved = ago(time.Duration(rapid.IntRange(0, 40).Draw(t, "moved")) * time.Minute)
		}
		for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c"}), 1, 3, rapid.ID[string]).Draw(t, "names") {
			l.Servers = append(l.Servers, listServer{Name: name, Network: "tcp", Weight: rapid.IntRange(1, 2).Draw(t, "weight"),
				Address: fmt.Sprintf("%s%d:1", name, rapid.IntRange(0, 2).Draw(t, "address"))})
		}
		l.Replicas = rapid.IntRange(1, len(l.Servers)).Draw(t, "replicas")
		lists = append(lists, l)
	}
	return newHistory(lists)
}

func TestMergeInAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := someLists(t, "a"), someLists(t, "b"), someLists(t, "c")
		same := func(what string, x, y history) {
			if !bytes.Equal(x.encode(), y.encode()) {
				t.Fatalf("%s:\n%s\n%s", what, x.encode(), y.encode())
			}
		}
		same("commutative", a.merge(b), b.merge(a))
		same("associative", a.merge(b).merge(c), a.merge(b.merge(c)))
		same("idempotent", a.merge(b), a.merge(b).merge(b))
		same("neutral", a, a.merge(nil))
		d, err := decodeHistory(a.encode())
		if err != nil {
			t.Fatal(err)
		}
		same("decoded", a, d)
		// Nothing that is alive for one of them is forgotten, but for what was marked as moved.
		for _, l := range a.alive(listsNow, listLife) {
			if f := a.merge(b).find(l); f == nil || !f.alive(listsNow, listLife) && f.Moved == l.Moved {
				t.Fatalf("%v was forgotten", l)
			}
		}
	})
}

// Hosts that store what mergeInto says, on servers that lose their documents at times, come to know the same.
func TestHostsAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var servers [2][]byte
		owns := []list{named("a b", 2, 0), named("b a*2", 2, 0), named("a", 1, 0)}
		known := make([]history, len(owns))
		now := listsNow
		visit := func(host, server int) {
			h, store, left, err := mergeInto(servers[server], known[host], owns[host], now, listLife)
			if err != nil || left != 0 {
				t.Fatalf("left %d: %v", left, err)
			}
			if known[host] = h; store != nil {
				servers[server] = store
			}
		}
		for range rapid.IntRange(0, 20).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 90).Draw(t, "seconds")) * time.Second)
			if rapid.IntRange(0, 5).Draw(t, "restart") == 0 {
				servers[rapid.IntRange(0, 1).Draw(t, "which")] = nil
				continue
			}
			visit(rapid.IntRange(0, len(owns)-1).Draw(t, "host"), rapid.IntRange(0, 1).Draw(t, "server"))
		}
		for range 2 {
			for host := range owns {
				visit(host, 0)
				visit(host, 1)
			}
		}
		for host := range owns {
			alive := known[host].alive(now, listLife)
			if len(alive) != len(owns) {
				t.Fatalf("host %d knows %v", host, alive)
			}
		}
	})
}
