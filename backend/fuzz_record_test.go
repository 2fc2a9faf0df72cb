package backend

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"sessfs"
)

// mended is b with the checksums that it should have, so that what stands behind them is tried too.
func mended(b []byte) []byte {
	if len(b) < headerSize || len(b) < prefixOf(b) {
		return b
	}
	b = bytes.Clone(b)
	copy(b, recordMagic)
	b[4] = recordFormat
	if binary.BigEndian.Uint32(b[36:]) == 0 {
		binary.BigEndian.PutUint32(b[72:], dataSum(b[prefixOf(b):]))
	}
	binary.BigEndian.PutUint32(b[80:], headerSum(b))
	return b
}

// FuzzDecodeRecord: what is taken is taken again when it is written out, byte by byte the same but for what means nothing; its
// id can be a file's name, and its parts make up its length.
func FuzzDecodeRecord(f *testing.F) {
	f.Add(sampleRecord(nil), false)
	f.Add(sampleRecord([]byte("data")), true)
	for _, r := range []record{{id: "x", state: sessfs.Destroyed}, {id: "x", state: sessfs.Live, length: 5000, chunkSize: 1000, where: []uint32{1, 2}},
		{id: "../x", state: sessfs.Live}, {id: "a\x00b", state: sessfs.Live}, {state: sessfs.Live}, {id: sessfs.ID(strings.Repeat("x", 256)), state: sessfs.Live},
		{id: "x", state: sessfs.Live, length: maxData, chunkSize: minChunk}, {id: "x", state: sessfs.Live, length: 256 * maxChunks, chunkSize: 256}} {
		f.Add(r.encode(), true)
	}
	f.Fuzz(func(t *testing.T, b []byte, mend bool) {
		if mend {
			b = mended(b)
		}
		r, err := decodeRecord(b, true)
		if err != nil {
			if r != nil || len(err.Error()) > 200 {
				t.Fatalf("%+v, %v", r, err)
			}
			return
		}
		if r.id == "" || len(r.id) > 255 || strings.ContainsAny(string(r.id), "/\x00") {
			t.Fatalf("the id %q", r.id)
		}
		out := append(r.encode(), r.data...)
		again, err := decodeRecord(out, true)
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Fatalf("%+v was written and read as %+v, %v", r, again, err)
		}
		plain := r.state == sessfs.Live && binary.BigEndian.Uint32(b[32:]) == r.attr.Mode && b[77]|b[78]|b[79] == 0
		if plain && !bytes.Equal(out, b) {
			t.Fatalf("%x became %x", b, out)
		}
		if r.chunks() > maxChunks || len(r.data) > len(b) || r.chunkSize == 0 && len(r.data) != r.length || r.attr.Mode > 0o7777 {
			t.Fatalf("%d chunks, %d of %d bytes, mode %o", r.chunks(), len(r.data), r.length, r.attr.Mode)
		}
		sum := 0
		for i := range r.chunks() {
			if r.chunkLen(i) < 1 || r.chunkLen(i) > r.chunkSize {
				t.Fatalf("chunk %d of %d has %d bytes", i, r.chunks(), r.chunkLen(i))
			}
			sum += r.chunkLen(i)
		}
		if r.chunks() > 0 && sum != r.length {
			t.Fatalf("%d bytes in the chunks, %d in the record", sum, r.length)
		}
	})
}

// FuzzAssemble: the data of a manifest are those that were stored, whole, or there is a reason.
func FuzzAssemble(f *testing.F) {
	f.Add([]byte(strings.Repeat("data", 200)), uint16(0), uint8(0), uint16(0))
	f.Add([]byte(strings.Repeat("data", 200)), uint16(1), uint8(1), uint16(0))
	f.Add([]byte(strings.Repeat("data", 200)), uint16(2), uint8(2), uint16(3))
	f.Add([]byte{}, uint16(0), uint8(0), uint16(0))
	f.Fuzz(func(t *testing.T, data []byte, chunk uint16, what uint8, at uint16) {
		r := &record{id: "x", state: sessfs.Live, length: len(data), chunkSize: minChunk + int(chunk)%1000, sum: dataSum(data)}
		items := make([]item, r.chunks())
		for i := range items {
			begin := i * r.chunkSize
			items[i] = item{found: true, value: bytes.Clone(data[begin : begin+r.chunkLen(i)])}
		}
		if n := len(items); n > 0 {
			it := &items[int(at)%n]
			switch what % 6 {
			case 1:
				*it = item{}
			case 2:
				it.value = it.value[:len(it.value)-1]
			case 3:
				it.value = append(it.value, 0)
			case 4:
				it.value[int(at)%len(it.value)] ^= 1 << (at % 8)
			case 5:
				items[0], *it = *it, items[0]
			}
		}
		got, why := r.assemble(items)
		if (why == "") != bytes.Equal(got, data) || why != "" && got != nil {
			t.Fatalf("%d bytes of %d: %s", len(got), len(data), why)
		}
		if what%6 == 0 && why != "" || what%6 >= 1 && what%6 <= 4 && len(items) > 0 && why == "" {
			t.Fatalf("damage of kind %d: %q", what%6, why)
		}
	})
}

// FuzzLockValue: whatever stands in a lock, its holder can be told, and is the same when it is written again.
func FuzzLockValue(f *testing.F) {
	f.Add(encodeLock("t", sessfs.Holder{Host: "h", Boot: "b", PID: 3, Since: time.UnixMilli(1763900000123), Keep: time.Second}))
	for _, s := range []string{"", "sessfs1 t 1 1 =h =b", "sessfs1 t 1 1 =%1b%5b2J =", "sessfs1 t 1 9223372036854775807 =h =b", "sessfs1 t\r\n 1 1 =h =b",
		"sessfs1 t 1 1 =h =b 4294967296", "sessfs1 t 1 1 = =" + strings.Repeat("x", 5000)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		token, h := decodeLock([]byte(s))
		if token == "" {
			if h != (sessfs.Holder{Host: "unknown"}) {
				t.Fatalf("%+v without a token", h)
			}
			return
		}
		if !plain(token) || h.Keep < 0 || !ownLock(item{found: true, value: []byte(s)}, token) {
			t.Fatalf("the token %q, %+v", token, h)
		}
		if _, err := json.Marshal(h); err != nil {
			t.Fatalf("a holder that cannot be told: %v", err)
		}
		if len(h.Host) > 255 || len(h.Boot) > 255 {
			return // encodeLock cuts them
		}
		want := h
		if want.Since.IsZero() {
			want.Since = time.UnixMilli(want.Since.UnixMilli())
		}
		again, got := decodeLock([]byte(encodeLock(token, h)))
		if again != token || got != want {
			t.Fatalf("%q %+v came back as %q %+v", token, h, again, got)
		}
	})
}

// FuzzHistory: a document of lists is refused, or means the same when it is written again; whatever is there, a host's own
// list is in what it stores, which is a document with the limits of one.
func FuzzHistory(f *testing.F) {
	f.Add(history{named("a b*2", 2, ago(time.Minute)), named("a", 1, ago(time.Hour))}.encode())
	for _, s := range []string{"", "{}", `{"format":1,"lists":[{"servers":[],"replicas":1}]}`, `{"format":1,"lists":null}`, `{"format":1,"lists":[{"servers":[{"name":"a","network":"tcp","address":"a:1","weight":1}],"replicas":1,"used":9007199254740992}]}`,
		`{"format":1,"lists":[{"servers":[{"name":"<<<","network":"unix","address":"/x","weight":1000}],"replicas":1,"used":1,"moved":2}]}`, `{"FORMAT":1}`} {
		f.Add([]byte(s))
	}
	own := named("a b c", 2, 0)
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeHistory(b)
		if err == nil {
			if len(h) > maxLists {
				t.Fatalf("%d lists", len(h))
			}
			for i := range h {
				if err := h[i].check(); err != nil {
					t.Fatal(err)
				}
			}
			if out := h.encode(); len(out) <= maxListsSize {
				if again, err := decodeHistory(out); err != nil || !reflect.DeepEqual(again, h) {
					t.Fatalf("%s became %s, %v", b, again.encode(), err)
				}
			}
		}
		merged, store, _, _ := mergeInto(b, nil, own, listsNow, listLife)
		if l := merged.find(own); l == nil || !l.alive(listsNow, listLife) || len(merged) > maxKnownLists {
			t.Fatalf("%d lists are known, its own is %+v", len(merged), l)
		}
		if store == nil {
			return
		}
		stored, err := decodeHistory(store)
		if err != nil || stored.find(own) == nil {
			t.Fatalf("%s: %v", store, err)
		}
		if _, more, _, err := mergeInto(store, merged, own, listsNow, listLife); err != nil || more != nil {
			t.Fatalf("what was stored is stored again as %s, %v", more, err)
		}
	})
}

// FuzzHosts: the same for the register of hosts, whose good records are kept.
func FuzzHosts(f *testing.F) {
	f.Add(register(hostNamed("web1", hostsNow), hostNamed("web2", hostsNow)))
	for _, s := range []string{"", "{}", `{"format":1}`, `{"format":1,"hosts":[{}]}`, `{"format":1,"hosts":[{"id":"a","id":"b"}]}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		const size = 4096
		hosts, _ := decodeHosts(b)
		ids := make(map[string]bool)
		for i := range hosts {
			if err := hosts[i].check(); err != nil || ids[hosts[i].ID] {
				t.Fatalf("%+v: %v", hosts[i], err)
			}
			ids[hosts[i].ID] = true
		}
		if out := encodeHosts(hosts); len(out) <= maxHostsSize {
			if again, err := decodeHosts(out); err != nil || !slices.Equal(again, hosts) {
				t.Fatalf("%+v became %+v, %v", hosts, again, err)
			}
		}
		store, _ := mergeHosts(b, hostNamed("me", hostsNow), hostsNow, size)
		kept, err := decodeHosts(store)
		if err != nil || len(store) > size || len(kept) == 0 || kept[0].Host != "me" {
			t.Fatalf("%s: %v", store, err)
		}
	})
}

// FuzzKeys: whatever a cookie says, its keys are fit for a command, tell the record's from the others, and are those that a
// dump shows.
func FuzzKeys(f *testing.F) {
	for _, s := range []string{"sess_abc", "", "a\r\nflush_all", "#x", "@x", "!lists", "sess_%41", strings.Repeat("x", 255), "\xff"} {
		f.Add("sessfs:", s)
	}
	f.Fuzz(func(t *testing.T, prefix, id string) {
		if checkPrefix(prefix) != nil {
			return
		}
		name := nameOf(prefix, sessfs.ID(id))
		record := prefix + name
		s := &server{cl: &Cluster{prefix: prefix}}
		for _, key := range []string{record, prefix + lockMark + name, prefix + waitMark + name, chunkKey(prefix, 1<<64-1, maxChunks), prefix + listsMark} {
			if len(key) > maxKey || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
				t.Fatalf("%q has the key %q", id, key)
			}
			if s.isRecordKey(key) != (key == record) {
				t.Fatalf("%q of %q is taken for what it is not", key, id)
			}
		}
		if strings.HasPrefix(id, hashMark) && name == id {
			t.Fatalf("%q stands for itself", id)
		}
		if e, ok := parseDump("key=" + url.QueryEscape(record)); !ok || e.key != record && !strings.Contains(record, "+") {
			t.Fatalf("a dump shows %q as %q", record, e.key)
		}
	})
}
