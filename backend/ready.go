package backend

import (
	"fmt"
	"strings"

	"sessfs"
)

// Ready tells whether every session has enough servers that are not marked down, by all lists that are in use. If not, the
// error wraps sessfs.ErrUnavailable and names those that are.
func (c *Cluster) Ready() error {
	for _, v := range *c.views.Load() {
		var down []string
		for _, s := range v.servers {
			if s.down() {
				down = append(down, s.name)
			}
		}
		candidates := min(len(v.servers), 2*v.replicas-1)
		spare := candidates - v.need(candidates)
		if len(down) <= spare {
			continue
		}
		failing := "sessions fail"
		if up := len(v.servers) - len(down); len(v.servers) > candidates && up >= v.need(candidates) {
			failing = "some sessions fail"
		}
		return fmt.Errorf("%d of %d cache servers are down (%s), %d may be: %s: %w", len(down), len(v.servers),
			strings.Join(down, ", "), spare, failing, sessfs.ErrUnavailable)
	}
	return nil
}
