package backend

import (
	"context"
	"fmt"
	"testing"
	"time"

	"sessfs"
)

// Sessions that were read a moment ago are missing in the server's dumps for a while. They are not missed where all are
// asked for.
func TestListAllMissesNoneThatWasRead(t *testing.T) {
	testListed(t, 2*listFew, (*Cluster).ListAll)
}

// Of a server with few items every listing shows all.
func TestListOfFewMissesNoneThatWasRead(t *testing.T) {
	testListed(t, listFew/2, (*Cluster).List)
}

// testListed reads sessions, and looks whether they are listed.
func testListed(t *testing.T, all int, list func(*Cluster, context.Context, func(sessfs.Entry) error) error) {
	m := startMemcached(t)
	c, err := New(Options{Servers: []Server{{Network: "unix", Address: m.socket}}, Prefix: "p:", Lifetime: time.Hour, Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	id := func(i int) sessfs.ID { return sessfs.ID(fmt.Sprint("sess_", i)) }
	for i := range all {
		if _, err := c.Commit(context.Background(), id(i), &sessfs.Session{}, sessfs.Attr{Mode: 0o600}, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(3 * time.Second) // with nothing to do the server's threads sleep longer
	for range 2 {
		for i := range all {
			mustRead(t, c, id(i))
		}
	}
	seen := make(map[sessfs.ID]bool)
	if err := list(c, context.Background(), func(e sessfs.Entry) error { seen[e.ID] = true; return nil }); err != nil || len(seen) != all {
		t.Errorf("%d of %d sessions are listed: %v", len(seen), all, err)
	}
}
