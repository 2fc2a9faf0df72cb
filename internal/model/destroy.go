package model

// readAll is the first step of a destroy, and of every one that found something in the way.
func (r *run) readAll(h int) {
	r.s.host[h].phase = reading
	r.send(h, opRead, r.s.host[h].set)
}

// farAbove is more than a commit can add by going on after failures.
const farAbove = 2

// bury stores the tombstone on every member that has neither it nor something better.
func (r *run) bury(h int) {
	x, u := &r.s.host[h], &r.w.Rules
	if x.failed != 0 {
		r.elsewhere(h)
		return
	}
	if more := r.short(h); more != 0 {
		x.set |= more
		x.phase = reading
		r.send(h, opRead, more)
		return
	}
	best, _, _ := r.best(h)
	if x.put == nothing && best == nothing {
		r.destroyed(h, nothing)
		return
	}
	if !u.Tombstone {
		r.deleteAll(h, best)
		return
	}
	var lack, live uint8
	for i := range r.w.Servers {
		if bit := uint8(1) << i; x.set&bit != 0 {
			if x.seen[i].live() {
				live |= bit
			}
		}
	}
	switch {
	case !u.TombstoneAll && live == 0:
		r.destroyed(h, best)
		return
	case x.put == nothing && best.tomb():
		x.put = best
	case x.put == nothing, !u.TombstoneAbove && best.live() && best.counter() >= x.put.counter():
		counter := best.counter() + 1
		if u.TombstoneAbove {
			counter += farAbove
		}
		x.put = r.draw(h, counter).withTomb().withIncarnation(best.incarnation())
		r.s.destroying = 1
	}
	for i := range r.w.Servers {
		bit := uint8(1) << i
		if better, _ := u.better(x.seen[i], bit, x.put, x.set&^bit, r.w.Flip); x.set&bit != 0 && x.seen[i].version() != x.put.version() && !better {
			lack |= bit
		}
	}
	if lack == 0 {
		r.destroyed(h, x.put)
		return
	}
	r.say("%s puts %v on %s", name(h), x.put, servers(lack))
	x.phase = burying
	r.send(h, opSwap, lack)
}

func (r *run) deleteAll(h int, best record) {
	x := &r.s.host[h]
	r.say("%s deletes the session", name(h))
	r.s.destroying = 1
	for i := range r.w.Servers {
		if x.set&(1<<i) != 0 {
			r.replace(i, nothing)
		}
	}
	r.destroyed(h, best)
}

func (r *run) destroyed(h int, tomb record) {
	r.say("%s: destroyed", name(h))
	r.s.settled = 1 // see mayFail
	r.checkDestroyed(h, tomb)
	r.tellOthers(h, tomb)
	r.end(h)
}

func (r *run) tellOthers(h int, tomb record) {
	x := &r.s.host[h]
	if tomb.tomb() {
		x.tell, x.told = r.w.candidates()&^x.set, tomb
	}
}

// elsewhere goes on with another set after a member has failed.
func (r *run) elsewhere(h int) {
	x := &r.s.host[h]
	r.markDown(h)
	if !r.chooseAnew(h) {
		r.fail(h, "fewer servers than needed are left: the request")
		return
	}
	r.say("%s goes on with servers %s", name(h), servers(x.set))
	r.readAll(h)
}

// background does the work that was left on server i: deletes an old copy, or stores the tombstone.
func (r *run) background(h, i int) {
	x, bit := &r.s.host[h], uint8(1)<<i
	found := r.s.srv[i].rec
	better, _ := r.w.Rules.better(found, bit, x.told, r.w.candidates()&^bit, r.w.Flip)
	if x.drop&bit != 0 {
		if x.drop &^= bit; found != nothing && !better {
			r.say("server %d: %s deletes the copy of %v that is left", i, name(h), found)
			r.replace(i, nothing)
		}
	} else {
		if x.tell &^= bit; !better && found.version() != x.told.version() {
			r.say("server %d: %s stores %v over %v", i, name(h), x.told, found)
			r.replace(i, x.told)
		}
	}
	if x.drop|x.tell == 0 {
		x.told = nothing
	}
}
