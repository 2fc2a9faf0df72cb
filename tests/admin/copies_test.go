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

// fill stores n sessions on a server, as hosts do: name and a number, last changed as long ago as age says.
func fill(t *testing.T, m *testkit.Memcached, name string, n int, age func(i int) time.Duration) {
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
			now := time.Now()
			for i := w; i < n; i += workers {
				id := sessfs.ID(fmt.Sprintf("sess_%s%06d", name, i))
				changed := now.Add(-age(i)).UnixNano()
				attr := sessfs.Attr{Mode: 0o600, Atime: changed, Mtime: changed, Ctime: changed}
				if _, err := c.Commit(context.Background(), id, &sessfs.Session{}, attr, []byte(`v|s:1:"x";`), nil); err != nil {
					t.Errorf("filling: %v", err)
					return
				}
			}
		}()
	}
	all.Wait()
}
