package model

// mayFail reports whether a fault may begin: the first at any time, another when the one before is over and somebody has
// had the lock since, with every server in use again.
func (r *run) mayFail(f Fault) bool {
	if r.s.faults == 0 || r.w.Faults&f == 0 {
		return false
	}
	if r.s.faults == r.w.Budget {
		return true
	}
	for i := range r.s.srv {
		if r.s.srv[i].young != 0 {
			return false
		}
	}
	for h := range hosts {
		if r.s.host[h].cut|r.s.host[h].down != 0 {
			return false
		}
	}
	return r.s.settled != 0
}

func (r *run) fault() {
	r.s.faults--
	r.unsettle()
}

// unsettle asks for a lock to be taken before another fault.
func (r *run) unsettle() {
	if r.s.faults > 0 {
		r.s.settled = 0
	}
}

// restart empties server i. What was on its way is gone with the connections.
func (r *run) restart(i int) {
	r.fault()
	r.say("server %d restarts, empty", i)
	r.lose(i, isYoung)
}

// crash is a restart that takes its time.
func (r *run) crash(i int) {
	r.fault()
	r.say("server %d dies", i)
	r.s.host[0].cut, r.s.host[1].cut = 1<<i, 1<<i
	r.lose(i, isOff)
}

func (r *run) lose(i int, age uint8) {
	r.s.srv[i] = server{young: age}
	for h := range hosts {
		x := &r.s.host[h]
		x.late[i], x.lateCas[i] = nothing, casVoid
		if x.cas[i] = casVoid; !r.w.Rules.CasVoid && x.seen[i] != nothing {
			x.cas[i] = casBefore
		}
	}
	for h := range hosts {
		if x := &r.s.host[h]; x.op[i] != opNone {
			x.op[i], x.pc[i] = opNone, 0
			x.failed |= 1 << i
			r.react(h)
		}
	}
}

// grow: server i has been up for a lease and a second. Whoever held a lock that it forgot has renewed it there.
func (r *run) grow(i int) bool {
	if r.s.srv[i].young != isYoung {
		return false
	}
	for h := range hosts {
		x := &r.s.host[h]
		if x.down != 0 || x.tell&^x.cut != 0 && x.phase != dead {
			return false // a probe and what waits for it take less time
		}
		if x.phase != idle && x.phase != dead && x.ended == 0 && (x.holds == 0 || x.set&(1<<i) != 0 && r.s.srv[i].lock != uint8(h+1)) {
			return false
		}
	}
	r.say("server %d is not young any more", i)
	r.s.srv[i].young = 0
	r.unsettle()
	return true
}

// unanswered: host h gets no answer from server i. The rest of the batch is lost, or executed, or arrives late.
func (r *run) unanswered(h, i int) {
	x := &r.s.host[h]
	o, first := x.op[i], x.pc[i] == 0
	x.op[i], x.pc[i] = opNone, 0
	x.failed |= 1 << i
	r.say("%s gets no answer from server %d", name(h), i)
	switch {
	case r.s.srv[i].young == isOff:
	case o == opTake && first || o == opPut:
		if r.s.srv[i].lock == free && r.pick(2) == 1 {
			r.s.srv[i].lock = uint8(h + 1)
			r.say("server %d: %s's lock is added", i, name(h))
		}
	case o == opStore && first || o == opSwap:
		rec, cas := x.put, x.cas[i]
		if o == opStore {
			rec = x.ours
		}
		if x.seen[i] == nothing {
			cas = casAdd
		}
		switch r.pick(3) {
		case 1:
			r.storeBy(h, i, rec, cas)
		case 2:
			x.late[i], x.lateCas[i] = rec, cas
		}
	}
	if r.w.Rules.CasVoid {
		x.cas[i] = casVoid
	}
	r.react(h)
}

// arrive executes a write that its host has given up.
func (r *run) arrive(h, i int) {
	x := &r.s.host[h]
	rec, cas := x.late[i], x.lateCas[i]
	x.late[i], x.lateCas[i] = nothing, casVoid
	r.say("server %d: a late write of %s arrives", i, name(h))
	r.storeBy(h, i, rec, cas)
}

// polls reports whether host h still waits: it asks for the lock when it has seen none of another on the first server.
func (r *run) polls(h int) bool {
	for i := range r.w.Servers {
		if bit := uint8(1) << i; bit == first(r.w.candidates()&^r.s.host[h].down, 1) {
			lock := r.s.srv[i].lock
			return lock != free && lock != orphan && lock != uint8(h+1)
		}
	}
	return false
}

// vanish removes a lock that nobody relies on, or whose lease has ended.
func (r *run) vanish(i int) bool {
	v := &r.s.srv[i]
	switch {
	case v.lock == free:
		return false
	case v.lock == orphan:
		r.say("server %d: a lock that was given back is gone", i)
	case r.s.host[v.lock-1].ended == 0:
		return false
	default:
		r.say("server %d: %s's lock expires", i, name(int(v.lock-1)))
	}
	v.lock = free
	return true
}
