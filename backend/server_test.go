package backend

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sessfs"
)

var (
	ctx    = context.Background()
	holder = sessfs.Holder{Host: "one", Boot: "b", PID: 1}
)

const sid = sessfs.ID("sess_a")

func mustCommit(t testing.TB, c *Cluster, id sessfs.ID, base *sessfs.Session, data string, l *sessfs.Lease) *sessfs.Session {
	t.Helper()
	s, err := c.Commit(ctx, id, base, sessfs.Attr{Mode: 0o600}, []byte(data), l)
	if err != nil {
		t.Fatalf("Commit: %v", err)
	}
	return s
}

func mustLock(t testing.TB, c *Cluster, id sessfs.ID) (*sessfs.Lease, *sessfs.Session) {
	t.Helper()
	l, s, err := c.TryLock(ctx, id, holder)
	if err != nil || l == nil {
		t.Fatalf("TryLock: %v %v", l, err)
	}
	return l, s
}

func mustRead(t testing.TB, c *Cluster, id sessfs.ID) *sessfs.Session {
	t.Helper()
	s, err := c.Read(ctx, id)
	if err != nil {
		t.Fatalf("Read: %v", err)
	}
	return s
}

// calm waits until what a connection brings with it is over: a server that was connected is asked for its lists of servers.
func calm() { time.Sleep(300 * time.Millisecond) }

func TestRoundTrips(t *testing.T) {
	for name, want := range map[string]map[string]uint64{
		"meta":    {"TryLock": 1, "Commit": 1, "second Commit": 1, "Commit with a look": 1, "Mark": 0, "Marked": 0, "Read": 1, "Locked": 1, "Renew": 1, "Unlock": 0, "Commit without lock": 1},
		"classic": {"TryLock": 2, "Commit": 2, "second Commit": 3, "Commit with a look": 3, "Mark": 0, "Marked": 0, "Read": 1, "Locked": 1, "Renew": 2, "Unlock": 0, "Commit without lock": 1},
	} {
		t.Run(name, func(t *testing.T) {
			o := testOptions(startMemcached(t).socket)
			o.ForceClassic = name == "classic"
			o.Lifetime, o.Lease = time.Minute, 10*time.Second
			c := open(t, o)
			mustRead(t, c, sid) // connects
			calm()
			count := func(what string, f func()) {
				t.Helper()
				before := c.Waits()
				f()
				if got := c.Waits() - before; got != want[what] {
					t.Errorf("%s: %d round trips, want %d", what, got, want[what])
				}
			}
			var l *sessfs.Lease
			var s *sessfs.Session
			count("TryLock", func() { l, s = mustLock(t, c, sid) })
			count("Commit", func() { s = mustCommit(t, c, sid, s, "one", l) })
			count("second Commit", func() { s = mustCommit(t, c, sid, s, "two", l) })
			l.Look = true
			count("Mark", func() { // done for requests that wait anyway
				if err := c.Mark(ctx, sid, l.Token); err != nil {
					t.Error(err)
				}
			})
			count("Marked", func() {
				if !c.Marked(ctx, []*sessfs.Lease{l})[0] {
					t.Error("not marked")
				}
			})
			count("Commit with a look", func() { s = mustCommit(t, c, sid, s, "three", l) })
			if !l.Marked {
				t.Error("the commit shows no mark")
			}
			count("Read", func() { s = mustRead(t, c, sid) })
			count("Locked", func() { c.Locked(ctx, sid) })
			count("Renew", func() {
				if err := c.Renew(ctx, l); err != nil {
					t.Error(err)
				}
			})
			if name == "meta" {
				count("Unlock", func() { c.Unlock(l) })
				// On one connection the unlock is done before what comes after it.
				l, _ = mustLock(t, c, sid)
			}
			count("Commit without lock", func() { s = mustCommit(t, c, sid, s, "three", nil) })
			if st := c.Servers(ctx)[0]; st.Protocol != name || !st.Up || st.RoundTrips < c.Waits() || st.ItemMax != 1<<20 || st.Version == "" || st.Items == 0 {
				t.Errorf("%+v", st)
			}
		})
	}
}

func both(t *testing.T, test func(t *testing.T, o Options, m *memcached)) {
	for _, classic := range []bool{false, true} {
		t.Run(map[bool]string{false: "meta", true: "classic"}[classic], func(t *testing.T) {
			m := startMemcached(t)
			o := testOptions(m.socket)
			o.ForceClassic, o.Lifetime, o.Lease = classic, time.Minute, 10*time.Second
			test(t, o, m)
		})
	}
}

func TestARestartIsNoticed(t *testing.T) {
	both(t, func(t *testing.T, o Options, m *memcached) {
		c, other := open(t, o), open(t, o)
		l, s := mustLock(t, c, sid)
		s = mustCommit(t, c, sid, s, "one", l)
		calm()
		m.stop()
		m.start()
		// The first request after it works, and the cas values from before mean nothing, whatever has them now.
		for range 50 {
			seen := mustRead(t, other, sid)
			mustCommit(t, other, sid, seen, "theirs", nil)
		}
		if _, err := c.Commit(ctx, sid, s, s.Attr, []byte("late"), l); !errors.Is(err, sessfs.ErrLockLost) {
			t.Fatalf("a commit under a lock that a restart took away: %v", err)
		}
		if _, err := c.Commit(ctx, sid, s, s.Attr, []byte("late"), nil); !errors.Is(err, sessfs.ErrConflict) {
			t.Fatalf("a commit on a base from before the restart: %v", err)
		}
		if s := mustRead(t, c, sid); string(s.Data) != "theirs" {
			t.Fatalf("read %q", s.Data)
		}
		theirs, _ := mustLock(t, other, sid)
		c.Unlock(l)
		time.Sleep(50 * time.Millisecond)
		if err := other.Renew(ctx, theirs); err != nil {
			t.Fatalf("an unlock from before the restart freed another's lock: %v", err)
		}
	})
}

func TestAServerThatIsGone(t *testing.T) {
	both(t, func(t *testing.T, o Options, m *memcached) {
		c := open(t, o)
		mustCommit(t, c, sid, &sessfs.Session{}, "x", nil)
		m.stop()
		everyone(t, c, o.Timeout)
		start := time.Now()
		for range 100 {
			if _, err := c.Read(ctx, sid); !errors.Is(err, sessfs.ErrUnavailable) {
				t.Fatal(err)
			}
		}
		if d := time.Since(start); d > 5*o.Timeout {
			t.Fatalf("100 requests to a server that is down took %v", d)
		}
		st := c.Servers(ctx)[0]
		if st.Up || st.DownSince == nil || st.LastError == "" || st.Failures < 100 {
			t.Fatalf("%+v", st)
		}
		if err := c.Check(ctx); !errors.Is(err, sessfs.ErrUnavailable) || !strings.Contains(err.Error(), "c1") {
			t.Fatal(err)
		}
		m.start()
		start = time.Now()
		until(t, "it works again", func() bool { _, err := c.Read(ctx, sid); return err == nil })
		if d := time.Since(start); d > o.RetryInterval+3*time.Second {
			t.Fatalf("it worked again after %v, retry_interval is %v", d, o.RetryInterval)
		}
		mustCommit(t, c, sid, &sessfs.Session{}, "x", nil)
	})
}

// everyone makes 20 requests at once, which must all fail within the timeout.
func everyone(t *testing.T, c *Cluster, timeout time.Duration) {
	t.Helper()
	start := time.Now()
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			id := sessfs.ID(fmt.Sprintf("sess_%d", i))
			var err error
			switch i % 4 {
			case 0:
				_, _, err = c.TryLock(ctx, id, holder)
			case 1:
				_, err = c.Read(ctx, id)
			case 2:
				_, err = c.Commit(ctx, id, &sessfs.Session{}, sessfs.Attr{}, []byte("x"), nil)
			case 3:
				_, _, err = c.Destroy(ctx, id)
			}
			if !errors.Is(err, sessfs.ErrUnavailable) || !strings.Contains(err.Error(), "c1") {
				t.Errorf("error %v", err)
			}
		})
	}
	wg.Wait()
	if d := time.Since(start); d > timeout+time.Second {
		t.Errorf("20 requests at once took %v, timeout is %v", d, timeout)
	}
}

func TestAServerThatIsSilent(t *testing.T) {
	both(t, func(t *testing.T, o Options, m *memcached) {
		o.Timeout = time.Second
		c := open(t, o)
		s := mustCommit(t, c, sid, &sessfs.Session{}, "x", nil)
		m.freeze()
		everyone(t, c, o.Timeout)
		start := time.Now()
		for range 50 {
			if _, err := c.Read(ctx, sid); !errors.Is(err, sessfs.ErrUnavailable) {
				t.Fatal(err)
			}
		}
		if d := time.Since(start); d > 5*o.Timeout { // each would wait as long, if it were not known by now
			t.Errorf("50 requests to a silent server took %v, timeout is %v", d, o.Timeout)
		}
		m.cmd.Process.Signal(syscall.SIGCONT)
		until(t, "it works again", func() bool { _, err := c.Read(ctx, sid); return err == nil })
		mustCommit(t, c, sid, s, "y", nil)
		// Locks that were won without an answer are given back.
		until(t, "all locks are free", func() bool {
			h, err := c.Locked(ctx, "sess_0")
			return h == nil && err == nil
		})
	})
}

func TestLongLifetime(t *testing.T) {
	both(t, func(t *testing.T, o Options, m *memcached) {
		o.Lifetime = 40 * 24 * time.Hour
		c := open(t, o)
		mustCommit(t, c, sid, &sessfs.Session{}, "x", nil)
		if s := mustRead(t, c, sid); !s.Exists() {
			t.Fatal("stored and dead")
		}
		err := c.List(ctx, func(e sessfs.Entry) error {
			if left := time.Until(e.Expires); left < o.Lifetime-5*time.Second || left > o.Lifetime+5*time.Second {
				t.Errorf("it ends in %v", left)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

func TestCheckNamesTheServers(t *testing.T) {
	m := startMemcached(t)
	c := open(t, testOptions(m.socket, "127.0.0.1:1"))
	err := c.Check(ctx)
	if !errors.Is(err, sessfs.ErrUnavailable) || !strings.Contains(err.Error(), "c2 (127.0.0.1:1)") || strings.Contains(err.Error(), "c1") || !strings.Contains(err.Error(), "refused") {
		t.Fatal(err)
	}
	if err := open(t, testOptions(m.socket)).Check(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestReconfigure(t *testing.T) {
	c := open(t, testOptions(startMemcached(t).socket))
	c.Reconfigure(Settings{MaxSize: 3, Lifetime: time.Hour})
	if _, err := c.Commit(ctx, sid, &sessfs.Session{}, sessfs.Attr{}, []byte("four"), nil); !errors.Is(err, sessfs.ErrTooLarge) {
		t.Fatal(err)
	}
	c.Close()
	if _, err := c.Read(ctx, sid); !errors.Is(err, sessfs.ErrClosed) {
		t.Fatal(err)
	}
}

func TestListingFailsLoudly(t *testing.T) {
	m := startMemcached(t)
	c := open(t, testOptions(m.socket, "127.0.0.1:1"))
	n := 0
	for i := range 20 {
		c.Commit(ctx, sessfs.ID(fmt.Sprintf("sess_%d", i)), &sessfs.Session{}, sessfs.Attr{}, nil, nil)
	}
	err := c.List(ctx, func(sessfs.Entry) error { n++; return nil })
	if !errors.Is(err, sessfs.ErrUnavailable) || n == 0 {
		t.Fatalf("%d listed, error %v", n, err)
	}
	c = open(t, testOptions(startMemcached(t, "-o", "no_lru_crawler").socket))
	if err := c.List(ctx, func(sessfs.Entry) error { return nil }); !errors.Is(err, sessfs.ErrNotSupported) || !strings.Contains(err.Error(), "lru_crawler") {
		t.Fatal(err)
	}
}
