package backend

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"sessfs"
)

// How many of so many servers may be down until sessions fail, and whether all do.
func TestReady(t *testing.T) {
	for _, c := range []struct {
		servers, replicas int
		majority          bool
		down              int
		says              string // "": ready
	}{
		{1, 1, false, 0, ""},
		{1, 1, false, 1, "1 of 1 cache servers are down (s0), 0 may be: sessions fail"},
		{3, 1, false, 1, "1 of 3 cache servers are down (s0), 0 may be: some sessions fail"},
		{3, 1, false, 3, "3 of 3 cache servers are down (s0, s1, s2), 0 may be: sessions fail"},
		{2, 2, false, 1, ""},
		{2, 2, false, 2, "2 of 2 cache servers are down (s0, s1), 1 may be: sessions fail"},
		{2, 2, true, 1, "1 of 2 cache servers are down (s0), 0 may be: sessions fail"},
		{3, 2, false, 1, ""},
		{3, 2, false, 2, "2 of 3 cache servers are down (s0, s1), 1 may be: sessions fail"},
		{5, 2, false, 1, ""},
		{5, 2, false, 2, "2 of 5 cache servers are down (s0, s1), 1 may be: some sessions fail"},
		{5, 2, false, 4, "4 of 5 cache servers are down (s0, s1, s2, s3), 1 may be: sessions fail"},
		{5, 3, false, 2, ""},
		{5, 3, false, 3, "3 of 5 cache servers are down (s0, s1, s2), 2 may be: sessions fail"},
	} {
		v := &view{replicas: c.replicas, majority: c.majority}
		for i := range c.servers {
			s := &server{name: fmt.Sprintf("s%d", i)}
			s.isDown.Store(i < c.down)
			v.servers = append(v.servers, s)
			v.nodes = append(v.nodes, node{s.name, 1})
		}
		cl := &Cluster{}
		cl.views.Store(&[]*view{v})
		err := cl.Ready()
		if c.says == "" && err != nil || c.says != "" && (!errors.Is(err, sessfs.ErrUnavailable) || !strings.HasPrefix(err.Error(), c.says+": ")) {
			t.Errorf("%+v: %v", c, err)
		}
		// The same as operations find when they choose a session's servers.
		failed := 0
		for i := range 200 {
			o := &operation{place: place{c: cl, id: sessfs.ID(fmt.Sprintf("sess_%d", i))}}
			if _, enough := o.choose(v, nil, 0); !enough {
				failed++
			}
		}
		if want := c.says == ""; (failed == 0) != want || (failed == 200) != strings.HasSuffix(c.says, ": sessions fail") {
			t.Errorf("%+v: %d of 200 sessions have too few servers", c, failed)
		}
	}
}
