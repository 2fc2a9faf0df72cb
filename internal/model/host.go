package model

// begin starts the next request of host h.
func (r *run) begin(h int) {
	x := &r.s.host[h]
	if !r.chooseAnew(h) {
		r.fail(h, "fewer servers than needed are left: the request")
		return
	}
	if r.w.Scripts[h][x.req] == Destroy {
		r.say("%s wants to destroy the session, on servers %s", name(h), servers(x.set))
		r.readAll(h)
		return
	}
	r.say("%s asks for the lock on servers %s", name(h), servers(x.set))
	r.ask(h, taking, x.set)
}

// chooseAnew chooses the set of host h anew. Servers that are marked down and can be reached may have answered a probe.
func (r *run) chooseAnew(h int) bool {
	x := &r.s.host[h]
	for i := range r.w.Servers {
		if bit := uint8(1) << i; x.down&bit&^x.cut != 0 && r.pick(2) == 1 {
			x.down &^= bit
			r.say("%s finds server %d up again", name(h), i)
		}
	}
	set, ok := r.w.choose(&r.s, x.down, x.cut)
	x.set = set
	return ok
}

// ask sends a take to the servers of to.
func (r *run) ask(h int, p phase, to uint8) {
	r.s.host[h].phase = p
	r.send(h, opTake, to)
	r.react(h)
}

func (r *run) send(h int, o op, to uint8) {
	for i := range r.w.Servers {
		if to&(1<<i) != 0 {
			r.s.host[h].op[i], r.s.host[h].pc[i] = o, 0
		}
	}
}

// react is what host h does when every batch has its answers.
func (r *run) react(h int) {
	x := &r.s.host[h]
	if x.phase == dead || x.op != [maxServers]uint8{} {
		return
	}
	switch x.phase {
	case taking:
		r.taken(h)
	case mending:
		r.mended(h)
	case renewing:
		r.touched(h)
	case storing:
		r.stored(h)
	case moving:
		r.moved(h)
	case cleaning:
		r.fail(h, "the write")
	case reading, burying:
		r.bury(h)
	}
}

// members is the servers of the set where the answer about the lock was v.
func (x *host) members(v uint8) uint8 {
	var m uint8
	for i, l := range x.lk {
		if l == v {
			m |= 1 << i
		}
	}
	return m & x.set
}

// markDown marks those that did not answer and forgets what they said.
func (r *run) markDown(h int) {
	x := &r.s.host[h]
	r.say("%s marks server %s down", name(h), servers(x.failed))
	x.down |= x.failed
	for i := range x.lk {
		if x.failed&(1<<i) != 0 {
			x.lk[i], x.seen[i], x.cas[i] = lockUnknown, nothing, casVoid
		}
	}
	x.failed = 0
}

// leave gives the locks back on servers that are no longer members.
func (r *run) leave(h int) {
	x := &r.s.host[h]
	for i := range r.w.Servers {
		if x.set&(1<<i) == 0 {
			x.lk[i] = lockUnknown
			if r.s.srv[i].lock == uint8(h+1) {
				r.s.srv[i].lock = orphan
			}
		}
	}
}

func (r *run) taken(h int) {
	x, u := &r.s.host[h], &r.w.Rules
	if x.failed != 0 {
		r.markDown(h)
		if !r.chooseAnew(h) {
			r.fail(h, "fewer servers than needed are left: the request")
			return
		}
		r.leave(h)
		r.say("%s goes on with servers %s", name(h), servers(x.set))
		if r.w.Rules.ReadAgain {
			r.ask(h, taking, x.set)
			return
		}
	}
	if more := x.members(lockUnknown); more != 0 {
		r.ask(h, taking, more)
		return
	}
	won, lost := x.members(lockOurs), x.members(lockOther)
	switch {
	case lost == 0, !u.EveryMember && won != 0:
		r.mend(h)
	case x.holds != 0:
		r.fail(h, "the lock is lost: the request")
	case r.keeps(won, lost) && (r.w.Patient || r.pick(2) == 0):
		r.say("%s keeps %s and asks again on %s", name(h), servers(won), servers(lost))
		r.ask(h, taking, lost)
	default:
		r.say("%s gives back what it has", name(h))
		r.giveBack(h)
	}
}

// keeps is the first-member rule.
func (r *run) keeps(won, lost uint8) bool {
	return r.w.Rules.FirstMember && won != 0 && first(won, 1) < first(lost, 1)
}

// retire makes the token of host h one of the past.
func (r *run) retire(h int) {
	for i := range r.s.srv {
		if r.s.srv[i].lock == uint8(h+1) {
			r.s.srv[i].lock = orphan
		}
	}
	r.s.host[h].ended, r.s.host[h].holds = 0, 0
}

// giveBack ends an attempt: the request goes on with another, later.
func (r *run) giveBack(h int) {
	x := &r.s.host[h]
	r.retire(h)
	*x = host{late: x.late, lateCas: x.lateCas, told: x.told, drop: x.drop, tell: x.tell, num: x.num, req: x.req, seq: x.seq, cut: x.cut, down: x.down}
}

// end ends the request.
func (r *run) end(h int) {
	r.giveBack(h)
	r.s.host[h].req++
}

// fail ends the request with an error.
func (r *run) fail(h int, what string) {
	r.say("%s: %s fails", name(h), what)
	if r.w.Alone {
		r.broken(Fails, "%s has no rival, and one fault is too few", name(h))
	}
	r.end(h)
}

// best is the best record that host h saw on the members, and where.
func (r *run) best(h int) (best record, on, ask uint8) {
	x := &r.s.host[h]
	return r.w.Rules.best(&x.seen, x.set, r.w.Flip)
}

// mend stores the best record on the members that lack it, and has the lock if there are none.
func (r *run) mend(h int) {
	x := &r.s.host[h]
	if more := r.short(h); more != 0 {
		r.say("%s needs server %s too: others are young", name(h), servers(more))
		x.set |= more
		r.ask(h, taking, more)
		return
	}
	best, _, ask := r.best(h)
	if ask != 0 && r.w.Rules.AskTie {
		if ask&x.cut != 0 {
			r.fail(h, "it cannot tell which record is the better: the request")
			return
		}
		r.say("%s asks server %s which record is the better", name(h), servers(ask))
		x.set |= ask
		r.ask(h, taking, ask)
		return
	}
	var lack, blind uint8
	for i := range r.w.Servers {
		if bit := uint8(1) << i; x.set&bit != 0 && x.seen[i].version() != best.version() {
			lack |= bit
			if x.seen[i] != nothing && x.cas[i] == casVoid {
				blind |= bit
			}
		}
	}
	if x.holds != 0 && best.version() != x.base.version() {
		r.fail(h, "the session has changed: the request")
		return
	}
	x.base = best
	switch {
	case lack == 0 || !r.w.Rules.Mending:
		r.acquired(h)
	case blind != 0:
		r.ask(h, taking, blind)
	default:
		r.say("%s mends %s with %v", name(h), servers(lack), best)
		x.phase, x.put = mending, best
		r.send(h, opSwap, lack)
	}
}

// short is what the set of host h lacks because members turned out to be young since it was chosen.
func (r *run) short(h int) uint8 {
	x := &r.s.host[h]
	if !r.w.Rules.YoungAgain {
		return 0
	}
	return r.w.join(&r.s, x.set, x.down, x.cut)
}

func (r *run) mended(h int) {
	x := &r.s.host[h]
	if x.failed != 0 {
		r.taken(h)
		return
	}
	for i := range r.w.Servers {
		if x.set&(1<<i) != 0 && x.seen[i].version() != x.put.version() {
			r.say("%s: something else is there now, it reads again", name(h))
			r.ask(h, taking, x.set)
			return
		}
	}
	r.mend(h)
}

// acquired: the lock counts from now on.
func (r *run) acquired(h int) {
	x := &r.s.host[h]
	if x.ended != 0 && r.w.Rules.InTime {
		r.say("%s got the lock too late, and gives it back", name(h))
		r.giveBack(h)
		return
	}
	r.say("%s has the lock on %s and read %v", name(h), servers(x.set), x.base)
	x.phase, x.holds, x.put = holding, 1, nothing
	r.s.settled = 1 // see mayFail
	r.checkAcquired(h)
}
