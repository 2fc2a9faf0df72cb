package fusefs

import (
	"time"

	"sessfs"
)

// A mark remembers, for one process, that a session was missing when the truth was asked (by OPEN, GETATTR or
// ACCESS), so that the LOOKUP which the kernel sends next says ENOENT, and CREATE finds the lock and the answer
// already here (rule 6).
type mark struct {
	key     markKey
	made    int64 // Boottime
	until   int64 // Boottime
	lookups int   // that are sure to come
	told    int64 // Boottime: when it was last set or looked up
	claim   sessfs.Claim
	session *sessfs.Session
}

type markKey struct {
	id  sessfs.ID
	pid uint32
}

const (
	markLife = time.Second
	// markPatience is how long the LOOKUPs after an OPEN may take: the kernel sends two of them, each under the
	// directory's lock, and hundreds of processes may stand before it. One that is told that the session exists ends
	// in a second ESTALE, which PHP would hear.
	markPatience = 20 * time.Second
	markLookups  = 2
	// markPrompt is how soon after stat's ENOENT a LOOKUP is believed to belong to the open that follows it, and how soon
	// after the first LOOKUP of an OPEN the second one comes, if it comes: of a later one nobody knows to which system
	// call it belongs, and another host may have made the session since.
	markPrompt = 50 * time.Millisecond
	maxMarks   = 4096
)

// marks is guarded by FS.mu. Both queues are in the order in which their marks were made, which is that of their end but
// for marks that end early.
type marks struct {
	byKey map[markKey]*mark
	fresh []*mark // younger than markLife: these keep their claims
	late  []*mark // whose LOOKUPs may still come
}

func (m *marks) init() { m.byKey = make(map[markKey]*mark) }

// set makes a mark, with a claim where OPEN makes it. It returns the claims of marks that had to give way; the caller
// closes them without FS.mu.
func (m *marks) set(key markKey, claim sessfs.Claim, s *sessfs.Session) (ended []sessfs.Claim) {
	now := sessfs.Boottime()
	ended = m.expire(now)
	if old := m.byKey[key]; old != nil {
		if claim == nil {
			old.until, old.told = max(old.until, now+int64(markLife)), now
			return ended
		}
		ended = append(ended, m.end(old)...)
	}
	if len(m.byKey) >= maxMarks {
		q := &m.late
		if len(*q) == 0 {
			q = &m.fresh
		}
		ended = append(ended, m.end((*q)[0])...)
		*q = (*q)[1:]
	}
	mk := &mark{key: key, made: now, told: now, until: now + int64(markLife), claim: claim, session: s}
	if claim != nil {
		mk.lookups, mk.until = markLookups, now+int64(markPatience)
	}
	m.byKey[key] = mk
	m.fresh = append(m.fresh, mk)
	return ended
}

// ask tells a LOOKUP whether the session was missing for that process just now, or that it was some time ago, and the
// truth must be asked for again. The caller closes what has ended.
func (m *marks) ask(key markKey) (missing, again bool, ended []sessfs.Claim) {
	mk, now := m.byKey[key], sessfs.Boottime()
	if mk == nil || mk.until <= now {
		return false, false, nil
	}
	if mk.lookups < markLookups && mk.told+int64(markPrompt) < now {
		return false, true, m.end(mk)
	}
	mk.told = now
	if mk.lookups--; mk.lookups <= 0 { // what comes next is a CREATE, or nothing
		mk.until = min(mk.until, now+int64(markLife))
	}
	return true, false, nil
}

// take ends a mark and hands over what it kept.
func (m *marks) take(key markKey) (claim sessfs.Claim, s *sessfs.Session, ok bool) {
	mk := m.byKey[key]
	if mk == nil {
		return nil, nil, false
	}
	delete(m.byKey, key)
	claim, mk.claim = mk.claim, nil
	return claim, mk.session, true
}

// drop ends the mark of key, if there is one, and hands over its claim.
func (m *marks) drop(key markKey) (ended []sessfs.Claim) {
	if mk := m.byKey[key]; mk != nil {
		ended = m.end(mk)
	}
	return ended
}

func (m *marks) end(mk *mark) (ended []sessfs.Claim) {
	if m.byKey[mk.key] == mk {
		delete(m.byKey, mk.key)
	}
	return m.endClaim(mk)
}

func (m *marks) endClaim(mk *mark) (ended []sessfs.Claim) {
	if mk.claim != nil {
		ended = append(ended, mk.claim)
		mk.claim = nil
	}
	return ended
}

// expire ends the marks and claims whose time is over.
func (m *marks) expire(now int64) (ended []sessfs.Claim) {
	for len(m.fresh) > 0 {
		mk := m.fresh[0]
		current := m.byKey[mk.key] == mk
		if current && mk.made+int64(markLife) > now {
			break
		}
		m.fresh = m.fresh[1:]
		if current && mk.until > now {
			ended = append(ended, m.endClaim(mk)...)
			m.late = append(m.late, mk)
		} else {
			ended = append(ended, m.end(mk)...)
		}
	}
	for len(m.late) > 0 && (m.late[0].until <= now || m.byKey[m.late[0].key] != m.late[0]) {
		ended = append(ended, m.end(m.late[0])...)
		m.late = m.late[1:]
	}
	if len(m.fresh) == 0 {
		m.fresh = nil
	}
	if len(m.late) == 0 {
		m.late = nil
	}
	return ended
}
