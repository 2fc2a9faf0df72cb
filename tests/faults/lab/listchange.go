package lab

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// drawList is a change of the list of servers: one comes, another goes, and the hosts hear of it some seconds apart. The
// one that goes stays up: for a lifetime of sessions it is asked too.
func (l *Lab) drawList(r *rand.Rand) (string, func()) {
	var out []int
	for i := range l.servers {
		if !slices.Contains(l.list, i) {
			out = append(out, i)
		}
	}
	at, in := r.IntN(len(l.list)), out[r.IntN(len(out))]
	gone := l.list[at]
	list := slices.Clone(l.list)
	list[at] = in
	pauses := make([]time.Duration, len(l.hosts))
	for i := range pauses {
		pauses[i] = between(r, 0, 4*time.Second)
	}
	return fmt.Sprintf("%s for %s; a host hears of it after %v more each", l.servers[in].name, l.servers[gone].name, pauses), func() {
		l.list = list
		for i, h := range l.hosts {
			l.sleep(pauses[i])
			h.mount.Configure(l.conf(h))
		}
	}
}
