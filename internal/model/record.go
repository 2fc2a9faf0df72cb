package model

import (
	"fmt"
	"strings"
)

// record is what a server keeps for the session: 0 is nothing, otherwise from the low bits: counter (4), nonce (3: host
// and a number of its own), where (3: servers it was sent to), tombstone (1), the commits in it (4), incarnation (1).
type record uint16

const nothing record = 0

const maxCounter = 15

func newRecord(counter int, nonce, where uint8) record {
	return record(counter) | record(nonce)<<4 | record(where)<<7
}

func (r record) counter() int       { return int(r & 15) }
func (r record) nonce() uint8       { return uint8(r>>4) & 7 }
func (r record) where() uint8       { return uint8(r>>7) & 7 }
func (r record) tomb() bool         { return r>>10&1 != 0 }
func (r record) commits() uint8     { return uint8(r>>11) & 15 }
func (r record) incarnation() uint8 { return uint8(r >> 15) }
func (r record) live() bool         { return r != nothing && !r.tomb() }

// version is counter and nonce: what tells records apart.
func (r record) version() record { return r & 127 }

// by reports whether host h drew the nonce. The first record of a world is by nobody.
func (r record) by(h int) bool { return r.nonce()&3 != 0 && int(r.nonce()>>2) == h }

func (r record) withTomb() record               { return r | 1<<10 }
func (r record) withCommits(c uint8) record     { return r | record(c)<<11 }
func (r record) withIncarnation(i uint8) record { return r | record(i)<<15 }

// String is for traces: "v2(A1) on 0,1".
func (r record) String() string {
	if r == nothing {
		return "nothing"
	}
	name := "v"
	if r.tomb() {
		name = "tombstone "
	}
	from := "start"
	if n := r.nonce(); n != 0 {
		from = fmt.Sprintf("%c%d", 'A'+n>>2, n&3)
	}
	s := fmt.Sprintf("%s%d(%s, for %s)", name, r.counter(), from, servers(r.where()))
	if r.incarnation() != 0 {
		s += " of the new session"
	}
	return s
}

// servers writes a set of servers: "0,2".
func servers(set uint8) string {
	var s []string
	for i := range maxServers {
		if set&(1<<i) != 0 {
			s = append(s, fmt.Sprint(i))
		}
	}
	return strings.Join(s, ",")
}

// better reports whether a, found on the servers in ha, is better than b, found on hb. Nonces are drawn at random, so
// flip chooses which of two is the greater. sure is false where only the nonces decide.
func (u *Rules) better(a record, ha uint8, b record, hb, flip uint8) (yes, sure bool) {
	if a == nothing || b == nothing || a.version() == b.version() {
		return a != nothing && b == nothing, true
	}
	if a.counter() != b.counter() {
		return a.counter() > b.counter(), true
	}
	if u.Where {
		aNames, bNames := a.where()&hb != 0, b.where()&ha != 0
		if aNames != bNames {
			return bNames, true
		}
	}
	return a.nonce()^flip > b.nonce()^flip, false
}

// best is the best of the records found on the servers of set. Where only nonces decide, ask are the servers that both
// records were sent to: they know more.
func (u *Rules) best(found *[maxServers]record, set, flip uint8) (best record, on, ask uint8) {
	holders := func(v record) (m uint8) {
		for i, f := range found {
			if set&(1<<i) != 0 && f.version() == v.version() {
				m |= 1 << i
			}
		}
		return m
	}
	for i, f := range found {
		if set&(1<<i) == 0 || f == nothing || on&(1<<i) != 0 {
			continue
		}
		h := holders(f)
		yes, sure := u.better(f, h, best, on, flip)
		if !sure {
			ask |= f.where() & best.where() &^ set
		}
		if yes {
			best, on = f, h
		}
	}
	return best, on, ask
}
