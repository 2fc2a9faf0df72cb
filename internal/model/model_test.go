package model

import (
	"strings"
	"testing"
)

func TestOut(t *testing.T) {
	outs := map[string]func(*Rules){
		"EveryMember":    func(u *Rules) { u.EveryMember = false },
		"LockAfterStore": func(u *Rules) { u.LockAfterStore = false },
		"Cas":            func(u *Rules) { u.Cas = false },
		"Mending":        func(u *Rules) { u.Mending = false },
		"Common":         func(u *Rules) { u.Common = false },
		"NextCounter":    func(u *Rules) { u.NextCounter = false },
		"Tombstone":      func(u *Rules) { u.Tombstone = false },
		"CasVoid":        func(u *Rules) { u.CasVoid = false },
		"Young":          func(u *Rules) { u.Young = false },
		"Where":          func(u *Rules) { u.Where = false },
		"AboveBase":      func(u *Rules) { u.AboveBase = false },
		"PutBack":        func(u *Rules) { u.PutBack = false },
		"DropLater":      func(u *Rules) { u.DropLater = false },
		"Drop":           func(u *Rules) { u.Drop = false },
		"TombstoneAbove": func(u *Rules) { u.TombstoneAbove = false },
		"TombstoneAll":   func(u *Rules) { u.TombstoneAll = false },
	}
	names := []string{"EveryMember", "LockAfterStore", "Cas", "Mending", "Common", "NextCounter", "Tombstone", "CasVoid", "Young", "Where", "AboveBase", "PutBack", "DropLater", "Drop", "TombstoneAbove", "TombstoneAll"}
	for _, n := range names {
		for _, f := range []Fault{0, Restart, Cut, Pause, Die, Lost} {
			for _, sc := range [][hosts][]Request{{{Commit}, {Commit}}, {{Commit}, {Destroy}}} {
				for _, flip := range []uint8{0, 4} {
					w := World{Servers: 3, Rules: AllRules(), Scripts: sc, Faults: f, Budget: 1, Flip: flip, Mended: f == Restart}
					outs[n](&w.Rules)
					if f == 0 {
						w.Budget = 0
					}
					res := w.Explore()
					if res.Kind != "" {
						t.Logf("%s fault %d %v %d: %d states, %s\n%s", n, f, sc, flip, res.States, res.Kind, strings.Join(res.Trace, "\n"))
					}
				}
			}
		}
	}
}
