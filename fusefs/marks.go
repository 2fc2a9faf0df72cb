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
	until   int64 // Boottime
	claim   sessfs.Claim
	session *sessfs.Session
}

type markKey struct {
	id  sessfs.ID
	pid uint32
}

const (
	markLife = time.Second
	maxMarks = 4096
)

// marks is guarded by FS.mu. All marks live equally long, so they end in the order in which they were made.
type marks struct {
	byKey map[markKey]*mark
	queue []*mark
}

func (m *marks) init() { m.byKey = make(map[markKey]*mark) }

// set makes a mark. It returns the claims of marks that had to give way; the caller closes them without FS.mu.
func (m *marks) set(key markKey, claim sessfs.Claim, s *sessfs.Session) (ended []sessfs.Claim) {
	now := sessfs.Boottime()
	ended = m.expire(now)
	if old := m.byKey[key]; old != nil {
		if claim == nil {
			old.until = now + int64(markLife)
			return ended
		}
		ended = append(ended, m.end(old)...)
	}
	if len(m.byKey) >= maxMarks && len(m.queue) > 0 {
		ended = append(ended, m.end(m.queue[0])...)
		m.queue = m.queue[1:]
	}
	mk := &mark{key: key, until: now + int64(markLife), claim: claim, session: s}
	m.byKey[key] = mk
	m.queue = append(m.queue, mk)
	return ended
}

// has reports whether the session was missing for that process just now.
func (m *marks) has(key markKey) bool {
	mk := m.byKey[key]
	return mk != nil && mk.until > sessfs.Boottime()
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

func (m *marks) end(mk *mark) (ended []sessfs.Claim) {
	if m.byKey[mk.key] == mk {
		delete(m.byKey, mk.key)
	}
	if mk.claim != nil {
		ended = append(ended, mk.claim)
		mk.claim = nil
	}
	return ended
}

// expire ends the marks whose time is over.
func (m *marks) expire(now int64) (ended []sessfs.Claim) {
	for len(m.queue) > 0 && (m.queue[0].until <= now || m.byKey[m.queue[0].key] != m.queue[0]) {
		ended = append(ended, m.end(m.queue[0])...)
		m.queue = m.queue[1:]
	}
	if len(m.queue) == 0 {
		m.queue = nil
	}
	return ended
}
