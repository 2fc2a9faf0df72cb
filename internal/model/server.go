package model

import "fmt"

// run executes one action on a state. Where the protocol or the world leaves a choice it calls pick; the explorer runs
// the action again for every answer.
type run struct {
	w      *World
	s      state
	picks  []uint8 // answers to give, then those given
	limits []uint8 // how many answers each had
	at     int
	talk   bool
	words  []string
	breach string
	kind   Kind
}

// pick chooses a number below n.
func (r *run) pick(n uint8) uint8 {
	if n < 2 {
		return 0
	}
	if r.at == len(r.picks) {
		r.picks = append(r.picks, 0)
		r.limits = append(r.limits, n)
	}
	r.at++
	return r.picks[r.at-1]
}

func (r *run) say(format string, args ...any) {
	if r.talk {
		r.words = append(r.words, fmt.Sprintf(format, args...))
	}
}

// name is host h in a trace.
func name(h int) string { return string(rune('A' + h)) }

// exec lets server i execute the next command of the batch of host h, each atomically. Neighbouring commands are taken
// together where nothing that may come between makes a difference that another order does not make.
func (r *run) exec(h, i int) {
	x := &r.s.host[h]
	switch x.op[i] {
	case opTake:
		if x.pc[i] == 0 {
			r.addLock(h, i)
			x.pc[i] = 1
			return
		}
		r.readRecord(h, i)
	case opStore, opLook:
		if x.pc[i] == 0 {
			if x.op[i] == opStore {
				r.store(h, i, x.ours)
			}
			r.readRecord(h, i)
			if x.pc[i] = 1; r.w.Rules.LockAfterStore {
				return
			}
			x.lk[i] = lockOurs
			break
		}
		r.readLock(h, i)
	case opTouch:
		r.readLock(h, i)
	case opPut:
		r.addLock(h, i)
	case opSwap:
		r.store(h, i, x.put)
		r.readRecord(h, i)
	case opRead:
		r.readRecord(h, i)
	}
	x.op[i], x.pc[i] = opNone, 0
	r.react(h)
}

func (r *run) addLock(h, i int) {
	x, v := &r.s.host[h], &r.s.srv[i]
	if v.lock == free {
		v.lock = uint8(h + 1)
		r.say("server %d: %s's lock is added", i, name(h))
	}
	x.lk[i] = r.lockSeen(h, i)
	if x.lk[i] != lockOurs {
		r.say("server %d: %s finds another's lock", i, name(h))
	}
}

func (r *run) readLock(h, i int) {
	r.s.host[h].lk[i] = r.lockSeen(h, i)
	r.say("server %d: %s reads the lock: %s", i, name(h), [...]string{"", "ours", "another's", "none"}[r.s.host[h].lk[i]])
}

func (r *run) lockSeen(h, i int) uint8 {
	switch r.s.srv[i].lock {
	case uint8(h + 1):
		return lockOurs
	case free:
		return lockMissing
	}
	return lockOther
}

func (r *run) readRecord(h, i int) {
	x := &r.s.host[h]
	x.seen[i], x.cas[i] = r.s.srv[i].rec, casCurrent
	r.say("server %d: %s reads %v", i, name(h), x.seen[i])
}

// store stores rec on server i as host h would: by add where it saw nothing, else by the cas it has.
func (r *run) store(h, i int, rec record) {
	x := &r.s.host[h]
	cas := x.cas[i]
	if x.seen[i] == nothing {
		cas = casAdd
	}
	r.storeBy(h, i, rec, cas)
}

func (r *run) storeBy(h, i int, rec record, cas uint8) {
	v := &r.s.srv[i]
	ok := cas == casCurrent && v.rec != nothing || cas == casAdd && v.rec == nothing || !r.w.Rules.Cas && !rec.tomb()
	if !ok {
		r.say("server %d: %s cannot store %v over %v", i, name(h), rec, v.rec)
		return
	}
	r.say("server %d: %s stores %v over %v", i, name(h), rec, v.rec)
	r.replace(i, rec)
}

// replace puts rec on server i under a new cas.
func (r *run) replace(i int, rec record) {
	r.s.srv[i].rec = rec
	for h := range hosts {
		x := &r.s.host[h]
		x.cas[i] = r.newCas(h, i, x.cas[i])
		if x.lateCas[i] != casAdd {
			x.lateCas[i] = r.newCas(h, i, x.lateCas[i])
		}
	}
}

// newCas is what a remembered cas is worth after another was drawn.
func (r *run) newCas(h, i int, cas uint8) uint8 {
	if cas == casBefore {
		if r.pick(2) == 1 {
			r.say("server %d: its new cas happens to be the one that %s remembers from before the restart", i, name(h))
			return casCurrent
		}
		return casBefore
	}
	return casVoid
}
