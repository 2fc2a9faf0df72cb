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
	m := startMemcached(t)
	c, err := New(Options{Servers: []Server{{Network: "unix", Address: m.socket}}, Prefix: "p:", Lifetime: time.Hour, Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const all = 300
	ctx := context.Background()
	id := func(i int) sessfs.ID { return sessfs.ID(fmt.Sprint("sess_", i)) }
	for i := range all {
		if _, err := c.Commit(ctx, id(i), &sessfs.Session{}, sessfs.Attr{Mode: 0o600}, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		for i := range all {
			if _, err := c.Read(ctx, id(i)); err != nil {
				t.Fatal(err)
			}
		}
		seen := make(map[sessfs.ID]bool)
		if err := c.ListAll(ctx, func(e sessfs.Entry) error { seen[e.ID] = true; return nil }); err != nil || len(seen) != all {
			t.Errorf("%d of %d sessions are listed: %v", len(seen), all, err)
		}
	}
}
