package backend

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"sessfs"
	"sessfs/backend/backendtest"
)

// sealKey makes a key; like another one, where that is given.
func sealKey(t testing.TB, name string, like *SealKey) *SealKey {
	t.Helper()
	k, err := ParseSealKey(name, []byte(NewSealKey(like)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// sealed is o with a new key.
func sealed(t testing.TB, o Options) Options {
	o.Seal = &Seal{Keys: []*SealKey{sealKey(t, "k1", nil)}}
	return o
}

// Sealing changes nothing of what the backend promises.
func TestConformanceSealed(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"meta":    func(o *Options) { o.Replicas = 1 },
		"copies":  func(o *Options) { o.Replicas = 2 },
		"classic": func(o *Options) { o.ForceClassic = true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			backendtest.Run(t, func(t *testing.T, lifetime time.Duration) sessfs.Backend {
				o := sealed(t, testOptions(startMemcached(t, "-m", "256").socket, startMemcached(t, "-m", "256").socket))
				o.Timeout, o.Lifetime = 5*time.Second, lifetime
				change(&o)
				return open(t, o)
			})
		})
	}
}

func TestSealKeys(t *testing.T) {
	one := sealKey(t, "one", nil)
	twin := &SealKey{Name: "two", secret: one.secret, names: one.names, mark: one.mark}
	for text, ok := range map[string]bool{
		NewSealKey(nil):                 true,
		strings.Repeat("0f", 32) + "\n": true,
		strings.Repeat("A", 43) + "=":   true,
		"":                              false,
		strings.Repeat("0f", 31):        false,
		strings.Repeat("0g", 32):        false,
		strings.TrimSuffix(NewSealKey(nil), "=\n"): false,
		sealKeyWord: false,
	} {
		if _, err := ParseSealKey("k", []byte(text)); (err == nil) != ok {
			t.Errorf("a text of %d characters: %v", len(text), err)
		} else if err != nil && len(text) > 40 && strings.Contains(err.Error(), text[20:40]) {
			t.Errorf("the error tells the key: %v", err)
		}
	}
	for want, keys := range map[string][]*SealKey{
		"":                      {one, sealKey(t, "two", one)},
		"no key":                {},
		"two keys are named":    {one, sealKey(t, "one", one)},
		"are the same":          {one, twin},
		"could not agree on lo": {one, sealKey(t, "two", nil)},
	} {
		err := (&Seal{Keys: keys}).Check()
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
	if hex := hex.EncodeToString(one.secret[:]); strings.Contains(fmt.Sprintf("%v %+v %#v", one, Seal{Keys: []*SealKey{one}}, *one), hex[:16]) {
		t.Error("a key shows its secret where it is printed")
	}
}

// dump is all that a server has: keys and values.
func dump(t testing.TB, m *memcached) map[string]string {
	t.Helper()
	c := open(t, testOptions(m.socket))
	if err := c.Check(context.Background()); err != nil {
		t.Fatal(err)
	}
	p, err := c.servers()[0].plain(deadlineIn(t, 10*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer p.nc.Close()
	var keys []string
	if err := p.send("lru_crawler metadump hash\r\n"); err != nil {
		t.Fatal(err)
	}
	for {
		l, err := p.line()
		if err != nil {
			t.Fatal(err)
		}
		if l == "END" {
			break
		}
		if e, ok := parseDump(l); ok {
			keys = append(keys, e.key)
		}
	}
	all := make(map[string]string)
	for _, k := range keys {
		v, err := p.value(k, 2<<20)
		if err != nil {
			t.Fatal(err)
		}
		all[k] = string(v)
	}
	return all
}

func deadlineIn(t testing.TB, d time.Duration) context.Context {
	ctx, end := context.WithTimeout(context.Background(), d)
	t.Cleanup(end)
	return ctx
}

// Neither ids nor data of sessions are on the servers, of small ones and large ones, locked and destroyed ones.
func TestSealedServersTellNothing(t *testing.T) {
	mem, o := servers(t, 2)
	o = sealed(t, o)
	c := open(t, o)
	ctx := context.Background()
	const id, other, large = "sess_0123456789abcdefghij", "sess_destroyedzyxwvutsrq", "sess_largelargelargelarge"
	mustCommit(t, c, id, &sessfs.Session{}, "cart|s:9:\"marmalade\";", nil)
	mustCommit(t, c, large, &sessfs.Session{}, strings.Repeat("marmalade", 300<<10), nil)
	mustCommit(t, c, other, &sessfs.Session{}, "marmalade", nil)
	lease, _, err := c.TryLock(ctx, id, sessfs.Holder{Host: "h", PID: 1}.WithToken())
	if err != nil || lease == nil {
		t.Fatal(lease, err)
	}
	if err := c.Mark(ctx, id, "token"); err != nil {
		t.Fatal(err)
	}
	if existed, _, err := c.Destroy(ctx, other); !existed || err != nil {
		t.Fatal(existed, err)
	}
	for _, m := range mem {
		all := dump(t, m)
		if len(all) < 5 {
			t.Errorf("only %d items are there", len(all))
		}
		for k, v := range all {
			for _, secret := range []string{id[5:], other[5:], large[5:], "marmalade", id[5:15], nameOf("", id)} {
				if strings.Contains(k, secret) || strings.Contains(v, secret) {
					t.Errorf("%q is in the item %.60q", secret, k)
				}
			}
		}
	}
	if s := mustRead(t, open(t, o), large); len(s.Data) != 9*300<<10 {
		t.Errorf("the large session has %d bytes", len(s.Data))
	}
}

// What was altered, put in another place, put back, or is not sealed at all, is an error each time, and counted.
func TestBrokenSeals(t *testing.T) {
	m := startMemcached(t)
	o := sealed(t, testOptions(m.socket))
	c := open(t, o)
	ctx := context.Background()
	const a, b, large = sessfs.ID("sess_a"), sessfs.ID("sess_b"), sessfs.ID("sess_large")
	key := func(id sessfs.ID) string { return c.servers()[0].key(c.place(id).data) }
	s := mustCommit(t, c, a, &sessfs.Session{}, "one", nil)
	mustCommit(t, c, b, &sessfs.Session{}, "two", nil)
	l := mustCommit(t, c, large, &sessfs.Session{}, strings.Repeat("x", 1200<<10), nil)
	old := dump(t, m)
	mustCommit(t, c, a, s, "newer", nil)
	now := dump(t, m)
	set := func(key, value string) {
		t.Helper()
		nc := open(t, testOptions(m.socket))
		if err := nc.Check(ctx); err != nil {
			t.Fatal(err)
		}
		w, err := nc.servers()[0].wire(nc.deadline())
		if err != nil {
			t.Fatal(err)
		}
		if out, err := w.set(0, []keyValue{{key, []byte(value)}}, 60, nc.deadline()); err != nil || out.code != codeStored {
			t.Fatal(out, err)
		}
		nc.Close()
	}
	failures := uint64(0)
	refused := func(what string, id sessfs.ID, reason string) {
		t.Helper()
		s, err := c.Read(ctx, id)
		if !errors.Is(err, sessfs.ErrDamaged) {
			t.Fatalf("%s: %+v, %v", what, s, err)
		}
		if lease, s, err := c.TryLock(ctx, id, sessfs.Holder{Host: "h"}.WithToken()); !errors.Is(err, sessfs.ErrDamaged) || lease != nil || s != nil {
			t.Fatalf("%s: %+v, %v", what, s, err)
		}
		sum := uint64(0)
		for r, n := range c.Seals().Refused {
			if sum += n; n > 0 && r == reason {
				reason = ""
			}
		}
		if sum <= failures || reason != "" {
			t.Errorf("%s is not counted: %v", what, c.Seals())
		}
		failures = sum
	}
	for bit := range 8 * len(now[key(a)]) {
		if bit%8 != bit/8%8 {
			continue
		}
		v := []byte(now[key(a)])
		v[bit/8] ^= 1 << (bit % 8)
		set(key(a), string(v))
		if s, err := c.Read(ctx, a); !errors.Is(err, sessfs.ErrDamaged) {
			t.Fatalf("bit %d: %+v, %v", bit, s, err)
		}
	}
	refused("an altered record", a, "altered")
	for n := range len(now[key(a)]) {
		set(key(a), now[key(a)][:n])
		if s, err := c.Read(ctx, a); !errors.Is(err, sessfs.ErrDamaged) {
			t.Fatalf("cut after %d bytes: %+v, %v", n, s, err)
		}
	}
	set(key(a), now[key(b)])
	refused("another session's record", a, "altered")
	set(key(a), old[key(a)])
	refused("an older record", a, "rolled_back")
	set(key(a), string((&record{id: a, state: sessfs.Live, version: sessfs.Version{Counter: 1 << 60}, sum: dataSum(nil)}).encode()))
	refused("a record without a seal", a, "plain")
	foreign := newSealing(sealed(t, o).Seal, o.Prefix)
	set(key(a), string(foreign.seal(recordKind, c.seal.Load().recordAt(key(a)), []byte("x"))))
	refused("a record with another seal", a, "key")
	chunks := chunkKeys(o.Prefix, l.Version.Nonce, 2)
	for _, k := range chunks {
		if now[k] == "" {
			t.Fatal("there are no such chunks")
		}
	}
	set(chunks[0], now[chunks[1]])
	if s, err := c.Read(ctx, large); !errors.Is(err, sessfs.ErrDamaged) {
		t.Errorf("chunks in another order: %+v, %v", s, err)
	}
	set(chunks[0], now[chunks[0]])
	mustRead(t, c, large)
	set(key(a), now[key(a)])
	if s := mustRead(t, c, a); string(s.Data) != "newer" {
		t.Errorf("with its own record again it is %q", s.Data)
	}
	// What was destroyed is not put back either.
	if _, _, err := c.Destroy(ctx, b); err != nil {
		t.Fatal(err)
	}
	set(key(b), now[key(b)])
	refused("a destroyed session", b, "rolled_back")
	if existed, _, err := c.Destroy(ctx, b); err != nil || !existed {
		t.Errorf("it cannot be destroyed again: %v, %v", existed, err)
	}
}

// The memory of an envelope serves the next one; but not where a server has not said that it has all of it: its connection
// may still be sending.
func TestEnvelopesAreUsedAgain(t *testing.T) {
	l := newSealing(&Seal{Keys: []*SealKey{sealKey(t, "k", nil)}}, "p")
	for n := 64 << 10; n > 40<<10; n -= 999 {
		data := bytes.Repeat([]byte{byte(n)}, n)
		b := l.seal(recordKind, "at", data)
		if plain, _, err := l.open(recordKind, "at", b); err != nil || !bytes.Equal(plain, data) {
			t.Fatalf("%d bytes: %v", n, err)
		}
		reuse(b)
	}
	cl := open(t, testOptions(startMemcached(t).socket))
	for name, c := range map[string]struct {
		code  code
		err   error
		loose bool
	}{"stored": {codeStored, nil, false}, "refused": {codeExists, nil, true}, "no answer": {codeStored, errTimeout, true}, "void": {codeStored, errVoid, true}} {
		m := &commit{operation: cl.operation(sid), parts: []*part{{s: cl.servers()[0]}}}
		m.sent(m.parts[0], stored{code: c.code}, c.err)
		if m.loose != c.loose {
			t.Errorf("%s: it may be used again: %v", name, !m.loose)
		}
	}
}
