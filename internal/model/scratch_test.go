package model

import (
	"strings"
	"testing"
	"time"
)

func TestStale(t *testing.T) {
	outs := map[string]func(*Rules){
		"Young":        func(u *Rules) { u.Young = false },
		"YoungAgain":   func(u *Rules) { u.YoungAgain = false },
		"AskDown":      func(u *Rules) { u.AskDown = false },
		"AskTie":       func(u *Rules) { u.AskTie = false },
		"Where":        func(u *Rules) { u.Where = false },
		"WhereAskTie":  func(u *Rules) { u.Where, u.AskTie = false, false },
		"KeepOld":      func(u *Rules) { u.KeepOld = false },
		"TombstoneAll": func(u *Rules) { u.TombstoneAll = false },
		"CasVoid":      func(u *Rules) { u.CasVoid = false },
		"NextCounter":  func(u *Rules) { u.NextCounter = false },
	}
	for n, out := range outs {
		start := time.Now()
	found:
		for _, f := range []Fault{Die, Cut, Pause, Lost, Restart} {
			for _, sc := range [][hosts][]Request{{{Commit}, {Destroy}}, {{Commit}, {Commit}}} {
				for _, flip := range []uint8{0, 4} {
					w := World{Servers: 3, Rules: AllRules(), Scripts: sc, Faults: f, Budget: 1, Flip: flip, Stale: 1, Mended: true}
					if f == Restart && (n == "KeepOld" || n == "TombstoneAll" || n == "WhereAskTie" || n == "Where" || n == "NextCounter" || flip != 0) {
						continue
					}
					if n == "NextCounter" {
						w.noTwo = true
					}
					out(&w.Rules)
					res := w.Explore()
					if res.Kind != "" {
						t.Logf("%s fault %d %v %d: %d states, %s\n%s", n, f, sc, flip, res.States, res.Kind, strings.Join(res.Trace, "\n"))
						break found
					}
				}
			}
		}
		t.Logf("%s %v", n, time.Since(start))
	}
}
