package model

import "hash/maphash"

// An action is one event of a world: something a host does, a server executes, or that fails.
type action struct {
	what uint8
	h, i uint8
}

const (
	actBegin uint8 = iota
	actExec
	actUnanswered
	actWork
	actRenew
	actVanish
	actArrive
	actBackground
	actGrow
	actHeal
	actRestart
	actCrash
	actUnreachable
	actCut
	actPause
	actDie
	actLost
)

// actions lists everything that may ever happen in a world.
func (w *World) actions() []action {
	var out []action
	for what := range actLost + 1 {
		for h := range uint8(hosts) {
			for i := range uint8(w.Servers) {
				switch what {
				case actBegin, actWork, actRenew, actPause, actDie:
					if i > 0 {
						continue
					}
				case actVanish, actGrow, actRestart, actCrash, actUnreachable:
					if h > 0 {
						continue
					}
				case actHeal:
					if i > 0 || h > 0 {
						continue
					}
				}
				out = append(out, action{what, h, i})
			}
		}
	}
	return out
}

// do executes an action and reports whether it was possible; if not, nothing has changed.
func (r *run) do(a action) bool {
	h, i := int(a.h), int(a.i)
	x, bit := &r.s.host[h], uint8(1)<<i
	switch a.what {
	case actBegin:
		if x.phase != idle || int(x.req) == len(r.w.Scripts[h]) || r.w.Patient && r.polls(h) {
			return false
		}
		r.begin(h)
	case actExec:
		if x.op[i] == opNone || x.cut&bit != 0 {
			return false
		}
		r.exec(h, i)
	case actUnanswered:
		if x.op[i] == opNone || x.cut&bit == 0 {
			return false
		}
		r.unanswered(h, i)
	case actWork:
		if x.phase != holding {
			return false
		}
		r.work(h)
	case actRenew:
		if x.phase != holding || !r.w.Renews {
			return false
		}
		r.touch(h)
	case actVanish:
		return r.vanish(i)
	case actArrive:
		if x.late[i] == nothing {
			return false
		}
		r.arrive(h, i)
	case actBackground:
		if (x.drop|x.tell)&bit&^x.cut == 0 || x.phase == dead || x.drop&bit != 0 && r.w.Rules.DropLater && r.s.host[1-h].early&beforeCommit != 0 && r.s.host[1-h].phase != dead {
			return false
		}
		r.background(h, i)
	case actGrow:
		return r.grow(i)
	case actHeal:
		if r.s.host[0].cut|r.s.host[1].cut == 0 {
			return false
		}
		r.say("all servers can be reached again")
		r.s.host[0].cut, r.s.host[1].cut = 0, 0
		for i := range r.s.srv {
			if r.s.srv[i].young == isOff {
				r.s.srv[i].young = isYoung
			}
		}
		r.unsettle()
	case actRestart:
		if !r.mayFail(Restart) {
			return false
		}
		r.restart(i)
	case actCrash:
		if !r.mayFail(Crash) {
			return false
		}
		r.crash(i)
	case actUnreachable:
		if !r.mayFail(Unreachable) {
			return false
		}
		r.fault()
		r.say("server %d cannot be reached", i)
		r.s.host[0].cut, r.s.host[1].cut = bit, bit
	case actCut:
		if !r.mayFail(Cut) {
			return false
		}
		r.fault()
		r.say("%s does not reach server %d", name(h), i)
		x.cut = bit
	case actPause:
		if x.phase == idle || x.phase == reading || x.phase == burying || !r.mayFail(Pause) {
			return false
		}
		r.fault()
		r.say("%s stops for longer than its lease", name(h))
		x.ended, x.fresh = 1, 0
	case actDie:
		if x.phase == idle || !r.mayFail(Die) {
			return false
		}
		r.fault()
		r.say("%s dies", name(h))
		x.phase, x.ended, x.holds = dead, 1, 0
	case actLost:
		if x.op[i] == opNone || !r.mayFail(Lost) {
			return false
		}
		r.fault()
		r.unanswered(h, i)
	}
	return true
}

// each calls f with every state that action a may lead to from s. r.s is s before and after.
func (r *run) each(s *state, a action, f func()) {
	r.picks, r.limits = r.picks[:0], r.limits[:0]
	for {
		r.at, r.breach, r.kind = 0, "", ""
		r.words = r.words[:0]
		if !r.do(a) {
			return
		}
		f()
		r.s = *s
		n := len(r.picks)
		for n > 0 && r.picks[n-1]+1 == r.limits[n-1] {
			n--
		}
		if n == 0 {
			return
		}
		r.picks, r.limits = r.picks[:n], r.limits[:n]
		r.picks[n-1]++
	}
}

// Result is what an exploration found.
type Result struct {
	States int
	Kind   Kind // empty: no breach
	Trace  []string
}

type node struct {
	s      state
	parent int32
	by     action
}

type key [2]uint64

var seeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}

func keyOf(s *state) key {
	return key{maphash.Comparable(seeds[0], *s), maphash.Comparable(seeds[1], *s)}
}

// Explore tries every order of events, breadth first, and stops at the first breach: the shortest way to one.
func (w *World) Explore() Result {
	r := run{w: w}
	actions := w.actions()
	seen := make(map[key]struct{})
	var nodes []node
	for _, s := range w.starts() {
		seen[keyOf(&s)] = struct{}{}
		nodes = append(nodes, node{s: s, parent: -1})
	}
	for n := 0; n < len(nodes); n++ {
		s := nodes[n].s
		r.s = s
		moved, broken := false, false
		for _, a := range actions {
			r.each(&s, a, func() {
				if moved = true; broken {
					return
				}
				k := keyOf(&r.s)
				_, known := seen[k]
				if !known {
					r.checkState()
				}
				if broken = r.kind != ""; known && !broken {
					return
				}
				seen[k] = struct{}{}
				nodes = append(nodes, node{r.s, int32(n), a})
			})
			if broken {
				last := len(nodes) - 1
				kind, trace := w.trace(nodes, last)
				return Result{States: len(nodes), Kind: kind, Trace: trace}
			}
		}
		if !moved && !s.over(w) {
			_, trace := w.trace(nodes, n)
			return Result{States: len(nodes), Kind: Deadlock, Trace: trace}
		}
	}
	return Result{States: len(nodes)}
}

// over reports whether every host has done its requests, or is dead.
func (s *state) over(w *World) bool {
	for h := range hosts {
		if x := &s.host[h]; x.phase != dead && int(x.req) < len(w.Scripts[h]) {
			return false
		}
	}
	return true
}
