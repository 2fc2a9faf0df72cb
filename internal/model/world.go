package model

const (
	maxServers = 3
	hosts      = 2
)

// Request is what one PHP request does with the session.
type Request uint8

const (
	Commit  Request = iota // take the lock, read, store a changed session, release
	Read                   // take the lock, read, release
	Destroy                // unlink: without the lock
)

func (q Request) String() string { return [...]string{"commit", "read", "destroy"}[q] }

// Fault is one kind of failure.
type Fault uint8

const (
	Restart     Fault = 1 << iota // a server loses everything and counts cas from zero
	Unreachable                   // nobody reaches a server for a while; it keeps its data
	Cut                           // one host does not reach one server for a while
	Pause                         // a host stops for longer than its lease, and goes on
	Die                           // a host dies
	Crash                         // a server dies, and is up again later, empty
	Lost                          // the answer to one batch is lost
)

// World is a small world to explore.
type World struct {
	Name    string
	Servers int
	Rules   Rules
	Scripts [hosts][]Request
	Faults  Fault
	Budget  uint8 // how many faults, one after the other
	// Down are servers that the hosts wrongly believe down at first, after a fault that is over. Stale tries every
	// belief of that kind, with this many servers in all.
	Down   [hosts]uint8
	Stale  int
	Mended bool  // the session lies on its first servers
	Flip   uint8 // which of two nonces is the greater, see better
	// Patient: who keeps what it won asks until it has the rest. Of worlds where nobody holds for long.
	Patient bool
	Renews  bool // holders renew their lock
	// Alone: there is one host, so that none of its requests may fail.
	Alone bool
	// Only is the one promise to look at; empty: all.
	Only Kind
}

func (w *World) candidates() uint8 { return 1<<w.Servers - 1 }

func (w *World) need() int {
	if w.Servers == 2 || !w.Rules.Common {
		return 1
	}
	return w.Servers/2 + 1
}

const replicas = 2

// The lock item of a server. A token that its host has given up is only in the way until its delete arrives or it
// expires: orphan stands for all of them.
const (
	free   uint8 = 0 // and h+1: the token of host h
	orphan uint8 = hosts + 1
)

const (
	isYoung uint8 = 1 // up for less than a lease and a second
	isOff   uint8 = 2 // it has died and is not up again
)

type server struct {
	rec   record
	lock  uint8
	young uint8
}

// What the host remembers of the cas it read on a server.
const (
	casVoid    uint8 = iota // none, or of something that has changed since
	casCurrent              // of what is there now
	casBefore               // of before a restart: it may be drawn again by chance
	casAdd                  // of late writes alone: an add
)

// What a batch said about the lock.
const (
	lockUnknown uint8 = iota
	lockOurs
	lockOther
	lockMissing
)

// A batch of commands to one server.
type op = uint8

const (
	opNone  op = iota
	opTake     // add the lock and read it; read the record
	opStore    // store ours, read back; read the lock
	opLook     // read the record; read the lock
	opPut      // add the lock and read it
	opSwap     // store put, read back
	opRead     // read the record
	opTouch    // touch the lock and read it
)

// What a host is doing.
type phase = uint8

const (
	idle     phase = iota
	taking         // asks for the lock
	mending        // gives members what they miss
	holding        // PHP works
	storing        // commit
	moving         // takes the lock on new members in the middle of a commit
	cleaning       // puts the better record where ours went in
	reading        // destroy: reads all
	burying        // destroy: stores the tombstone
	renewing       // renews its lock
	dead
)

const (
	beforeDestroy uint8 = 1 << iota // a destroy
	beforeCommit                    // a commit of the other host that left copies behind
)

type host struct {
	seen, late            [maxServers]record // what was read where; writes that may still arrive
	base, ours, put, told record             // built on; to be stored; mended or tombstone; of background work
	op, pc, lk            [maxServers]uint8
	cas, lateCas          [maxServers]uint8
	phase, req, set, down uint8
	failed, seq, cut      uint8
	drop, tell, num       uint8 // background work left: copies to delete, servers to tell of a tombstone; commits so far
	holds, ended          uint8
	early                 uint8 // began before something was acknowledged
	fresh                 uint8 // the renewal was sent after the lease had ended
}

// state is all of a world. It has no padding, so that it is hashed as plain memory.
type state struct {
	host                  [hosts]host
	srv                   [maxServers]server
	acknowledged          record   // the newest acknowledged
	acked                 [2]uint8 // commits acknowledged, by incarnation
	destroying, destroyed uint8    // a tombstone was sent; a destroy of the first incarnation was acknowledged
	faults, settled       uint8    // faults that may still come; see mayFail
}

// starts yields the first states: every set the session may lie on, every wrong belief.
func (w *World) starts() []state {
	var out []state
	beliefs := []uint8{0}
	for d := uint8(1); w.Stale > 0 && d <= w.candidates(); d++ {
		if n := count(d); n <= w.Stale {
			beliefs = append(beliefs, d)
		}
	}
	for set := uint8(1); set <= w.candidates(); set++ {
		if count(set) != replicas || w.Mended && set != first(w.candidates(), replicas) {
			continue
		}
		for _, a := range beliefs {
			for _, b := range beliefs {
				if count(a|b) > w.Stale {
					continue
				}
				var s state
				for i := range w.Servers {
					if set&(1<<i) != 0 {
						s.srv[i].rec = newRecord(1, 0, set)
					}
				}
				s.acknowledged = newRecord(1, 0, set)
				s.host[0].down, s.host[1].down = a|w.Down[0], b|w.Down[1]
				s.faults = w.Budget
				out = append(out, s)
			}
		}
	}
	return out
}

func count(set uint8) int {
	n := 0
	for ; set != 0; set &= set - 1 {
		n++
	}
	return n
}

// first is the first n servers of a set; the order of names is the order of numbers.
func first(set uint8, n int) uint8 {
	var out uint8
	for i := 0; i < maxServers && n > 0; i++ {
		if set&(1<<i) != 0 {
			out |= 1 << i
			n--
		}
	}
	return out
}

// choose is the set of a host that believes down to be down and does not reach cut. ok is false where too few are left.
func (w *World) choose(s *state, down, cut uint8) (set uint8, ok bool) {
	left := w.candidates() &^ down
	if count(left) < w.need() {
		return 0, false
	}
	set = first(left, replicas)
	return set | w.join(s, set, down, cut), true
}

// join is what a set needs beside its members because some are young.
func (w *World) join(s *state, set, down, cut uint8) (more uint8) {
	if !w.Rules.Young {
		return 0
	}
	var young uint8
	for i := range w.Servers {
		if s.srv[i].young == isYoung {
			young |= 1 << i
		}
	}
	old := w.candidates() &^ set &^ young
	more = first(old&^down, max(0, w.need()-count(set&^young)))
	if w.Rules.AskDown {
		more |= first(old&down&^cut, max(0, w.need()-count((set|more)&^young)))
	}
	return more
}

// off reports whether a server of the set has died and is not up again.
func (w *World) off(s *state, set uint8) bool {
	for i := range w.Servers {
		if set&(1<<i) != 0 && s.srv[i].young == isOff {
			return true
		}
	}
	return false
}
