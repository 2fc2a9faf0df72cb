package model

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// full asks for the worlds that take minutes.
var full = os.Getenv("SESSFS_MODEL") == "full"

var (
	commits  = [hosts][]Request{{Commit}, {Commit}}
	reads    = [hosts][]Request{{Read}, {Read}}
	watched  = [hosts][]Request{{Commit}, {Read}}
	destroys = [hosts][]Request{{Commit}, {Destroy}}
	alone    = [hosts][]Request{{Commit, Commit}, {}}
)

var kinds = []Fault{0, Restart, Unreachable, Cut, Pause, Die, Crash, Lost}

var faultNames = map[Fault]string{0: "no fault", Restart: "a server restarts", Unreachable: "a server is unreachable", Cut: "a host and a server are cut off",
	Pause: "a host stops", Die: "a host dies", Restart | Unreachable: "a server restarts or is unreachable", Crash: "a server dies", Lost: "an answer is lost"}

// with makes a world of three servers out of what differs from it.
func with(change func(*World)) World {
	w := World{Servers: 3, Rules: AllRules(), Scripts: commits, Mended: true}
	change(&w)
	if w.Faults != 0 && w.Budget == 0 {
		w.Budget = 1
	}
	if w.Name == "" {
		w.Name = fmt.Sprintf("%d servers, %d x %s, %v, beliefs %d, flip %d", w.Servers, w.Budget, faultNames[w.Faults], w.Scripts, w.Stale, w.Flip)
		if w.Renews {
			w.Name += ", renews"
		}
	}
	return w
}

// small are the worlds of every test run, large those of SESSFS_MODEL=full.
func small() (out []World) {
	add := func(change func(*World)) { out = append(out, with(change)) }
	for _, scripts := range [][hosts][]Request{commits, destroys} {
		add(func(w *World) { w.Scripts, w.Mended = scripts, false })
		add(func(w *World) { w.Scripts, w.Stale = scripts, 1 })
		for _, f := range []Fault{Cut, Pause, Die, Lost} {
			add(func(w *World) { w.Scripts, w.Faults = scripts, f })
		}
		for _, f := range []Fault{Restart, Crash, Pause, Die, Lost} {
			add(func(w *World) { w.Servers, w.Scripts, w.Faults = 2, scripts, f })
		}
	}
	add(func(w *World) { w.Faults, w.Patient = Restart, true })
	add(func(w *World) { w.Scripts, w.Faults, w.Patient = watched, Unreachable, true })
	add(func(w *World) { w.Faults, w.Renews = Pause, true })
	add(func(w *World) { w.Scripts, w.Faults, w.Stale = [hosts][]Request{{}, {Destroy}}, Crash, 1 })
	for _, f := range []Fault{Restart, Crash, Unreachable, Cut, Lost} {
		add(func(w *World) {
			w.Name, w.Scripts, w.Faults, w.Alone, w.Renews = "alone, "+faultNames[f], alone, f, true, true
		})
	}
	return out
}

func large() (out []World) {
	add := func(change func(*World)) { out = append(out, with(change)) }
	for _, scripts := range [][hosts][]Request{commits, destroys} {
		for _, flip := range []uint8{0, 4} {
			if flip != 0 && scripts[1][0] == Commit {
				continue // the hosts are alike
			}
			for _, f := range kinds {
				add(func(w *World) { w.Scripts, w.Faults, w.Flip, w.Mended = scripts, f, flip, f&(Restart|Crash) != 0 })
				add(func(w *World) { w.Scripts, w.Faults, w.Flip, w.Stale = scripts, f, flip, 1 })
				add(func(w *World) { w.Servers, w.Scripts, w.Faults, w.Flip = 2, scripts, f, flip })
			}
		}
		for _, f := range kinds {
			add(func(w *World) { w.Scripts, w.Faults, w.Renews = scripts, f, true })
		}
		add(func(w *World) { w.Scripts, w.Stale = scripts, 2 })
		add(func(w *World) { w.Scripts, w.Faults, w.Budget = scripts, Restart, 2 })
	}
	add(func(w *World) { w.Scripts, w.Faults, w.Budget = watched, Restart|Unreachable, 2 })
	return out
}

// TestProtocol tries all orders of events: with every rule there is no breach, and no state from which nothing leads on.
func TestProtocol(t *testing.T) {
	worlds := small()
	if full {
		worlds = append(worlds, large()...)
	}
	for _, w := range worlds {
		t.Run(w.Name, func(t *testing.T) {
			if !full {
				t.Parallel()
			}
			res := w.Explore()
			t.Logf("%d states", res.States)
			if res.Kind != "" {
				t.Errorf("%s", strings.Join(res.Trace, "\n"))
			}
		})
	}
}

// TestRulesTakenOut takes out each rule and finds what it is for.
func TestRulesTakenOut(t *testing.T) {
	for _, c := range []struct {
		rule string
		out  func(*Rules)
		want Kind
		w    World
	}{
		{"lock on every member", func(u *Rules) { u.EveryMember = false }, TwoHolders,
			with(func(w *World) {})},
		{"the lock read again after the store", func(u *Rules) { u.LockAfterStore = false }, LateStore,
			with(func(w *World) { w.Faults = Pause })},
		{"a lock that was got in time", func(u *Rules) { u.InTime = false }, LostUpdate,
			with(func(w *World) { w.Faults, w.Down[1] = Pause, 0b001 })},
		{"cas of the version read", func(u *Rules) { u.Cas = false }, LostUpdate,
			with(func(w *World) { w.Faults = Pause })},
		{"mending before the lock counts", func(u *Rules) { u.Mending = false }, LostSession,
			with(func(w *World) { w.Scripts, w.Faults, w.Budget = reads, Restart, 2 })},
		{"two sets have a server in common", func(u *Rules) { u.Common = false }, TwoHolders,
			with(func(w *World) { w.Down[1] = 0b011 })},
		{"next counter after a failure in the middle", func(u *Rules) { u.NextCounter = false }, TwoSessions,
			with(func(w *World) { w.Faults = Lost })},
		{"tombstone", func(u *Rules) { u.Tombstone = false }, Comeback,
			with(func(w *World) { w.Scripts = destroys })},
		{"a tombstone far above", func(u *Rules) { u.TombstoneAbove = false }, Comeback,
			with(func(w *World) { w.Scripts, w.Faults, w.Flip = destroys, Lost, 4 })},
		{"a tombstone on every member", func(u *Rules) { u.TombstoneAll = false }, Comeback,
			with(func(w *World) { w.Scripts, w.Faults, w.Down[0] = destroys, Cut, 0b001 })},
		{"what is better than the version built on stays", func(u *Rules) { u.AboveBase, u.TombstoneAbove = false, false }, Comeback,
			with(func(w *World) { w.Scripts, w.Flip = destroys, 4 })},
		{"copies left behind are deleted later", func(u *Rules) { u.DropLater = false }, Comeback,
			with(func(w *World) { w.Scripts, w.Faults, w.Mended = destroys, Lost, false })},
		{"cas is void after a restart", func(u *Rules) { u.CasVoid = false }, Comeback,
			with(func(w *World) { w.Scripts, w.Faults, w.Budget, w.Renews = destroys, Restart, 2, true })},
		{"young servers do not count", func(u *Rules) { u.Young = false }, TwoHolders,
			with(func(w *World) { w.Scripts, w.Faults, w.Down[1] = reads, Restart, 0b010 })},
		{"a server that is marked down is asked again where others are young", func(u *Rules) { u.AskDown = false }, TwoHolders,
			with(func(w *World) { w.Scripts, w.Faults, w.Down[1] = reads, Restart, 0b010 })},
		{"members that turn out to be young", func(u *Rules) { u.YoungAgain = false }, TwoHolders,
			with(func(w *World) { w.Scripts, w.Faults, w.Down[1] = reads, Restart, 0b001 })},
		{"old members keep the lock until the new ones have it", func(u *Rules) { u.KeepOld = false }, TwoHolders,
			with(func(w *World) { w.Scripts, w.Faults, w.Down[1] = watched, Cut, 0b001 })},
		{"all members are read again after a change of the set", func(u *Rules) { u.ReadAgain = false }, Comeback,
			with(func(w *World) {
				w.Scripts, w.Faults, w.Budget, w.Renews = [hosts][]Request{{Read}, {Destroy}}, Restart, 2, true
			})},
		{"where decides between records of one counter", func(u *Rules) { u.Where = false }, LostUpdate,
			with(func(w *World) { w.Faults, w.Down[1] = Die, 0b001 })},
		{"a tie is never left to the nonces", func(u *Rules) { u.AskTie = false }, LostUpdate,
			with(func(w *World) { w.Faults, w.Down[1] = Lost, 0b001 })},
		{"a lock that is missing is put back", func(u *Rules) { u.PutBack = false }, Fails,
			with(func(w *World) { w.Scripts, w.Faults, w.Alone = alone, Restart, true })},
	} {
		t.Run(c.rule, func(t *testing.T) {
			t.Parallel()
			w := c.w
			w.Only = c.want
			c.out(&w.Rules)
			res := w.Explore()
			t.Logf("%d states\n%s", res.States, strings.Join(res.Trace, "\n"))
			if res.Kind != c.want {
				t.Errorf("found %q, want %q", res.Kind, c.want)
			}
		})
	}
}

// TestProgress: two that start at once. From every state the end can be reached, and there is no circle in which both go
// on for ever and neither gets the lock; without the rule of the first member there is one.
func TestProgress(t *testing.T) {
	w := with(func(w *World) { w.Scripts, w.Stale, w.Patient = reads, 2, true })
	for _, rule := range []bool{true, false} {
		w.Rules.FirstMember = rule
		g := w.graph()
		circle := g.livelock()
		t.Logf("rule of the first member %v: %d states, a circle of %d", rule, len(g.nodes), len(circle))
		if circle != nil {
			t.Logf("%s:\n%s", Livelock, strings.Join(g.lap(circle), "\n"))
		}
		if n := g.stuck(); n >= 0 {
			t.Errorf("the end cannot be reached from state %d", n)
		}
		if rule != (circle == nil) {
			t.Errorf("rule of the first member %v: a circle of %d states in which nobody gets the lock", rule, len(circle))
		}
	}
	for _, f := range []Fault{Pause, Die, Lost} {
		w := with(func(w *World) { w.Scripts, w.Faults = watched, f })
		g := w.graph()
		t.Logf("%s: %d states", faultNames[f], len(g.nodes))
		if n := g.stuck(); n >= 0 {
			t.Errorf("%s: the end cannot be reached from state %d", faultNames[f], n)
		}
	}
}
