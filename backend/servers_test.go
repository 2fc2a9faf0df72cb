package backend

import (
	"fmt"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"sessfs"
)

// many are the sessions of these tests.
func many(n int) (list []sessfs.ID) {
	for i := range n {
		list = append(list, sessfs.ID(fmt.Sprintf("sess_%04d", i)))
	}
	return list
}

// servers starts so many, and returns options of a host that uses all of them.
func servers(t *testing.T, n int) ([]*memcached, Options) {
	var list []*memcached
	var sockets []string
	for range n {
		m := startMemcached(t, "-m", "64")
		list, sockets = append(list, m), append(sockets, m.socket)
	}
	o := testOptions(sockets...)
	o.Timeout, o.Replicas, o.Lease = 2*time.Second, 2, 4*time.Second
	return list, o
}

// without is the same host, cut off from one server.
func without(t *testing.T, o Options, n int) Options {
	list := append([]Server(nil), o.Servers...)
	list[n].Address = filepath.Join(t.TempDir(), "nobody")
	o.Servers = list
	return o
}

// lockSoon takes a lock that the mending of a server may have for a moment.
func lockSoon(t *testing.T, c *Cluster, id sessfs.ID) (l *sessfs.Lease, s *sessfs.Session) {
	t.Helper()
	until(t, "the lock is got", func() bool {
		var err error
		if l, s, err = c.TryLock(ctx, id, holder); err != nil {
			t.Fatal(err)
		}
		return l != nil
	})
	return l, s
}

// increment adds one to the number in a session, and tells whether that was acknowledged.
func increment(t *testing.T, c *Cluster, id sessfs.ID) bool {
	var l *sessfs.Lease
	var s *sessfs.Session
	for end := time.Now().Add(20 * time.Second); l == nil; {
		var err error
		if l, s, err = c.TryLock(ctx, id, holder); err != nil {
			t.Logf("locking: %v", err)
			return false
		}
		if time.Now().After(end) {
			t.Error("no lock within 20 s")
			return false
		}
	}
	defer c.Unlock(l)
	n, _ := strconv.Atoi(string(s.Data))
	_, err := c.Commit(ctx, id, s, sessfs.Attr{Ctime: time.Now().UnixNano()}, []byte(strconv.Itoa(n+1)), l)
	if err != nil {
		t.Logf("storing: %v", err)
	}
	return err == nil
}

func value(t *testing.T, c *Cluster, id sessfs.ID) int {
	n, _ := strconv.Atoi(string(mustRead(t, c, id).Data))
	return n
}

// copiesOf counts the servers that have the session's best record, whole.
func copiesOf(t *testing.T, o Options, id sessfs.ID) (n int) {
	t.Helper()
	c := open(t, o)
	defer c.Close()
	op := c.operation(id)
	best := sessfs.Version{}
	for _, s := range c.servers() {
		g, err := s.beginGet(op.conn, []string{op.data}, c.deadline())()
		if err != nil {
			continue
		}
		f := op.found(s, g.items[0], g.epoch)
		switch {
		case f.rec == nil || f.rec.version.Counter < best.Counter:
		case f.rec.version == best:
			n++
		default:
			best, n = f.rec.version, 1
		}
	}
	return n
}
