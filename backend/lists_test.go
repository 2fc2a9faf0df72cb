package backend

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

const listLife = 24 * time.Minute

// listsNow is the present of these tests.
var listsNow = time.UnixMilli(1_800_000_000_000)

// ago is that long before listsNow, in unix milliseconds.
func ago(d time.Duration) int64 { return listsNow.Add(-d).UnixMilli() }

// named is a list of servers "NAME" or "NAME*WEIGHT".
func named(servers string, replicas int, used int64) list {
	l := list{Replicas: replicas, Used: used}
	for _, name := range strings.Fields(servers) {
		weight := 1
		if n, w, weighted := strings.Cut(name, "*"); weighted {
			name = n
			fmt.Sscan(w, &weight)
		}
		l.Servers = append(l.Servers, listServer{Name: name, Network: "tcp", Address: name + ".example:11211", Weight: weight})
	}
	return l
}

func TestListsAreEqualByNamesWeightsReplicas(t *testing.T) {
	moved := named("a b", 2, ago(0))
	moved.Servers[0].Address = "elsewhere.example:1"
	for _, tc := range []struct {
		a, b list
		want int // lists that are left of both
	}{
		{named("a b", 2, ago(0)), named("b a", 2, ago(time.Minute)), 1},
		{named("a b", 2, ago(0)), moved, 1},
		{named("a b", 2, ago(0)), named("a b", 1, ago(0)), 2},
		{named("a b", 2, ago(0)), named("a b*2", 2, ago(0)), 2},
		{named("a b", 2, ago(0)), named("a b c", 2, ago(0)), 2},
		{named("a b", 1, ago(0)), named("a", 1, ago(0)), 2},
	} {
		if h := newHistory([]list{tc.a, tc.b}); len(h) != tc.want {
			t.Errorf("%v and %v are %d lists", tc.a, tc.b, len(h))
		}
	}
}

func TestNewestUseBringsItsAddresses(t *testing.T) {
	older, newer := named("a b", 2, ago(time.Minute)), named("b a", 2, ago(0))
	older.Servers[0].Address, older.Moved = "old.example:1", ago(time.Hour)
	newer.Servers[1].Address = "new.example:1"
	h := history{older}.merge(history{newer})
	if len(h) != 1 || h[0].Servers[0].Address != "new.example:1" || h[0].Used != ago(0) || h[0].Moved != ago(time.Hour) {
		t.Errorf("got %+v", h)
	}
	if older.Servers[0].Name != "a" || newer.Servers[0].Name != "b" {
		t.Error("merging changed what it was given")
	}
}

func TestAlive(t *testing.T) {
	const whole = listLife + 2*listRefresh
	for _, tc := range []struct {
		what        string
		used, moved time.Duration // before now; moved 0: not
		alive, kept bool
	}{
		{"in use", 0, 0, true, true},
		{"within its lifetime", whole, 0, true, true},
		{"after its lifetime", whole + time.Millisecond, 0, false, false},
		{"moved", 10 * time.Minute, 5 * time.Minute, false, true},
		{"moved, and used again", 0, 5 * time.Minute, true, true},
		{"moved, and used again by a host whose clock is late", 6 * time.Minute, 5 * time.Minute, true, true},
		{"moved long ago", whole + time.Hour, whole, false, false},
		{"used by a host whose clock is early", -time.Minute, 0, true, true},
	} {
		l := named("a b", 2, ago(tc.used))
		if tc.moved != 0 {
			l.Moved = ago(tc.moved)
		}
		h := history{l}
		if got := len(h.alive(listsNow, listLife)) == 1; got != tc.alive {
			t.Errorf("%s: alive is %v", tc.what, got)
		}
		if got := len(h.expire(listsNow, listLife)) == 1; got != tc.kept {
			t.Errorf("%s: kept is %v", tc.what, got)
		}
	}
	h := newHistory([]list{named("a", 1, ago(3*time.Minute)), named("b", 1, ago(0)), named("c", 1, ago(time.Minute))}).alive(listsNow, listLife)
	if h[0].Servers[0].Name != "b" || h[1].Servers[0].Name != "c" || h[2].Servers[0].Name != "a" {
		t.Errorf("not the newest first: %v", h)
	}
}

func TestDrop(t *testing.T) {
	begun := listsNow.Add(-time.Minute)
	for used, want := range map[time.Duration]bool{0: false, listQuietFor: false, listQuietFor + time.Minute: false, listQuietFor + time.Minute + time.Second: true, 20 * time.Minute: true} {
		old, present := named("a b", 2, ago(used)), named("b c", 2, ago(0))
		before := newHistory([]list{old, present})
		h, dropped := before.drop(named("b a", 2, 0), begun, listsNow)
		if dropped != want {
			t.Errorf("used %v ago, searched for a minute: dropped is %v", used, dropped)
		}
		left := 2
		if want {
			left = 1
		}
		if got := h.alive(listsNow, listLife); len(got) != left {
			t.Errorf("used %v ago: alive are %v", used, got)
		}
		if len(before.alive(listsNow, listLife)) != 2 {
			t.Error("drop changed what it was given")
		}
		// A server that was away has it unmarked: it stays dropped.
		if got := h.merge(before).alive(listsNow, listLife); len(got) != left {
			t.Errorf("used %v ago, merged with a document from before: alive are %v", used, got)
		}
	}
	if _, ok := (history{}).drop(named("a", 1, 0), begun, listsNow); !ok {
		t.Error("a list that nobody knows could not be dropped")
	}
}

func TestMergeInto(t *testing.T) {
	own, old := named("b c", 2, 0), named("a b", 2, ago(10*time.Minute))
	doc := func(lists ...list) []byte { return newHistory(lists).encode() }
	used := func(l list, d time.Duration) list {
		l.Used = ago(d)
		return l
	}
	moved := old
	moved.Moved = ago(time.Minute)
	for _, tc := range []struct {
		what    string
		current []byte
		known   history
		stores  bool
		alive   int
	}{
		{"nothing there", nil, nil, true, 1},
		{"nothing there, but another list is known", nil, history{old}, true, 2},
		{"fresh", doc(used(own, 59*time.Second), old), nil, false, 2},
		{"fresh, of a host whose clock is early", doc(used(own, -time.Minute)), nil, false, 1},
		{"stale", doc(used(own, time.Minute)), nil, true, 1},
		{"another host's list only", doc(old), nil, true, 2},
		{"a list is known that the server lacks", doc(used(own, 0)), history{old}, true, 2},
		{"the server lacks the mark of a moved list", doc(used(own, 0), old), history{moved}, true, 1},
		{"we lack the mark of a moved list", doc(used(own, 0), moved), history{old}, false, 1},
		{"a list that has ended", doc(used(own, 0), used(old, time.Hour)), nil, false, 1},
		{"a list that has ended is known", doc(used(own, 0)), history{used(old, time.Hour)}, false, 1},
		{"from the future", doc(used(own, 0), used(old, -time.Hour)), nil, true, 2},
		{"our own, marked", doc(used(moved, 0), func() list { l := used(own, time.Minute); l.Moved = ago(0); return l }()), nil, true, 2},
	} {
		h, store, left, err := mergeInto(tc.current, tc.known, own, listsNow, listLife)
		if err != nil || (store != nil) != tc.stores || left != 0 {
			t.Errorf("%s: stores %q, leaves %d: %v", tc.what, store, left, err)
		}
		if got := h.alive(listsNow, listLife); len(got) != tc.alive || h.find(own).Used != ago(0) && h.find(own).Used != ago(-time.Minute) {
			t.Errorf("%s: alive are %v", tc.what, got)
		}
		if store == nil {
			continue
		}
		again, err := decodeHistory(store)
		if err != nil || !reflect.DeepEqual(again, h) {
			t.Errorf("%s: stored is\n%+v, known\n%+v: %v", tc.what, again, h, err)
		}
		if _, more, _, err := mergeInto(store, h, own, listsNow.Add(time.Second), listLife); more != nil || err != nil {
			t.Errorf("%s: a second later it stores again: %v", tc.what, err)
		}
	}
}

// A list from the future ends like others, even where the host with the wrong clock stores it anew everywhere once.
func TestFromTheFuture(t *testing.T) {
	own, future := named("b", 1, 0), named("a", 1, listsNow.Add(1000*time.Hour).UnixMilli())
	future.Moved = future.Used
	current := history{future}.encode()
	var known history
	for now := listsNow; now.Before(listsNow.Add(listLife + 2*listRefresh + listSkew + time.Minute)); now = now.Add(30 * time.Second) {
		h, store, _, err := mergeInto(current, known, own, now, listLife)
		if err != nil {
			t.Fatal(err)
		}
		if known = h; store != nil {
			current = store
		}
		if now == listsNow && len(h.alive(now, listLife)) != 2 {
			t.Fatalf("at first: %v", h)
		}
	}
	if len(known) != 1 {
		t.Errorf("it lives on: %v", known)
	}
	// A mark from the future does not take a list away that is in use.
	own.Moved = future.Moved
	h, _, _, err := mergeInto(history{own}.encode(), nil, own, listsNow, listLife)
	if err != nil || len(h.alive(listsNow, listLife)) != 1 {
		t.Errorf("our own list is not alive: %v %v", h, err)
	}
}

func TestTooMuchForOneDocument(t *testing.T) {
	own := named("own", 1, 0)
	var known history
	for i := range 20 {
		l := named(fmt.Sprintf("s%d", i), 1, ago(time.Duration(i)*time.Minute))
		if i < 3 {
			l.Used, l.Moved = ago(10*time.Minute), ago(0) // not alive: these go first
		}
		known = append(known, l)
	}
	h, store, left, err := mergeInto(nil, known, own, listsNow, listLife)
	stored, derr := decodeHistory(store)
	if err != nil || derr != nil || len(stored) != maxLists || left != 2 || len(h) != 21 {
		t.Fatalf("%d of %d are stored, %d that are alive are not: %v %v", len(stored), len(h), left, err, derr)
	}
	for _, l := range []list{own, known[3], known[17]} {
		if stored.find(l) == nil {
			t.Errorf("%v is not stored", l.Servers)
		}
	}
	for _, l := range []list{known[0], known[18], known[19]} {
		if stored.find(l) != nil {
			t.Errorf("%v is stored", l.Servers)
		}
	}
	// In a host's memory there is more room, but not for whatever servers say.
	for i := range 100 {
		known = append(known, named(fmt.Sprintf("t%d", i), 1, ago(time.Minute)))
	}
	if h, _, _, _ = mergeInto(nil, known, own, listsNow, listLife); len(h) != maxKnownLists || h.find(own) == nil {
		t.Errorf("a host keeps %d lists in mind", len(h))
	}
	// By its bytes.
	long := func(name string, used int64) list {
		var all []string
		for i := range 200 {
			all = append(all, fmt.Sprintf("%s%0100d", name, i))
		}
		l := named(strings.Join(all, " "), 1, used)
		for i := range l.Servers {
			l.Servers[i].Address = fmt.Sprintf("h%d:1", i)
		}
		return l
	}
	known = history{long("x", ago(time.Minute)), long("y", ago(2*time.Minute)), long("z", ago(3*time.Minute))}
	_, store, left, err = mergeInto(nil, known, own, listsNow, listLife)
	stored, derr = decodeHistory(store)
	if err != nil || derr != nil || left == 0 || stored.find(own) == nil || len(store) > maxListsSize {
		t.Errorf("%d bytes are stored, %d lists that are alive are not: %v %v", len(store), left, err, derr)
	}
}

func TestDecodeHistoryRefuses(t *testing.T) {
	good := func() list { return named("a b", 2, ago(0)) }
	with := func(change func(l *list)) string {
		l := good()
		change(&l)
		return string(history{l}.encode())
	}
	if _, err := decodeHistory([]byte(with(func(*list) {}))); err != nil {
		t.Fatal(err)
	}
	many := make([]list, maxLists+1)
	for i := range many {
		many[i] = named(fmt.Sprintf("s%d", i), 1, 0)
	}
	servers := func(n int) func(l *list) {
		return func(l *list) {
			l.Servers = nil
			for i := range n {
				l.Servers = append(l.Servers, listServer{fmt.Sprint(i), "tcp", fmt.Sprintf("h:%d", i+1), 1})
			}
		}
	}
	address := func(network, address string) func(l *list) {
		return func(l *list) { l.Servers[0].Network, l.Servers[0].Address = network, address }
	}
	for what, doc := range map[string]string{
		"empty":                    "",
		"no JSON":                  "lists",
		"cut":                      with(func(*list) {})[:50],
		"more behind it":           with(func(*list) {}) + "{}",
		"a list":                   "[]",
		"another format":           `{"format":2,"lists":[]}`,
		"no format":                `{"lists":[]}`,
		"too large":                with(func(*list) {}) + strings.Repeat(" ", maxListsSize),
		"not UTF-8":                strings.Replace(with(func(*list) {}), `"a"`, "\"\xff\"", 1),
		"too many lists":           string(history(many).encode()),
		"no servers":               with(servers(0)),
		"too many servers":         with(servers(maxListServers + 1)),
		"no replicas":              with(func(l *list) { l.Replicas = 0 }),
		"more replicas than that":  with(func(l *list) { l.Replicas = 3 }),
		"six replicas":             with(func(l *list) { servers(10)(l); l.Replicas = 6 }),
		"used before 1970":         with(func(l *list) { l.Used = -1 }),
		"used at no time":          with(func(l *list) { l.Used = 1 << 62 }),
		"moved before 1970":        with(func(l *list) { l.Moved = -1 }),
		"a time with a fraction":   strings.Replace(with(func(*list) {}), `"used":1`, `"used":0.1`, 1),
		"a name twice":             with(func(l *list) { l.Servers[1].Name = "a" }),
		"an address twice":         with(func(l *list) { l.Servers[1].Address = l.Servers[0].Address }),
		"no name":                  with(func(l *list) { l.Servers[0].Name = "" }),
		"a name of two lines":      with(func(l *list) { l.Servers[0].Name = "a\nb" }),
		"a name with spaces ahead": with(func(l *list) { l.Servers[0].Name = " a" }),
		"a long name":              with(func(l *list) { l.Servers[0].Name = strings.Repeat("x", 256) }),
		"no weight":                with(func(l *list) { l.Servers[0].Weight = 0 }),
		"a large weight":           with(func(l *list) { l.Servers[0].Weight = 1001 }),
		"another network":          with(address("udp", "a:1")),
		"no network":               with(address("", "a:1")),
		"no port":                  with(address("tcp", "a")),
		"port 0":                   with(address("tcp", "a:0")),
		"a port in another way":    with(address("tcp", "a:01")),
		"a large port":             with(address("tcp", "a:65536")),
		"no host":                  with(address("tcp", ":1")),
		"a host with a space":      with(address("tcp", "a b:1")),
		"a host in capitals":       with(address("tcp", "A:1")),
		"an IPv6 in another way":   with(address("tcp", "[0:0::1]:1")),
		"a long host":              with(address("tcp", strings.Repeat("a.", 127)+":1")),
		"a relative socket":        with(address("unix", "run/m")),
		"a socket in another way":  with(address("unix", "/run//m")),
		"a long socket":            with(address("unix", "/"+strings.Repeat("x", 107))),
		"the root as a socket":     with(address("unix", "/")),
	} {
		h, err := decodeHistory([]byte(doc))
		if err == nil {
			t.Errorf("%s was taken: %v", what, h)
		}
		// It is replaced by what is known, and nothing is lost.
		known := history{named("known", 1, ago(time.Minute))}
		h, store, _, err := mergeInto([]byte(doc), known, good(), listsNow, listLife)
		stored, derr := decodeHistory(store)
		if err == nil || derr != nil || len(h) != 2 || len(stored) != 2 {
			t.Errorf("%s: error %v, known %v, stored %v %v", what, err, h, stored, derr)
		}
	}
	for _, a := range [][2]string{{"unix", "/run/m.sock"}, {"tcp", "[fd00::1]:1"}, {"tcp", "10.0.0.1:65535"}, {"tcp", "a-b.c_d.:1"}} {
		if _, err := decodeHistory([]byte(with(address(a[0], a[1])))); err != nil {
			t.Errorf("%s %s: %v", a[0], a[1], err)
		}
	}
}
