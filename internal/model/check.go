package model

import "fmt"

// Kind is a promise that was broken.
type Kind string

// The promises, and what a world that stands still is.
const (
	TwoHolders  Kind = "two holders"
	LateStore   Kind = "a store after the lease, when another has it"
	LostUpdate  Kind = "an acknowledged update lost"
	LostSession Kind = "a session lost"
	Comeback    Kind = "a destroyed session comes back"
	TwoSessions Kind = "two different sessions of one version"
	Fails       Kind = "a request fails without need"
	Deadlock    Kind = "deadlock"
	Livelock    Kind = "nobody gets the lock"
)

func (r *run) broken(k Kind, format string, args ...any) {
	if r.kind == "" && (r.w.Only == "" || r.w.Only == k) {
		r.kind, r.breach = k, "BREACH, "+string(k)+": "+fmt.Sprintf(format, args...)
	}
}

// checkAcquired: exclusion, and that a locked read shows what was acknowledged.
func (r *run) checkAcquired(h int) {
	x, o := &r.s.host[h], &r.s.host[1-h]
	if o.holds != 0 && o.ended == 0 && x.ended == 0 {
		r.broken(TwoHolders, "%s and %s", name(h), name(1-h))
	}
	r.checkRead(x.base, h, x.set)
}

// checkRead: what is read from set has every commit that was acknowledged. h is the host, -1 for any.
func (r *run) checkRead(rec record, h int, set uint8) {
	s, who := &r.s, reader{h, set}
	i := rec.incarnation()
	switch {
	case rec == nothing:
		if s.destroying == 0 {
			r.broken(LostSession, "%s reads nothing", who)
		}
	case h >= 0 && s.host[h].early&beforeDestroy != 0:
	case rec.live() && i == 0 && s.destroyed != 0:
		r.broken(Comeback, "%s reads %v", who, rec)
	case i == 0 && s.acked[1] != 0, rec.live() && s.acked[i]&^rec.commits() != 0:
		r.broken(LostUpdate, "%s reads %v, but %v was acknowledged", who, rec, s.acknowledged)
	}
}

// checkAcknowledged notes a commit of host h that is acknowledged now.
func (r *run) checkAcknowledged(h int) {
	s, x, o := &r.s, &r.s.host[h], &r.s.host[1-h]
	i := x.ours.incarnation()
	if o.holds != 0 && o.ended == 0 && (o.base.incarnation() != i || x.ours.commits()&^o.base.commits() != 0) {
		r.broken(LateStore, "%s has the lock and read %v, and %v of %s is acknowledged", name(1-h), o.base, x.ours, name(h))
	}
	newest := s.acknowledged
	behind := newest.incarnation() > i || newest.incarnation() == i && x.ours.commits()&^newest.commits() == 0
	if s.acked[i]&^x.ours.commits() != 0 && !behind {
		r.broken(LostUpdate, "%v is built on %v, but %v was acknowledged", x.ours, x.base, newest)
	}
	s.acked[i] |= x.ours.commits() &^ x.base.commits()
	if !behind {
		s.acknowledged = x.ours
	}
}

// checkDestroyed notes that a destroy is acknowledged: best is what it left. Who reads at this moment may still see the session.
func (r *run) checkDestroyed(h int, best record) {
	if best.incarnation() != 0 {
		return
	}
	r.s.destroyed = 1
	if o := &r.s.host[1-h]; o.phase != idle {
		o.early |= beforeDestroy
	}
}

// checkState is made after every event: whoever reads now, from any set of the protocol, sees what was acknowledged,
// and no version names two sessions.
func (r *run) checkState() {
	s, w := &r.s, r.w
	if r.kind != "" {
		return
	}
	a := s.acknowledged
	for i := range w.Servers {
		if f := s.srv[i].rec; f.counter() == a.counter() && f.version() != a.version() && !f.tomb() && f.nonce()>>2 == a.nonce()>>2 {
			r.broken(TwoSessions, "server %d has %v, and %v was acknowledged", i, f, a)
		}
	}
	var found [maxServers]record
	for i := range w.Servers {
		found[i] = s.srv[i].rec
	}
	for down := uint8(0); down <= w.candidates(); down++ {
		if down != 0 && down != s.host[0].cut|s.host[1].cut && down != s.host[0].down && down != s.host[1].down {
			continue
		}
		set, ok := w.choose(s, down, 0)
		if !ok || w.off(s, set) {
			continue
		}
		best, _, ask := w.Rules.best(&found, set, w.Flip)
		if ask != 0 && w.Rules.AskTie {
			best, _, _ = w.Rules.best(&found, set|ask, w.Flip)
		}
		if r.checkRead(best, -1, set); r.kind != "" {
			return
		}
	}
}

type reader struct {
	h   int
	set uint8
}

func (r reader) String() string {
	if r.h < 0 {
		return "whoever reads from servers " + servers(r.set)
	}
	return name(r.h) + ", who has the lock on servers " + servers(r.set) + ","
}
