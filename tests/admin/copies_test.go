package admin

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"sessfs"
	"sessfs/backend"
	"sessfs/internal/testkit"
)

// fill stores n sessions on a server, as hosts do.
func fill(t *testing.T, m *testkit.Memcached, n int) {
	t.Helper()
	c, err := backend.New(backend.Options{Servers: []backend.Server{{Name: m.Addr, Network: "tcp", Address: m.Addr, Weight: 1}},
		Timeout: 10 * time.Second, RetryInterval: time.Second, Connections: 2, Prefix: "sessfs:", Lifetime: 24 * time.Hour, Lease: 30 * time.Second, MaxSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const workers = 64
	var all sync.WaitGroup
	for w := range workers {
		all.Add(1)
		go func() {
			defer all.Done()
			now := time.Now().UnixNano()
			for i := w; i < n; i += workers {
				id := sessfs.ID(fmt.Sprintf("sess_many%06d", i))
				attr := sessfs.Attr{Mode: 0o600, Atime: now, Mtime: now, Ctime: now}
				if _, err := c.Commit(context.Background(), id, &sessfs.Session{}, attr, []byte(`v|s:1:"x";`), nil); err != nil {
					t.Errorf("filling: %v", err)
					return
				}
			}
		}()
	}
	all.Wait()
}
