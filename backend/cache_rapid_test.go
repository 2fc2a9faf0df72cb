package backend

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"sessfs"
)

// smallItems has a host store sessions over some kB in parts. (memcached itself falls over with limits like that.)
func smallItems(t *testing.T, c *Cluster) {
	if err := c.Check(ctx); err != nil {
		t.Fatal(err)
	}
	for _, s := range c.servers() {
		s.mu.Lock()
		small := *s.info
		small.itemMax = 4 << 10
		s.info = &small
		s.mu.Unlock()
	}
}

// Whatever hosts and servers do, a request reads what the last one has stored.
func TestCacheNeverServesOldData(t *testing.T) {
	mem, o := servers(t, 3)
	rapid.Check(t, func(rt *rapid.T) {
		for _, m := range mem {
			m.raw("flush_all\r\n")
		}
		var hosts []*Cluster
		defer func() {
			for _, c := range hosts {
				c.Close()
			}
		}()
		for range 3 {
			c, err := New(o)
			if err != nil {
				rt.Fatal(err)
			}
			c.cache.above.Store(1)
			hosts = append(hosts, c)
			smallItems(t, c)
		}
		ids := many(2)
		want := make(map[sessfs.ID]string)
		n := 0
		requests := rapid.IntRange(1, 60).Draw(rt, "requests")
		restart := rapid.IntRange(0, 150).Draw(rt, "restart") // of a server, before that request
		for i := range requests {
			if i == restart {
				m := rapid.SampledFrom(mem).Draw(rt, "server")
				m.stop()
				m.start()
				for _, c := range hosts {
					until(t, "the server is used again", func() bool {
						return c.Check(ctx) == nil && !slices.ContainsFunc(c.servers(), (*server).down)
					})
					smallItems(t, c)
				}
				for _, id := range ids { // all copies are there before the next one
					if read, _ := comeBack(t, hosts[0], id, nil); string(read) != want[id] {
						rt.Fatalf("after a restart %q is read, %q was stored last", read, want[id])
					}
				}
			}
			c, id := hosts[rapid.SampledFrom([]int{0, 0, 0, 0, 1, 2}).Draw(rt, "host")], rapid.SampledFrom(ids).Draw(rt, "id")
			switch what := rapid.SampledFrom([]string{"use", "use", "use", "use", "store", "store", "store", "touch", "destroy"}).Draw(rt, "what"); what {
			case "destroy":
				if _, _, err := c.Destroy(ctx, id); err != nil {
					rt.Fatal(err)
				}
				want[id] = ""
			default:
				var data []byte
				if n++; what == "store" {
					data = []byte(fmt.Sprint("value ", n, strings.Repeat(".", rapid.SampledFrom([]int{0, 100, 9000}).Draw(rt, "more"))))
				} else if what == "touch" && want[id] != "" {
					data = []byte(want[id]) // as a touch of the file does
				}
				if read, _ := comeBack(t, c, id, data); string(read) != want[id] {
					rt.Fatalf("%.20q is read, %.20q was stored last", read, want[id])
				}
				if data != nil {
					want[id] = string(data)
				}
			}
		}
	})
}
