package lab

import (
	"slices"
	"strings"
	"testing"
	"time"

	"sessfs/tests/faults/lab/proxy"
)

// Each promise is broken on purpose, by servers that lie or by workers that do; the checker of it must say so.
func TestBite(t *testing.T) {
	for _, c := range []struct {
		name     string
		double   func(host int) proxy.Double
		how      string
		abrupt   bool
		checkers string
	}{
		{name: "locks of each host apart", double: privateLocks, checkers: "exclusion"},
		{name: "no cas", double: noCas, checkers: "exclusion increments register"},
		{name: "acknowledged and not stored", double: forgetful, checkers: "fresh increments register"},
		{name: "no tombstones", double: noTombstones, how: "mortal", checkers: "revived register"},
		{name: "destroyed and still there", double: deathless, checkers: "fresh revived register"},
		{name: "locks that stay", double: lastingLocks, abrupt: true, checkers: "bounded"},
		{name: "torn values", how: "torn", checkers: "whole"},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			quiet(t)
			d := 8 * time.Second
			if c.abrupt {
				d += bounds.Wait
			}
			said := make(map[string]int)
			silent := func(checker string) bool { return said[checker] == 0 }
			checkers := strings.Fields(c.checkers)
			// Whether the workers meet in what they were made to meet in is chance.
			for run := 0; run < 3 && slices.ContainsFunc(checkers, silent); run++ {
				for _, b := range Run(t, Plan{Seed: drawn(), Time: d, Hosts: 2, Servers: 3, Workers: 4, Pace: time.Millisecond, Double: c.double, How: c.how, Abrupt: c.abrupt}) {
					said[b.Checker]++
				}
			}
			for _, checker := range slices.DeleteFunc(checkers, func(s string) bool { return !silent(s) }) {
				t.Errorf("%s says nothing", checker)
			}
			t.Log(said)
		})
	}
}
