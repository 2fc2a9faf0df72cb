package backend

import (
	"context"
	"fmt"
	"slices"
	"time"

	"sessfs"
)

// taking is an attempt to get a session's lock on all servers of its set.
type taking struct {
	operation
	hold    *hold
	exptime int64
	members []*asked // in the order of their names
	begun   time.Time
}

// asked is a member that was asked for the lock.
type asked struct {
	found
	answered bool // to the last question
	won      bool
	lock     seen
}

const (
	takeTries = 3                      // further attempts for the rest of the locks
	takeTime  = 100 * time.Millisecond // within which they are made
	takePause = 500 * time.Microsecond
)

// TryLock implements sessfs.Backend.
func (c *Cluster) TryLock(ctx context.Context, id sessfs.ID, holder sessfs.Holder) (*sessfs.Lease, *sessfs.Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	o := c.settings.Load()
	token := holder.WithToken().Token
	t := &taking{operation: c.operation(id), exptime: leaseSeconds(o.Lease), begun: time.Now()}
	t.hold = &hold{place: t.place, token: token, value: encodeLock(token, holder)}
	sent := sessfs.Boottime()
	v, held, err := t.run()
	if err != nil || !held {
		t.giveBack()
		return nil, v, err
	}
	t.hold.change(t.copies(), t.views)
	t.freeLeft(t.hold)
	if t.stoodIn {
		c.standIns.Add(1)
	}
	return &sessfs.Lease{ID: id, Token: token, Deadline: leaseEnd(sent, o.Lease), Keep: holder.Keep, Ref: t.hold}, v, nil
}

// copies are the members, with their locks.
func (t *taking) copies() []copied {
	members := make([]copied, len(t.members))
	for i, m := range t.members {
		members[i] = copied{m.s, m.lock}
	}
	return members
}

// run tells what the session is and whether the lock is held on all members, which then all have it.
func (t *taking) run() (*sessfs.Session, bool, error) {
	for try, mends := 0, 0; ; {
		if err := t.ask(); err != nil {
			return nil, false, err
		}
		lost := t.lost()
		if len(lost) > 0 {
			pause := max(time.Since(t.begun), takePause) << try
			if try++; try > takeTries || t.givesWay() || time.Since(t.begun)+pause > min(takeTime, time.Until(t.deadline)) {
				v, err := t.snapshot(t.list())
				return v, false, err
			}
			time.Sleep(pause)
			for _, m := range lost {
				m.answered = false
			}
			continue
		}
		again, err := t.mend()
		if err != nil {
			return nil, false, err
		}
		if !again {
			v, err := t.snapshot(t.list())
			if err == nil {
				t.remember(v)
			}
			return v, true, err
		}
		if mends++; mends > 5 || t.late() {
			return nil, false, fmt.Errorf("locking session %s: %w: its copies changed all the time", t.id.Hash(), sessfs.ErrUnavailable)
		}
	}
}

// remember keeps what was read under the lock for the next time.
func (t *taking) remember(v *sessfs.Session) {
	if !t.c.cache.wants(t.id, len(v.Data)) {
		return
	}
	if b, _ := best(t.list()); b != nil && b.rec.version == v.Version {
		k := cached{rec: b.rec, data: v.Data, copies: refOf(v).copies, parts: t.parts}
		if b.kept != nil && k.parts == nil {
			k.parts = b.kept.parts
		}
		t.c.cache.saw(k)
	}
}

// ask asks those members that have not answered for the lock and the record, and all of them once more when the set has
// changed meanwhile: what was read before may have been replaced on the member that is gone.
func (t *taking) ask() error {
	for {
		failed := len(t.out)
		if err := t.askSet(); err != nil {
			return err
		}
		again, err := t.untie(t.list())
		if err != nil {
			return err
		}
		if len(t.out) > failed {
			again = true
			for _, m := range t.members {
				m.answered = false
			}
		}
		if !again {
			return nil
		}
	}
}

// askSet asks those members that have not answered.
func (t *taking) askSet() error {
	find := func(s *server) *asked {
		for _, m := range t.members {
			if m.s == s {
				return m
			}
		}
		return nil
	}
	set, err := ask(&t.operation,
		func(s *server) bool { m := find(s); return m != nil && m.answered },
		func(s *server) func() (locked, error) {
			return s.beginLock(t.c.cache.ask(t.id, s), t.place, t.hold.value, t.exptime, t.step())
		},
		func(s *server, l locked, err error) bool {
			m := find(s)
			if m == nil {
				m = &asked{}
				t.members = append(t.members, m)
			}
			if err != nil {
				m.s, m.won = s, true // it may have been got
				t.failed(s, err)
				return false
			}
			if l.changed { // it is asked again, for the value
				*m = asked{found: found{s: s}, won: ownLock(l.lock, t.hold.token)}
				return false
			}
			*m = asked{found: t.found(s, l.data, l.epoch), answered: true, won: ownLock(l.lock, t.hold.token), lock: seen{l.epoch, l.lock.cas}}
			if m.err != nil && !slices.Contains(t.weak, s) {
				t.weak = append(t.weak, s)
				return false
			}
			return true
		})
	if err != nil {
		return err
	}
	members := make([]*asked, len(set))
	for i, s := range set {
		members[i] = find(s)
	}
	for _, m := range t.members {
		if !slices.Contains(members, m) {
			t.left = append(t.left, m.s)
		}
	}
	t.members = members
	return nil
}

// lost are the members whose lock somebody else has.
func (t *taking) lost() (list []*asked) {
	for _, m := range t.members {
		if !m.won {
			list = append(list, m)
		}
	}
	return list
}

// givesWay tells whether the rest of the locks is not waited for: of those that take a lock at the same time the one goes
// on that has the first. A young server, which may have forgotten whose it is, does not decide that.
func (t *taking) givesWay() bool {
	now := sessfs.Boottime()
	for _, m := range t.members {
		if !m.s.young(now) {
			return !m.won
		}
	}
	return !t.members[0].won
}

// giveBack frees what was won.
func (t *taking) giveBack() {
	t.hold.end()
	t.freeLeft(t.hold)
	for _, m := range t.members {
		switch w, ok := m.s.connected().(metaWire); {
		case !m.won:
		case ok && m.answered:
			w.release(t.hold, m.lock, true)
		default:
			m.s.releaseByToken(t.hold)
		}
	}
}

func (t *taking) list() []found {
	list := make([]found, len(t.members))
	for i, m := range t.members {
		list[i] = m.found
	}
	return list
}

// mend stores the best record on those members that miss it. It reports true when members must be asked again.
func (t *taking) mend() (again bool, err error) {
	if len(t.members) == 1 {
		return false, t.members[0].err
	}
	list := t.list()
	b, err := best(list)
	if err != nil || b == nil {
		return false, err
	}
	waits := make([]func() (stored, error), len(t.members))
	n := 0
	for i, m := range t.members {
		if m.rec == nil || m.rec.version != b.rec.version {
			waits[i] = t.beginCopy(b, &list[i])
			n++
		}
	}
	t.c.together(n)
	for i, wait := range waits {
		if wait == nil {
			continue
		}
		m := t.members[i]
		out, err := wait()
		switch {
		case err == nil && out.code == codeStored:
			m.found = found{s: m.s, item: item{found: true, value: b.value, cas: out.cas, kept: b.kept}, epoch: out.epoch, rec: b.rec}
			t.c.mended.Add(1)
		case err == nil && out.code == codeRefused:
			t.failed(m.s, t.c.refusal(t.id, m.s, out, b.rec.length))
			again = true
		case err != nil && err != errVoid:
			t.failed(m.s, err)
			again = true
		default: // something else is there now
			m.answered, again = false, true
		}
	}
	return again, nil
}
