package model

import (
	"strings"
	"testing"
	"unsafe"
)

func show(t *testing.T, w World) {
	res := w.Explore()
	t.Logf("%s: %d states, %s\n%s", w.Name, res.States, res.Kind, strings.Join(res.Trace, "\n"))
}

func TestProgress(t *testing.T) {
	t.Log(unsafe.Sizeof(state{}), unsafe.Sizeof(host{}))
	for _, fm := range []bool{true, false} {
		w := World{Servers: 3, Rules: AllRules(), Scripts: [hosts][]Request{{Read}, {Read}}, Mended: true, Patient: true, Stale: 1}
		w.Rules.FirstMember = fm
		g := w.graph()
		t.Log(len(g.states), g.stuck(), len(g.livelock()))
	}
}

func TestTwo(t *testing.T) {
	for _, f := range []Fault{0, Restart, Crash, Unreachable, Pause, Die, Lost, Cut} {
		for _, sc := range [][hosts][]Request{{{Commit}, {Commit}}, {{Commit}, {Destroy}}} {
			w := World{Name: "two", Servers: 2, Rules: AllRules(), Scripts: sc, Faults: f, Budget: 1}
			if f == 0 {
				w.Budget = 0
			}
			t.Log(f, sc)
			show(t, w)
		}
	}
}

func TestAlone(t *testing.T) {
	for _, f := range []Fault{Restart, Crash, Cut, Lost} {
		w := World{Name: "alone", Servers: 3, Rules: AllRules(), Scripts: [hosts][]Request{{Commit, Commit}, {}}, Faults: f, Budget: 1, Alone: true, Renews: true, Mended: true}
		t.Log(f)
		show(t, w)
	}
}

func TestMore(t *testing.T) {
	cd := [hosts][]Request{{Commit}, {Destroy}}
	cc := [hosts][]Request{{Commit}, {Commit}}
	for _, w := range []World{
		{Name: "two restarts renew cd", Servers: 3, Rules: AllRules(), Scripts: cd, Faults: Restart, Budget: 2, Mended: true, Renews: true},
		{Name: "two restarts renew cc", Servers: 3, Rules: AllRules(), Scripts: cc, Faults: Restart, Budget: 2, Mended: true, Renews: true},
	} {
		t.Log(w.Name)
		show(t, w)
		w.Rules.CasVoid = false
		show(t, w)
		w.Rules.CasVoid = true
		w.Rules.ReadAgain = false
		show(t, w)
	}
}

func TestSpeed(t *testing.T) {
	w := World{Name: "speed", Servers: 3, Rules: AllRules(), Scripts: [hosts][]Request{{Commit}, {Commit}}, Faults: Cut, Budget: 1, Mended: true}
	show(t, w)
}
