package backend

import (
	"bytes"
	"strings"
	"testing"

	"sessfs"
)

// FuzzOpen: nothing but the envelope that was made opens, and only where it belongs.
func FuzzOpen(f *testing.F) {
	l := newSealing(&Seal{Keys: []*SealKey{sealKey(f, "k", nil)}}, "sessfs:")
	data := []byte("cart|s:9:\"marmalade\";")
	envelope := l.seal(recordKind, "here", data)
	f.Add(envelope, recordKind, "here")
	f.Add(envelope[:sealOverhead], recordKind, "here")
	f.Add(envelope, chunkKind, "here")
	f.Add(envelope, recordKind, "there")
	f.Add([]byte(sealMagic), documentKind, "")
	f.Fuzz(func(t *testing.T, b []byte, kind, at string) {
		plain, _, err := l.open(kind, at, b)
		if own := bytes.Equal(b, envelope) && kind == recordKind && at == "here"; own != (err == nil) || own && !bytes.Equal(plain, data) {
			t.Fatalf("%q opens as %q: %v", b, plain, err)
		}
	})
}

// FuzzSealed: what is sealed comes back, in its place alone, and no bit of it can be changed, whatever it is.
func FuzzSealed(f *testing.F) {
	old, key := sealKey(f, "old", nil), sealKey(f, "new", nil)
	before := newSealing(&Seal{Keys: []*SealKey{old}}, "p:")
	now := newSealing(&Seal{Keys: []*SealKey{key, old}}, "p:")
	f.Add([]byte{}, "p:~x", uint16(0))
	f.Add(sampleRecord([]byte("user|s:3:\"bob\";")), "p:~x", uint16(300))
	f.Add([]byte(sealMagic), "", uint16(1<<16-1))
	f.Fuzz(func(t *testing.T, data []byte, at string, bit uint16) {
		for _, by := range []*sealing{before, now} {
			b := by.seal(recordKind, at, data[:len(data)/2], data[len(data)/2:])
			plain, k, err := now.open(recordKind, at, b)
			if err != nil || k != by.Keys[0] || !bytes.Equal(plain, data) || len(b) != len(data)+sealOverhead {
				t.Fatalf("%q came back as %q: %v", data, plain, err)
			}
			if len(data) > 8 && bytes.Contains(b, data) {
				t.Fatalf("%q can be read in its envelope", data)
			}
			for _, other := range []struct{ kind, at string }{{chunkKind, at}, {documentKind, at}, {recordKind, at + "x"}, {recordKind, "x" + at}, {"", recordKind + at}} {
				if _, _, err := now.open(other.kind, other.at, b); err == nil {
					t.Fatalf("what is sealed for %q opens as a %s at %q", at, other.kind, other.at)
				}
			}
			n := int(bit) % (8 * len(b))
			b[n/8] ^= 1 << (n % 8)
			if plain, _, err := now.open(recordKind, at, b); err == nil {
				t.Fatalf("with bit %d changed it opens as %q", n, plain)
			}
		}
	})
}

// FuzzHashedKeys: whatever a cookie says, its keys on a server with hashed names are fit for a command, differ from each
// other, and stay what they are when they are looked up by what a listing shows.
func FuzzHashedKeys(f *testing.F) {
	l := newSealing(&Seal{Keys: []*SealKey{sealKey(f, "k", nil)}}, "p:")
	s := &server{cl: &Cluster{prefix: "p:", connections: 1}, hasher: l}
	for _, id := range []string{"sess_abc", "", "~x", "~" + strings.Repeat("0", 2*hashedSize), "a\r\nflush_all", "#x", "@x", "!lists", "\xff", strings.Repeat("x", 255)} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		p := s.cl.place(sessfs.ID(id))
		seen := make(map[string]bool)
		for _, logical := range []string{p.data, p.lock, p.mark()} {
			key := s.key(logical)
			if len(key) > maxKey || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r >= 0x7f }) || seen[key] || s.key(key) != key {
				t.Fatalf("%q has the key %q, which becomes %q", id, key, s.key(key))
			}
			if s.isRecordKey(key) != (logical == p.data) {
				t.Fatalf("%q of %q is taken for what it is not", key, id)
			}
			if len(id) > 2*hashedSize+8 && strings.Contains(key, id) {
				t.Fatalf("%q is in its key %q", id, key)
			}
			seen[key] = true
		}
		if l.recordAt(p.data) != l.recordAt(s.key(p.data)) {
			t.Fatalf("the copies of %q under both kinds of names are sealed for different places", id)
		}
	})
}

// FuzzParseSealKey: a key that is taken has its secrets from the text, and an error tells nothing of it.
func FuzzParseSealKey(f *testing.F) {
	for _, s := range []string{NewSealKey(nil), strings.Repeat("ab", 32), "", sealKeyWord, strings.Repeat("A", 43) + "="} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		k, err := ParseSealKey("k", text)
		if err == nil {
			if k.secret == [32]byte{} && !bytes.ContainsAny(text, "0A") {
				t.Fatal("a key of nothing")
			}
			return
		}
		if word := strings.TrimSpace(string(text)); len(word) > 16 && !strings.HasPrefix(word, sealKeyWord) && strings.Contains(err.Error(), word) {
			t.Fatalf("the error tells the text: %v", err)
		}
	})
}
