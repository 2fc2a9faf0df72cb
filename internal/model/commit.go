package model

// work is what PHP does with the lock: nothing, or a change that is committed.
func (r *run) work(h int) {
	x := &r.s.host[h]
	if r.w.Scripts[h][x.req] == Read {
		r.say("%s releases", name(h))
		r.end(h)
		return
	}
	counter := x.base.counter() + 1
	if x.base == nothing {
		counter = r.newestCounter() + 1 // the time
	}
	x.ours = r.draw(h, counter).withCommits(1 << (2*h + int(x.num)))
	x.num++
	if x.base.live() {
		x.ours = x.ours.withCommits(x.base.commits()).withIncarnation(x.base.incarnation())
	} else if x.base.tomb() || r.s.destroying != 0 {
		x.ours = x.ours.withIncarnation(1)
	}
	r.say("%s commits %v", name(h), x.ours)
	x.phase = storing
	r.send(h, opStore, x.set)
}

// draw makes a record with a new nonce.
func (r *run) draw(h, counter int) record {
	x := &r.s.host[h]
	x.seq = x.seq%3 + 1
	if counter > maxCounter {
		panic("model: the counter is too large for this world")
	}
	return newRecord(counter, uint8(h)<<2|x.seq, x.set)
}

func (r *run) newestCounter() int {
	n := r.s.acknowledged.counter()
	for i := range r.s.srv {
		n = max(n, r.s.srv[i].rec.counter())
	}
	for h := range hosts {
		n = max(n, r.s.host[h].ours.counter(), r.s.host[h].put.counter())
	}
	return n
}

// stored judges the answers to a commit.
func (r *run) stored(h int) {
	x := &r.s.host[h]
	var again, conflict, lost uint8
	for i := range r.w.Servers {
		bit := uint8(1) << i
		if x.set&bit == 0 || x.failed&bit != 0 {
			continue
		}
		f := x.seen[i]
		switch {
		case f.version() == x.ours.version():
		case f == nothing:
			if again |= bit; x.base.tomb() {
				conflict |= bit
			}
		case r.replaceable(h, i):
			again |= bit
		default:
			conflict |= bit
		}
		if x.lk[i] == lockOther {
			lost |= bit
		}
	}
	missing, ours := x.members(lockMissing)&^x.failed, x.members(lockOurs)&^x.failed
	if missing != 0 && (ours == 0 || !r.w.Rules.PutBack) {
		lost |= missing
	}
	switch {
	case conflict|lost != 0:
		r.say("%s: conflict on %s, lock lost on %s", name(h), servers(conflict), servers(lost))
		r.clean(h)
	case x.failed != 0:
		r.lostAnswer(h)
	case missing != 0:
		r.say("%s puts its lock back on %s", name(h), servers(missing))
		r.send(h, opPut, missing)
	case again != 0:
		r.say("%s stores again on %s", name(h), servers(again))
		r.send(h, opStore, again)
	default:
		r.acknowledge(h)
	}
}

// replaceable reports whether what was found in the way on server i may be replaced by the commit of host h: the version
// built on, one that is not better, or an earlier attempt of the same commit.
func (r *run) replaceable(h, i int) bool {
	x, u := &r.s.host[h], &r.w.Rules
	f, bit := x.seen[i], uint8(1)<<i
	if f.version() == x.base.version() || f.by(h) && f.live() && f.counter() > x.base.counter() && f.commits() == x.ours.commits() {
		return true
	}
	if u.AboveBase {
		better, _ := u.better(f, bit, x.base, x.set&^bit, r.w.Flip)
		return !better
	}
	better, _ := u.better(f, bit, x.ours, x.set, r.w.Flip)
	return !better
}

// lostAnswer: a member's answer did not come. It is looked at on a new connection, or another takes its place.
func (r *run) lostAnswer(h int) {
	x := &r.s.host[h]
	if look := x.failed &^ x.cut; look != 0 && r.pick(2) == 0 {
		r.say("%s looks at server %s on a new connection", name(h), servers(look))
		x.failed &^= look
		for i := range x.cas {
			if look&(1<<i) != 0 {
				x.cas[i], x.lk[i] = casVoid, lockUnknown
			}
		}
		r.send(h, opLook, look)
		return
	}
	r.markDown(h)
	if !r.chooseAnew(h) {
		r.fail(h, "fewer servers than needed are left: the request")
		return
	}
	if !r.w.Rules.KeepOld {
		r.leave(h)
	}
	r.say("%s goes on with servers %s", name(h), servers(x.set))
	x.phase = moving
	r.moved(h)
}

// moved has the answers of the new members.
func (r *run) moved(h int) {
	x := &r.s.host[h]
	if x.failed != 0 {
		r.lostAnswer(h)
		return
	}
	if more := x.members(lockUnknown); more != 0 {
		r.ask(h, moving, more)
		return
	}
	if lost := x.members(lockOther); lost != 0 {
		if r.pick(2) == 0 {
			r.ask(h, moving, lost)
			return
		}
		r.say("%s does not get the lock on %s", name(h), servers(lost))
		r.clean(h)
		return
	}
	for i := range r.w.Servers {
		if f := x.seen[i]; x.set&(1<<i) != 0 && f != nothing && !r.replaceable(h, i) && f.version() != x.ours.version() {
			r.say("%s: conflict on %d", name(h), i)
			r.clean(h)
			return
		}
	}
	r.leave(h)
	counter := x.ours.counter()
	if r.w.Rules.NextCounter {
		counter++
	}
	old := x.ours
	x.ours = r.draw(h, counter).withCommits(old.commits()).withIncarnation(old.incarnation())
	r.say("%s commits %v instead", name(h), x.ours)
	x.phase = storing
	r.send(h, opStore, x.set)
}

// clean puts the better record where ours went in, and fails the write.
func (r *run) clean(h int) {
	x := &r.s.host[h]
	best, _, _ := r.best(h)
	x.phase, x.put = cleaning, best
	for i := range r.w.Servers {
		if x.set&(1<<i) != 0 && x.failed&(1<<i) == 0 && best.version() != x.ours.version() && x.seen[i].version() == x.ours.version() {
			r.say("%s puts %v back on server %d", name(h), best, i)
			r.send(h, opSwap, 1<<i)
		}
	}
	r.react(h)
}

// acknowledge answers PHP, and releases.
func (r *run) acknowledge(h int) {
	x := &r.s.host[h]
	r.say("%s: the write of %v is acknowledged", name(h), x.ours)
	r.checkAcknowledged(h)
	if gone := x.base.where() &^ x.set; gone != 0 {
		x.drop, x.told = gone, x.ours
		if o := &r.s.host[1-h]; o.phase != idle {
			o.early |= beforeCommit
		}
	}
	r.end(h)
}
