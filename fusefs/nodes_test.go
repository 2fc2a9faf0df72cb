package fusefs

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"sessfs"
)

func newNodeTable(t testing.TB) *nodeTable {
	t.Helper()
	s := newNames(nil, 0, []byte("k"))
	nodes := new(nodeTable)
	nodes.init(&s, nil)
	return nodes
}

func TestNodeTableIsBounded(t *testing.T) {
	nodes := newNodeTable(t)
	if nodes.cold.max != maxNodes-maxWarm {
		t.Errorf("there is room for %d cold nodes", nodes.cold.max)
	}
	const room = 3 * maxWarm
	nodes.cold.init(room-maxWarm, maxNodeBytes)
	pinned, h := nodes.of("pinned"), &handle{}
	nodes.opened(pinned, h)
	for i := range 2 * room {
		nodes.of(sessfs.ID(fmt.Sprint(i)))
	}
	if n := nodes.len(); n > room+1 || n < room/2 {
		t.Errorf("%d nodes are kept", n)
	}
	if len(nodes.byIno) > maxWarm+1 || len(nodes.current) > maxWarm+1 {
		t.Errorf("%d nodes are not cold", len(nodes.byIno))
	}
	if nodes.get(pinned.ino) != pinned {
		t.Error("an open node was dropped")
	}
	pinned.retired = true
	if next := nodes.of("pinned"); next == pinned || next.ino == pinned.ino {
		t.Error("a retired node was handed out")
	}
	nodes.closed(pinned, h)
	if nodes.get(pinned.ino) != nil {
		t.Error("a retired node stays after its close")
	}
	if nodes.again(pinned) != pinned || nodes.get(pinned.ino) != nil {
		t.Error("a retired node came back")
	}
}

// What is known of a node is the same after it was cold, whatever the length of its name.
func TestColdNodes(t *testing.T) {
	nodes := newNodeTable(t)
	long := sessfs.ID("sess_" + strings.Repeat("y", 250))
	var want []node
	for _, id := range []sessfs.ID{"s", "sess_" + sessfs.ID(strings.Repeat("x", 32)), "sess_" + sessfs.ID(strings.Repeat("x", 33)), long} {
		n := nodes.of(id)
		n.lookups, n.entryUntil, n.reused = 7, 5e9, id != "s"
		want = append(want, *n)
	}
	open, h := nodes.of("open"), &handle{}
	nodes.opened(open, h)
	for i := range maxWarm + 100 {
		nodes.of(sessfs.ID(fmt.Sprint(i)))
	}
	if nodes.byIno[open.ino] != open {
		t.Error("an open node went cold")
	}
	for _, w := range want {
		if nodes.byIno[w.ino] != nil || nodes.current[w.id] != nil {
			t.Errorf("%q is not cold", w.id)
		}
		n := nodes.known(w.id)
		if n == nil || n.ino != w.ino || n.id != w.id || n.lookups != 7 || n.entryUntil != 5e9 || n != nodes.get(w.ino) || n != nodes.of(w.id) {
			t.Errorf("%+v came back as %+v", w, n)
		}
		if n.reused != (w.id != "s") || n.answered != unknownVersion {
			t.Errorf("%q came back with attributes for reuse: %v", w.id, n.reused)
		}
	}
	if nodes.known("never seen") != nil {
		t.Error("a node was made for a name that was only asked for")
	}
}

// FORGET takes nodes away, warm or cold, once the kernel has forgotten all it was told.
func TestForgottenNodes(t *testing.T) {
	nodes := newNodeTable(t)
	const many = 4 * maxWarm
	var inos []uint64
	for i := range many {
		n := nodes.of(sessfs.ID(fmt.Sprintf("sess_%064d", i)))
		n.lookups = 2
		inos = append(inos, n.ino)
	}
	for _, ino := range inos {
		nodes.forget(ino, 1)
	}
	if nodes.len() != many {
		t.Errorf("%d nodes of %d are left, all of which the kernel knows", nodes.len(), many)
	}
	for _, ino := range inos {
		nodes.forget(ino, 1)
		nodes.forget(ino, 1)
	}
	if nodes.len() != 0 || nodes.cold.young.peak > coldShrink || nodes.cold.young.bytes != 0 || len(nodes.cold.young.long) != 0 {
		t.Errorf("%d nodes are left: %d in a map for %d, %d bytes of names", nodes.len(), nodes.cold.len(), nodes.cold.young.peak, nodes.cold.young.bytes)
	}
}

// Long names are chosen by attackers.
func TestColdNamesAreBounded(t *testing.T) {
	nodes := newNodeTable(t)
	const room = 100 << 10
	nodes.cold.init(maxNodes, room)
	for i := range maxWarm + 3*room/250 {
		nodes.of(sessfs.ID(fmt.Sprintf("%0250d", i)))
	}
	if n := nodes.cold.young.bytes + nodes.cold.old.bytes; n > 2*(room+250) || n < room {
		t.Errorf("%d bytes of names are kept", n)
	}
}

// Retired lives that are open are passed over, and the table agrees with itself, in any order of events.
func TestNodeTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newNames(nil, 0, []byte("k"))
		nodes := new(nodeTable)
		nodes.init(&s, nil)
		names := rapid.SampledFrom([]sessfs.ID{"a", "b", "sess_" + sessfs.ID(strings.Repeat("x", 60))})
		handles := make(map[*handle]*node)
		t.Repeat(map[string]func(*rapid.T){
			"open": func(t *rapid.T) {
				n, h := nodes.of(names.Draw(t, "name")), new(handle)
				nodes.opened(n, h)
				handles[h] = n
			},
			"close": func(t *rapid.T) {
				for h, n := range handles {
					nodes.closed(n, h)
					delete(handles, h)
					break
				}
			},
			"retire": func(t *rapid.T) {
				if n := nodes.known(names.Draw(t, "name")); n != nil && len(n.handles) > 0 {
					n.retired = true
				}
			},
			"cool": func(t *rapid.T) {
				for nodes.idle.n > 0 {
					n := nodes.idle.last().of
					nodes.drop(n)
					nodes.cold.put(n)
				}
			},
			"forget": func(t *rapid.T) { nodes.forget(s.inode(names.Draw(t, "name"), 0), 1) },
			"": func(t *rapid.T) {
				for h, n := range handles {
					if nodes.byIno[n.ino] != n || n.place.in() {
						t.Fatalf("the open node %d is not pinned", n.ino)
					}
					_ = h
				}
				for id, n := range nodes.current {
					if n.id != id || nodes.byIno[n.ino] != n {
						t.Fatalf("%q leads to a node that is not in the table", id)
					}
				}
				for ino, n := range nodes.byIno {
					if n.ino != ino || s.inode(n.id, n.n) != ino || len(n.handles) == 0 != n.place.in() {
						t.Fatalf("node %d is %+v", ino, n)
					}
				}
				id := names.Draw(t, "looked up")
				if n := nodes.of(id); n.retired || n.id != id || n != nodes.known(id) {
					t.Fatalf("LOOKUP hands out %+v", n)
				}
			},
		})
	})
}

func TestSightings(t *testing.T) {
	var seen sightings
	seen.init()
	attr := sessfs.Attr{UID: 1, GID: 2, Mode: 0o640, Atime: 3, Mtime: 4, Ctime: 5}
	for i := range 1000 {
		seen.put(sessfs.ID(fmt.Sprint(i)), sighting{attr, i})
	}
	for i := range 1000 {
		if s, ok := seen.get(sessfs.ID(fmt.Sprint(i))); !ok || s.attr != attr || s.size != i {
			t.Fatalf("%d is %+v, %v", i, s, ok)
		}
	}
	seen.put("7", sighting{attr, 8})
	if s, _ := seen.get("7"); s.size != 8 {
		t.Error("a new sighting does not replace the old one")
	}
	seen.remove("7")
	if _, ok := seen.get("7"); ok {
		t.Error("a removed sighting is there")
	}
	lost := 0
	for i := range maxSeen {
		seen.put(sessfs.ID(fmt.Sprint("more ", i)), sighting{attr, i})
	}
	for i := range maxSeen / 4 {
		if _, ok := seen.get(sessfs.ID(fmt.Sprint("more ", maxSeen-1-i))); !ok {
			lost++
		}
	}
	if lost > maxSeen/4/20 {
		t.Errorf("%d of the last %d sightings are lost", lost, maxSeen/4)
	}
	row := &seen.rows[0]
	for range 100 { // an entry that is used stays, whatever else comes to its row
		used := row[0].hash
		row.use(seenRow - 1)
		row[0].hash = 1 << 40
		row.use(1)
		if row[0].hash != used {
			t.Fatal("the entry that was used is not the first")
		}
	}
}

func TestUnknownNodes(t *testing.T) {
	var u unknownNodes
	now := sessfs.Boottime()
	u.add(7)
	if !u.has(7, now) || u.has(8, now) || u.has(7+uint64(len(u)), now) || u.has(7, now+int64(markPatience)+1e9) {
		t.Error("the truth is told of the wrong names")
	}
}

func TestLRU(t *testing.T) {
	l := newLRU[int, int](3)
	for i := range 4 {
		l.put(i, i)
		l.get(1)
	}
	l.put(1, 10)
	l.remove(3)
	got := make(map[int]int)
	l.each(func(k, v int) { got[k] = v })
	if _, ok := l.get(0); ok || len(got) != 2 || got[1] != 10 || got[2] != 2 || l.order.n != 2 {
		t.Errorf("kept %v", got)
	}
}
