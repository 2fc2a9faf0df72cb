package backend

import (
	"fmt"
	"testing"

	"sessfs"
)

// A server that comes back gets all its copies without anybody using the sessions, by one host for all; then the others
// may fail.
func TestComesBackAndIsMended(t *testing.T) {
	for n := 2; n <= 3; n++ {
		mem, o := servers(t, n)
		c, d := open(t, o), open(t, o)
		ids := many(300)
		for i, id := range ids {
			s := mustCommit(t, c, id, &sessfs.Session{}, fmt.Sprint("data of ", id), nil)
			if i%10 == 9 {
				if was, _, err := c.Destroy(ctx, id); !was || err != nil {
					t.Fatal(s, was, err)
				}
			}
		}
		mended := func() bool {
			for _, c := range []*Cluster{c, d} {
				for _, s := range c.Servers(ctx) {
					if !s.Up || s.ToMend != 0 {
						return false
					}
				}
			}
			return true
		}
		for i, m := range mem {
			mustRead(t, d, ids[0])
			m.stop()
			for _, c := range []*Cluster{c, d} {
				until(t, "it is noticed", func() bool { return c.Check(ctx) != nil && c.servers()[i].down() })
			}
			m.start()
			until(t, "all is mended", mended)
			if got := copiesOf(t, o, ids[i]); got < 2 {
				t.Fatalf("%d servers, after number %d was restarted: %d copies", n, i+1, got)
			}
		}
		for i, id := range ids {
			s := mustRead(t, d, id)
			if i%10 == 9 && s.State != sessfs.Destroyed || i%10 != 9 && string(s.Data) != fmt.Sprint("data of ", id) {
				t.Fatalf("%d servers: %+v of %d", n, s, i)
			}
		}
	}
}
