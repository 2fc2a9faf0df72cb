package backend

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"sessfs"
)

func TestChoiceIsBalancedAndMovesLittle(t *testing.T) {
	nodes := []node{{"a", 1}, {"b", 1}, {"c", 2}}
	const n = 20000
	got := map[int]int{}
	moved, taken := 0, 0
	for i := range n {
		key := fmt.Sprintf("sess_%d", i)
		at := rank(nil, nodes, key, 1)[0]
		got[at]++
		if with := rank(nil, append(nodes[:3:3], node{"d", 1}), key, 1)[0]; with == 3 {
			taken++
		} else if with != at {
			moved++
		}
		if without := rank(nil, nodes[:2], key, 1)[0]; at != 2 && without != at {
			moved++
		}
	}
	if moved != 0 {
		t.Errorf("%d keys moved between servers that stayed", moved)
	}
	for i, want := range []float64{0.25, 0.25, 0.5} {
		if share := float64(got[i]) / n; math.Abs(share-want) > 0.02 {
			t.Errorf("server %d has %.3f of the keys, want %.2f", i, share, want)
		}
	}
	if share := float64(taken) / n; math.Abs(share-0.2) > 0.02 {
		t.Errorf("a new server of weight 1 beside 4 took %.3f", share)
	}
}

func TestKeysAreFitForTheProtocol(t *testing.T) {
	seen := map[string]sessfs.ID{}
	prefix := strings.Repeat("p", maxPrefix)
	ids := []sessfs.ID{"", "sess_x", "sess_x ", "sess_X", "a\r\nflush_all", sessfs.ID(strings.Repeat("x", 255)), sessfs.ID(strings.Repeat("x", 121)), sessfs.ID(strings.Repeat("x", 122))}
	for b := 1; b < 256; b++ {
		ids = append(ids, sessfs.ID([]byte{byte(b)}))
	}
	s := &server{cl: &Cluster{prefix: prefix}}
	for _, id := range ids {
		name := nameOf(prefix, id)
		for _, key := range []string{prefix + name, prefix + lockMark + name} {
			if len(key) > maxKey || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
				t.Errorf("%q has the key %q", id, key)
			}
			if other, ok := seen[key]; ok && other != id {
				t.Errorf("%q and %q share the key %q", id, other, key)
			}
			seen[key] = id
		}
		if !s.isRecordKey(prefix+name) || s.isRecordKey(prefix+lockMark+name) {
			t.Errorf("%q: a record's key is not told from a lock's", name)
		}
	}
	if k := chunkKey(prefix, math.MaxUint64, maxChunks); len(k) > maxKey || s.isRecordKey(k) {
		t.Errorf("chunk key %q", k)
	}
}

func TestExptime(t *testing.T) {
	for d, want := range map[time.Duration]int64{0: 1, time.Millisecond: 1, time.Second: 1, 1001 * time.Millisecond: 2, 24 * time.Minute: 1440} {
		if got := exptime(d); got != want {
			t.Errorf("%v: %d, want %d", d, got, want)
		}
	}
	for _, d := range []time.Duration{30 * 24 * time.Hour, 30*24*time.Hour + time.Second, 365 * 24 * time.Hour} {
		if left := exptime(d) - time.Now().Unix() - int64(d/time.Second); left < -1 || left > 1 {
			t.Errorf("%v: off by %d s", d, left)
		}
	}
}

func TestLockValue(t *testing.T) {
	for _, h := range []sessfs.Holder{{}, {Host: "web 1\r\n%", Boot: "b-o", PID: 1<<32 - 1, Since: time.UnixMilli(1763900000123)}} {
		if h.Since.IsZero() {
			h.Since = time.UnixMilli(0)
		}
		token, got := decodeLock([]byte(encodeLock("t0ken", h)))
		if token != "t0ken" || got != h {
			t.Errorf("%+v came back as %q %+v", h, token, got)
		}
	}
	for _, v := range []string{"", "x", "sessfs1", "sessfs1 t", "sessfs1 t 1 1 = %", "sessfs1 t x 1 = =", "sessfs1  1 1 = =", strings.Repeat(" ", 9000)} {
		if _, h := decodeLock([]byte(v)); h.Host != "unknown" {
			t.Errorf("%.20q: holder %+v", v, h)
		}
	}
}

func sampleRecord(data []byte) []byte {
	r := record{id: "sess_abc", state: sessfs.Live, version: sessfs.Version{Counter: 5, Nonce: 6},
		attr: sessfs.Attr{UID: 1, GID: 2, Mode: 0o600, Atime: 1, Mtime: -2, Ctime: 3}, length: len(data), sum: dataSum(data)}
	return append(r.encode(), data...)
}

func TestAnyDamageOfARecordIsFound(t *testing.T) {
	good := sampleRecord([]byte("user|s:3:\"bob\";"))
	r, err := decodeRecord(good, true)
	if err != nil || r.id != "sess_abc" || string(r.data) != "user|s:3:\"bob\";" || r.attr.Mtime != -2 {
		t.Fatalf("%+v %v", r, err)
	}
	for n := range good {
		if _, err := decodeRecord(good[:n], true); err == nil {
			t.Errorf("cut to %d bytes it is still a record", n)
		}
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[n] ^= 1 << bit
			if _, err := decodeRecord(bad, true); err == nil {
				t.Errorf("bit %d of byte %d is not covered", bit, n)
			}
		}
	}
	if _, err := decodeRecord(append(bytes.Clone(good), 0), true); err == nil {
		t.Error("a byte more is not found")
	}
}

func TestNewRefusesBadOptions(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"no servers":    func(o *Options) { o.Servers = nil },
		"two names":     func(o *Options) { o.Servers = append(o.Servers, o.Servers[0]) },
		"weight":        func(o *Options) { o.Servers[0].Weight = -1 },
		"address":       func(o *Options) { o.Servers[0].Address = "" },
		"prefix space":  func(o *Options) { o.Prefix = "a b" },
		"prefix length": func(o *Options) { o.Prefix = strings.Repeat("x", 200) },
		"connections":   func(o *Options) { o.Connections = -1 },
	} {
		o := testOptions("/nowhere")
		change(&o)
		if c, err := New(o); err == nil {
			c.Close()
			t.Errorf("%s: no error", name)
		}
	}
}

func TestLengthGuard(t *testing.T) {
	values := "VALUE k 0 5 1\r\nVALUE\r\nVALUE j 0 0 1\r\n\r\nEND\r\n"
	for step := 1; step <= len(values); step++ {
		g := lengthGuard{limit: 5}
		for _, answer := range []string{values, "STORED\r\n", "END\r\n"} {
			g.asked()
			for b := []byte(answer); len(b) > 0; {
				n := min(step, len(b))
				if err := g.see(b[:n]); err != nil {
					t.Fatalf("pieces of %d: %v", step, err)
				}
				b = b[n:]
			}
		}
	}
	for _, bad := range []string{"VALUE k 0 6 1\r\n", "VALUE k 0 -1 1\r\n", "VALUE k 0 4294967295 1\r\n", "VALUE k 0 x\r\n", "VALUE k\t7 0 4294967295 1\r\n", "VALUE  k 0 1 1\r\n",
		"VALUE " + strings.Repeat("k", guardLine) + " 0 1 1\r\n", "END\r\nSTORED\r\n", "STORED\r\nEND\r\n"} {
		g := lengthGuard{limit: 5}
		g.asked()
		if err := g.see([]byte(bad)); err == nil {
			t.Errorf("%.40q is let through", bad)
		}
	}
	endless := lengthGuard{limit: 5}
	endless.asked()
	for n := 0; endless.see([]byte("VALUE k 0 0 1\r\n\r\n")) == nil; n++ {
		if n > 1<<20 {
			t.Fatal("values without end are let through")
		}
	}
}
