package backend

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var hostsNow = time.Unix(1_800_000_000, 0)

func hostNamed(name string, seen time.Time) HostRecord {
	return HostRecord{ID: "id" + name, Host: name, Mountpoint: "/var/lib/php/sessions", Version: "1", Prefix: "sessfs:", List: "abc", Addresses: "def",
		Servers: 2, Replicas: 2, Quorum: "any", Lifetime: 1440, MaxSize: 16 << 20, Lease: 10, Owner: "keep", Seen: seen.Unix()}
}

// register is a document as a host would have left it.
func register(hosts ...HostRecord) []byte { return encodeHosts(hosts) }

func hostNames(t *testing.T, document []byte) string {
	t.Helper()
	hosts, err := decodeHosts(document)
	if err != nil {
		t.Fatalf("%v in %s", err, document)
	}
	var names []string
	for _, h := range hosts {
		names = append(names, fmt.Sprintf("%s@%d", h.Host, h.Seen-hostsNow.Unix()))
	}
	return strings.Join(names, " ")
}

func TestHostNotesItself(t *testing.T) {
	early, late := hostsNow.Add(-time.Minute), hostsNow.Add(-hostsGone-time.Second)
	for _, tc := range []struct {
		name    string
		current []byte
		want    string
		wrong   string // in the error
	}{
		{"nothing there", nil, "me@0", ""},
		{"another host", register(hostNamed("web2", early)), "me@0 web2@-60", ""},
		{"itself", register(hostNamed("me", early)), "me@0", ""},
		{"a host that is gone", register(hostNamed("web2", late)), "me@0", ""},
		{"from a future that is none", register(hostNamed("web2", hostsNow.Add(hostsAhead+time.Second))), "me@0", ""},
		{"the server's clock was set back a little", register(hostNamed("web2", hostsNow.Add(5*time.Second))), "me@0 web2@5", ""},
		{"no JSON", []byte("garbage"), "me@0", "invalid character"},
		{"no UTF-8", []byte("\xff"), "me@0", "not UTF-8"},
		{"another format", []byte(`{"format":2}`), "me@0", "the format 2"},
		{"too long", make([]byte, maxHostsSize+1), "me@0", "bytes"},
		{"a host twice", register(hostNamed("web2", early), hostNamed("web2", early)), "me@0 web2@-60", "twice"},
		{"one record is damaged", register(hostNamed("web2", early), HostRecord{ID: "x"}, hostNamed("web3", early)), "me@0 web2@-60 web3@-60", "record 2"},
	} {
		store, err := mergeHosts(tc.current, hostNamed("me", time.Time{}), hostsNow, maxHostsSize)
		if got := hostNames(t, store); got != tc.want {
			t.Errorf("%s: the register is %q, not %q", tc.name, got, tc.want)
		}
		if (err == nil) != (tc.wrong == "") || err != nil && !strings.Contains(err.Error(), tc.wrong) {
			t.Errorf("%s: the error is %v", tc.name, err)
		}
	}
}

func TestHostRecordsAreNotBelieved(t *testing.T) {
	for name, damage := range map[string]func(*HostRecord){
		"a control character in the name": func(h *HostRecord) { h.Host = "a\x1b[2J" },
		"a long name":                     func(h *HostRecord) { h.Host = strings.Repeat("a", 256) },
		"no name":                         func(h *HostRecord) { h.Host = "" },
		"an id with a line's end":         func(h *HostRecord) { h.ID = "a\nb" },
		"a prefix that is none":           func(h *HostRecord) { h.Prefix = "a b" },
		"a relative mount point":          func(h *HostRecord) { h.Mountpoint = "x" },
		"no servers":                      func(h *HostRecord) { h.Servers = 0 },
		"many replicas":                   func(h *HostRecord) { h.Replicas = 99 },
		"a negative lifetime":             func(h *HostRecord) { h.Lifetime = -1 },
		"a lifetime of ages":              func(h *HostRecord) { h.Lifetime = 1 << 62 },
		"a clock that is none":            func(h *HostRecord) { h.Ahead = -1 << 62 },
		"a version with a colour":         func(h *HostRecord) { h.Version = "\x1b[31m" },
	} {
		h := hostNamed("web2", hostsNow)
		if err := h.check(); err != nil {
			t.Fatal(err)
		}
		damage(&h)
		if h.check() == nil {
			t.Errorf("%s is taken for a record", name)
		}
	}
}

// However many hosts there are, the document is bounded, has the host itself, and decodes.
func TestRegisterIsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(2<<10, maxHostsSize).Draw(t, "size")
		var document []byte
		for i := range rapid.IntRange(1, 40).Draw(t, "hosts") {
			own := hostNamed(fmt.Sprintf("web%d", i), time.Time{})
			own.Mountpoint = "/" + strings.Repeat("m", rapid.IntRange(1, 250).Draw(t, "length"))
			store, err := mergeHosts(document, own, hostsNow.Add(time.Duration(i)*time.Second), size)
			if err != nil {
				t.Fatal(err)
			}
			hosts, err := decodeHosts(store)
			if err != nil || len(store) > size || len(hosts) == 0 || hosts[0].Host != own.Host {
				t.Fatalf("%d bytes of %d, %d hosts, %v", len(store), size, len(hosts), err)
			}
			for j := 1; j < len(hosts); j++ { // those that were left out are the oldest
				if hosts[j].Seen != hosts[j-1].Seen-1 {
					t.Fatalf("host %d of %d is from %d, the one before from %d", j, len(hosts), hosts[j].Seen, hosts[j-1].Seen)
				}
			}
			document = store
		}
	})
}

func TestWhatAHostTellsIsARecord(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := hostNamed("web", hostsNow)
		h.Host, h.Mountpoint, h.Version, h.Owner = rapid.String().Draw(t, "host"), "/"+rapid.String().Draw(t, "mountpoint"), rapid.String().Draw(t, "version"), rapid.String().Draw(t, "owner")
		h.fit()
		if err := h.check(); err != nil {
			t.Fatal(err)
		}
	})
}
