package backend

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"sessfs"
)

func TestAnItemThatMovedIsNoConflict(t *testing.T) {
	both(t, func(t *testing.T, o Options, m *memcached) {
		c := open(t, o)
		l, s := mustLock(t, c, sid)
		mustCommit(t, c, sid, s, "one", l)
		s = mustRead(t, c, sid)
		p := c.place(sid)
		move := func(key string) {
			w, _ := c.servers()[0].wire(c.deadline())
			items, _, err := w.get(0, []string{key}, c.deadline())
			if err != nil || !items[0].found {
				t.Fatal(err)
			}
			if a := m.raw("set %s 0 60 %d\r\n%s\r\n", key, len(items[0].value), items[0].value); a != "STORED\r\n" {
				t.Fatal(a)
			}
		}
		move(p.data)
		move(p.lock)
		s = mustCommit(t, c, sid, s, "two", l)
		c.Unlock(l)
		until(t, "the lock is free", func() bool { h, _ := c.Locked(ctx, sid); return h == nil })
		if got := mustRead(t, c, sid); got.Version != s.Version {
			t.Fatalf("%+v", got)
		}
	})
}

func TestDamagedRecords(t *testing.T) {
	both(t, func(t *testing.T, o Options, m *memcached) {
		c := open(t, o)
		p := c.place(sid)
		mustCommit(t, c, "sess_other", &sessfs.Session{}, "secret", nil)
		w, _ := c.servers()[0].wire(c.deadline())
		items, _, _ := w.get(0, []string{c.place("sess_other").data}, c.deadline())
		good := items[0].value
		flipped := bytes.Clone(good)
		flipped[len(flipped)-1] ^= 1
		for name, value := range map[string]string{"cut": string(good[:40]), "flipped": string(flipped), "foreign": "user|i:1;", "empty": "", "another's": string(good)} {
			m.raw("set %s 0 60 %d\r\n%s\r\n", p.data, len(value), value)
			for what, f := range map[string]func() error{
				"Read":    func() error { _, err := c.Read(ctx, sid); return err },
				"TryLock": func() error { _, _, err := c.TryLock(ctx, sid, holder); return err },
				"Commit":  func() error { _, err := c.Commit(ctx, sid, &sessfs.Session{}, sessfs.Attr{}, nil, nil); return err },
			} {
				err := f()
				if !errors.Is(err, sessfs.ErrDamaged) || !strings.Contains(err.Error(), sid.Hash()) || !strings.Contains(err.Error(), "c1") || strings.Contains(err.Error(), string(sid)) {
					t.Errorf("%s of a record that is %s: %v", what, name, err)
				}
			}
			until(t, "the lock is free", func() bool { h, _ := c.Locked(ctx, sid); return h == nil })
			if existed, _, err := c.Destroy(ctx, sid); err != nil || !existed {
				t.Errorf("Destroy of a record that is %s: %v %v", name, existed, err)
			}
			if s := mustRead(t, c, sid); s.State != sessfs.Destroyed {
				t.Errorf("%+v", s)
			}
		}
	})
}

func TestADamagedLockIsALock(t *testing.T) {
	both(t, func(t *testing.T, o Options, m *memcached) {
		c := open(t, o)
		m.raw("set %s 0 60 3\r\n???\r\n", c.place(sid).lock)
		if l, _, err := c.TryLock(ctx, sid, holder); l != nil || err != nil {
			t.Fatalf("%v %v", l, err)
		}
		if h, err := c.Locked(ctx, sid); err != nil || h.Host != "unknown" {
			t.Fatalf("%+v %v", h, err)
		}
		if h, err := c.Break(ctx, sid); err != nil || h.Host != "unknown" {
			t.Fatalf("%+v %v", h, err)
		}
		mustLock(t, c, sid)
	})
}

func TestChunks(t *testing.T) {
	both(t, func(t *testing.T, o Options, m *memcached) {
		o.Lease = time.Second
		c := open(t, o)
		big := strings.Repeat("0123456789", 300_000)
		s := mustCommit(t, c, sid, &sessfs.Session{}, big, nil)
		old := chunkKey(c.prefix, s.Version.Nonce, 1)
		there := func(key string) bool { return strings.HasPrefix(m.raw("get %s\r\n", key), "VALUE") }
		if !there(old) {
			t.Fatal("no chunks")
		}
		next := mustCommit(t, c, sid, s, big+"!", nil)
		if !there(old) {
			t.Fatal("the old chunks went before their readers could be done")
		}
		if _, err := c.Commit(ctx, sid, s, s.Attr, []byte(big), nil); !errors.Is(err, sessfs.ErrConflict) {
			t.Fatal(err)
		}
		until(t, "the old chunks go", func() bool { return !there(old) })
		if got := mustRead(t, c, sid); string(got.Data) != big+"!" {
			t.Fatal("the new session went with the old chunks")
		}
		m.raw("delete %s\r\n", chunkKey(c.prefix, next.Version.Nonce, 1))
		if _, err := c.Read(ctx, sid); !errors.Is(err, sessfs.ErrDamaged) || !strings.Contains(err.Error(), "a part is lost") {
			t.Fatal(err)
		}
	})
}

func TestRefusedStoresKeepTheOldSession(t *testing.T) {
	both(t, func(t *testing.T, o Options, m *memcached) {
		c := open(t, o)
		s := mustCommit(t, c, sid, &sessfs.Session{}, "old", nil)
		// A server whose limit is lower than it says.
		c.servers()[0].mu.Lock()
		c.servers()[0].info.itemMax = 8 << 20
		c.servers()[0].mu.Unlock()
		_, err := c.Commit(ctx, sid, s, s.Attr, make([]byte, 2<<20), nil)
		if !errors.Is(err, sessfs.ErrTooLarge) || !strings.Contains(err.Error(), "object too large") {
			t.Fatal(err)
		}
		if got := mustRead(t, c, sid); string(got.Data) != "old" {
			t.Fatalf("read %+v", got)
		}
		mustCommit(t, c, sid, s, "new", nil)
	})
}

func TestAFullServerRefuses(t *testing.T) {
	m := startMemcached(t, "-M", "-m", "3", "-o", "slab_chunk_max=16384")
	o := testOptions(m.socket)
	o.Lifetime = time.Minute
	c := open(t, o)
	s := mustCommit(t, c, sid, &sessfs.Session{}, "old", nil)
	var err error
	for i := 0; err == nil && i < 200; i++ {
		_, err = c.Commit(ctx, sessfs.ID(fmt.Sprintf("fill_%d", i)), &sessfs.Session{}, sessfs.Attr{}, make([]byte, 100_000), nil)
	}
	if !errors.Is(err, sessfs.ErrUnavailable) || !strings.Contains(strings.ToLower(err.Error()), "out of memory") {
		t.Fatalf("filling it: %v", err)
	}
	_, err = c.Commit(ctx, sid, s, s.Attr, make([]byte, 100_000), nil)
	if !errors.Is(err, sessfs.ErrUnavailable) {
		t.Fatal(err)
	}
	if got := mustRead(t, c, sid); string(got.Data) != "old" {
		t.Fatalf("read %+v", got)
	}
	if st := c.Servers(ctx)[0]; !st.Up {
		t.Fatal("a server that refuses is not down")
	}
}
