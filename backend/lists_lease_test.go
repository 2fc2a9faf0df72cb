package backend

import (
	"fmt"
	"testing"
	"time"

	"sessfs"
)

// A lease that was taken by a list that is dropped while it is held excludes those who only know the next list, and what
// is stored under it is found by them.
func TestALeaseOutlivesItsList(t *testing.T) {
	mem, o := servers(t, 4)
	o.Lifetime = time.Hour
	all := o.Servers
	o.Servers, o.Replicas = all[:2], 2
	c := open(t, o)
	ids := many(8)
	var leases []*sessfs.Lease
	for _, id := range ids {
		l, _ := mustLock(t, c, id)
		leases = append(leases, l)
	}
	if err := c.SetServers(all[2:], 2, false); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for _, l := range leases {
			if err := c.Renew(ctx, l); err != nil {
				t.Fatal(err)
			}
		}
	}
	tell(mem, nil) // a lifetime later, or when the old list was dropped
	o.Servers = all[2:]
	d := open(t, o)
	for i, id := range ids {
		if other, _, err := d.TryLock(ctx, id, holder); err != nil || other != nil {
			t.Fatalf("two holders: %v", err)
		}
		mustCommit(t, c, id, &sessfs.Session{}, fmt.Sprint(i), leases[i])
		if s := mustRead(t, d, id); string(s.Data) != fmt.Sprint(i) {
			t.Fatalf("what was acknowledged is %+v", s)
		}
	}
}
