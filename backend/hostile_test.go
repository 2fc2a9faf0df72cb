package backend

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sessfs"
)

// lose returns a hook that closes a connection instead of passing the answer on to the next request that has the word.
func lose(p *proxy, word string) {
	calm() // the answer that is lost is to be the test's
	seen := false
	var done bool
	p.hook(func(b []byte) ([]byte, bool) {
		seen = seen || strings.Contains(string(b), word)
		return b, true
	}, func(b []byte) ([]byte, bool) {
		if seen && !done {
			done = true
			return nil, false
		}
		return b, true
	})
}

func TestLostAnswersAreLookedUp(t *testing.T) {
	both(t, func(t *testing.T, o Options, m *memcached) {
		p := startProxy(t, m)
		o.Servers[0] = Server{Name: "c1", Address: p.addr}
		c := open(t, o)
		mustRead(t, c, sid)

		lose(p, "add sessfs:@")
		l, s := mustLock(t, c, sid)
		lose(p, "add sessfs:sess")
		s = mustCommit(t, c, sid, s, "one", l)
		lose(p, "cas sessfs:sess")
		s = mustCommit(t, c, sid, s, "two", l)
		lose(p, "cas sessfs:sess")
		s = mustCommit(t, c, sid, s, strings.Repeat("big", 1<<20), l)
		if got := mustRead(t, c, sid); got.Version != s.Version {
			t.Fatalf("%+v is there, %+v was stored", got.Version, s.Version)
		}
		// Lost, and changed by another before it could be looked up.
		other := open(t, testOptions(m.socket))
		done := false
		p.hook(nil, func(b []byte) ([]byte, bool) {
			if !done && strings.HasPrefix(string(b), "STORED") {
				done = true
				now := mustRead(t, other, sid)
				mustCommit(t, other, sid, now, "theirs", nil)
				return nil, false
			}
			return b, true
		})
		if _, err := c.Commit(ctx, sid, s, s.Attr, []byte("mine"), nil); !errors.Is(err, sessfs.ErrConflict) {
			t.Fatalf("%v", err)
		}
		if got := mustRead(t, c, sid); string(got.Data) != "theirs" {
			t.Fatalf("read %q", got.Data)
		}
		lose(p, "cas sessfs:sess")
		if existed, _, err := c.Destroy(ctx, sid); !existed || err != nil {
			t.Fatalf("%v %v", existed, err)
		}
		c.Unlock(l)
		until(t, "the lock is free", func() bool { h, _ := c.Locked(ctx, sid); return h == nil })
	})
}

func TestIdleConnectionsThatWereClosed(t *testing.T) {
	both(t, func(t *testing.T, o Options, m *memcached) {
		p := startProxy(t, m)
		o.Servers[0] = Server{Name: "c1", Address: p.addr}
		c := open(t, o)
		s := mustCommit(t, c, sid, &sessfs.Session{}, "x", nil)
		calm()
		for range 5 {
			p.breakAll()
			if _, _, err := c.TryLock(ctx, "sess_other", holder); err != nil {
				t.Fatal(err)
			}
			p.breakAll()
			s = mustCommit(t, c, sid, s, "y", nil)
		}
		if st := c.Servers(ctx)[0]; st.LastError != "" {
			t.Fatalf("the breaker tripped: %s", st.LastError)
		}
	})
}

func TestServersAreToldApart(t *testing.T) {
	m := startMemcached(t)
	p := startProxy(t, m)
	meta := regexp.MustCompile(`(?m)^m[gsdn]\b.*\r\n`)
	p.hook(func(b []byte) ([]byte, bool) { return meta.ReplaceAll(b, []byte("nonsense\r\n")), true }, nil)
	c := open(t, testOptions(p.addr))
	mustCommit(t, c, sid, &sessfs.Session{}, "x", nil)
	if st := c.Servers(ctx)[0]; st.Protocol != "classic" {
		t.Fatalf("%+v", st)
	}
	c.Close()

	// A server whose cas stores whatever the number.
	cas := regexp.MustCompile(`cas (\S+ \d+ -?\d+ \d+) \d+\r\n`)
	p.hook(func(b []byte) ([]byte, bool) {
		return cas.ReplaceAll(meta.ReplaceAll(b, []byte("nonsense\r\n")), []byte("set $1\r\n")), true
	}, nil)
	c = open(t, testOptions(p.addr))
	err := c.Check(ctx)
	if !errors.Is(err, sessfs.ErrNotSupported) || errors.Is(err, sessfs.ErrUnavailable) || !strings.Contains(err.Error(), "cas stores with a wrong number") {
		t.Fatal(err)
	}
	if _, err := c.Read(ctx, sid); !errors.Is(err, sessfs.ErrUnavailable) || !strings.Contains(err.Error(), "cas stores") {
		t.Fatal(err)
	}
}

func TestListingWaitsForABusyCrawler(t *testing.T) {
	m := startMemcached(t)
	p := startProxy(t, m)
	c := open(t, testOptions(p.addr))
	mustCommit(t, c, sid, &sessfs.Session{}, "x", nil)
	busy := 2
	p.hook(nil, func(b []byte) ([]byte, bool) {
		if strings.HasPrefix(string(b), "key=") && busy > 0 {
			busy--
			return []byte("BUSY currently processing crawler request\r\n"), true
		}
		if strings.HasPrefix(string(b), "key=") {
			return append([]byte("OK\r\n"), b...), true
		}
		return b, true
	})
	n := 0
	if err := c.List(ctx, func(sessfs.Entry) error { n++; return nil }); err != nil || n != 1 || busy != 0 {
		t.Fatalf("%d listed, %v", n, err)
	}
}

// A dump misses items that the server uses at that moment, all of them where there are few: twice in succession here. The
// server is one that cannot dump by its hash table.
func TestListingOutlastsDumpsThatMissItems(t *testing.T) {
	m := startMemcached(t)
	p := startProxy(t, m)
	c := open(t, testOptions(p.addr))
	mustCommit(t, c, "sess_old", &sessfs.Session{}, "x", nil)
	mustCommit(t, c, "sess_new", &sessfs.Session{}, "x", nil)
	for name, missing := range map[string][]string{
		"all once":         {"old new"},
		"one once":         {"new"},
		"one twice":        {"new", "new"},
		"one in turn":      {"new", "old"},
		"all and then one": {"old new", "new"},
	} {
		rest := missing
		p.hook(func(b []byte) ([]byte, bool) {
			return bytes.Replace(b, []byte("metadump hash"), []byte("metadump none"), 1), true
		}, func(b []byte) ([]byte, bool) {
			if len(rest) == 0 || !strings.HasPrefix(string(b), "key=") {
				return b, true
			}
			var kept strings.Builder
			for line := range strings.Lines(string(b)) {
				if id := dumpedID.FindStringSubmatch(line); id == nil || !strings.Contains(rest[0], id[1]) {
					kept.WriteString(line)
				}
			}
			rest = rest[1:]
			return []byte(kept.String()), true
		})
		got := make(map[sessfs.ID]bool)
		if err := c.List(ctx, func(e sessfs.Entry) error { got[e.ID] = true; return nil }); err != nil || len(got) != 2 {
			t.Errorf("%s missing: %d of 2 listed, %v", name, len(got), err)
		}
	}
}

var dumpedID = regexp.MustCompile(`^key=\S*sess_(old|new) `)

func TestCloseWithRequestsUnderWay(t *testing.T) {
	both(t, func(t *testing.T, o Options, m *memcached) {
		c := open(t, o)
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				for {
					if _, _, err := c.TryLock(ctx, sessfs.ID(fmt.Sprint(i)), holder); err != nil {
						if !errors.Is(err, sessfs.ErrClosed) && !errors.Is(err, io.EOF) && !errors.Is(err, sessfs.ErrUnavailable) {
							t.Error(err)
						}
						return
					}
				}
			})
		}
		time.Sleep(20 * time.Millisecond)
		start := time.Now()
		c.Close()
		if d := time.Since(start); d > o.Timeout {
			t.Errorf("Close took %v", d)
		}
		wg.Wait()
	})
}

func TestCloseGivesLocksBack(t *testing.T) {
	both(t, func(t *testing.T, o Options, m *memcached) {
		c, other := open(t, o), open(t, o)
		for i := range 50 {
			l, _ := mustLock(t, c, sessfs.ID(fmt.Sprint(i)))
			defer c.Unlock(l) // a second time, after Close
			c.Unlock(l)
		}
		c.Close()
		for i := range 50 {
			if h, err := other.Locked(ctx, sessfs.ID(fmt.Sprint(i))); h != nil || err != nil {
				t.Fatalf("%d: %+v %v", i, h, err)
			}
		}
	})
}

// A server that has evicted what it was tried with, or whose answer is garbled, has not lost its meta commands.
func TestMetaCommandsAreNotForgotten(t *testing.T) {
	p := startProxy(t, startMemcached(t))
	o := testOptions(p.addr)
	c := open(t, o)
	mustCommit(t, c, sid, &sessfs.Session{}, "x", nil)
	var tries atomic.Int64
	p.hook(nil, func(b []byte) ([]byte, bool) {
		if bytes.HasPrefix(b, []byte("VA 2 c")) && tries.Add(1) <= 2 {
			return []byte("EN O11\r\n"), true
		}
		return b, true
	})
	p.breakAll()
	until(t, "it is connected again", func() bool {
		_, err := c.Read(ctx, sid)
		return err == nil && tries.Load() > 2
	})
	if s := c.servers()[0]; s.connected() == nil || s.last.classic != nil {
		t.Error("it is taken for a server without meta commands")
	}
}
