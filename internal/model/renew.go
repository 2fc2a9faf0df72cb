package model

// touch renews the lock of host h on every member.
func (r *run) touch(h int) {
	x := &r.s.host[h]
	r.say("%s renews its lock", name(h))
	x.phase, x.fresh = renewing, x.ended
	r.send(h, opTouch, x.set)
}

// touched judges the answers: the lease moves when every member has said that the lock is ours.
func (r *run) touched(h int) {
	x := &r.s.host[h]
	if x.failed != 0 {
		r.markDown(h)
		if !r.chooseAnew(h) {
			r.fail(h, "fewer servers than needed are left: the request")
			return
		}
		r.say("%s goes on with servers %s", name(h), servers(x.set))
	}
	ours, missing := x.members(lockOurs), x.members(lockMissing)
	switch more := x.members(lockUnknown); {
	case x.members(lockOther) != 0 || ours == 0:
		r.fail(h, "the lock is lost: the request")
	case more != 0:
		r.ask(h, renewing, more)
	case missing != 0:
		r.say("%s puts its lock back on %s", name(h), servers(missing))
		r.send(h, opPut, missing)
	default:
		r.leave(h)
		if x.fresh != 0 {
			x.ended = 0
		}
		r.say("%s has renewed its lock on servers %s", name(h), servers(x.set))
		x.phase, x.fresh = holding, 0
		r.remend(h)
	}
}

// remend gives members that joined with a renewal what they miss.
func (r *run) remend(h int) {
	x := &r.s.host[h]
	for i := range r.w.Servers {
		if x.set&(1<<i) != 0 && x.seen[i].version() != x.base.version() {
			if r.w.Rules.ReadAgain {
				r.ask(h, taking, x.set)
			} else {
				r.mend(h)
			}
			return
		}
	}
}
