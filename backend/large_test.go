package backend

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"sessfs"
)

// TestListingOfManySessions lists 300,000 sessions in bounded memory.
func TestListingOfManySessions(t *testing.T) {
	const n = 300_000
	o := testOptions(startMemcached(t, "-m", "512").socket)
	o.Lifetime, o.Timeout = time.Hour, 5*time.Second
	c := open(t, o)
	mustRead(t, c, sid)
	data := []byte(strings.Repeat("x", 200))
	var wg sync.WaitGroup
	for part := range 4 {
		wg.Go(func() {
			for i := part * n / 4; i < (part+1)*n/4; {
				b := newBatch()
				for range 500 {
					r := record{id: sessfs.ID(fmt.Sprintf("sess_%026d", i)), state: sessfs.Live, length: len(data), sum: dataSum(data)}
					b.store("set", c.prefix+string(r.id), 0, 3600, 0, r.encode(), data)
					i++
				}
				if _, err := c.servers()[0].exchange(b, part, 0, time.Now().Add(10*time.Second)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	runtime.GC()
	var before, now runtime.MemStats
	runtime.ReadMemStats(&before)
	most := uint64(0)
	count := 0
	start := time.Now()
	err := c.List(ctx, func(e sessfs.Entry) error {
		if count++; count%20_000 == 0 {
			runtime.GC()
			runtime.ReadMemStats(&now)
			most = max(most, now.HeapAlloc)
		}
		return nil
	})
	if err != nil || count < n {
		t.Fatalf("%d listed, %v", count, err)
	}
	grown := int64(most) - int64(before.HeapAlloc)
	t.Logf("%d sessions in %v, at most %d KiB more on the heap", count, time.Since(start).Round(time.Millisecond), grown>>10)
	if grown > 64<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
}

func BenchmarkRequest(b *testing.B) {
	m := startMemcached(b)
	o := testOptions(m.socket)
	o.Lifetime, o.Lease = time.Hour, time.Minute
	if os.Getenv("CLASSIC") != "" {
		o.ForceClassic = true
	}
	c := open(b, o)
	for _, size := range []int{100, 10_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				id := sessfs.ID(fmt.Sprintf("sess_%p", pb))
				for pb.Next() {
					l, s, err := c.TryLock(ctx, id, holder)
					if err != nil || l == nil {
						b.Error(l, err)
						return
					}
					if _, err := c.Commit(ctx, id, s, s.Attr, make([]byte, size), l); err != nil {
						b.Error(err)
						return
					}
					c.Unlock(l)
				}
			})
		})
	}
}
