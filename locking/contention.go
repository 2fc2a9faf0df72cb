package locking

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"slices"
	"time"

	"sessfs"
)

// Contention tells who keeps whom waiting. Durations are as of now.
type Contention struct {
	Held      []HeldLock   `json:"held"`      // on this host, for long; the longest first
	Elsewhere []RemoteLock `json:"elsewhere"` // on other hosts, for long, and waited for here; the longest wait first
	Waits     []Wait       `json:"waits"`     // on this host; the longest first
}

// HeldLock is a lock that a process of this host holds.
type HeldLock struct {
	Session string        `json:"session"` // hash of the id
	PID     uint32        `json:"pid"`     // 0: not known (another pid namespace)
	Process string        `json:"process,omitempty"`
	Kind    string        `json:"kind"`
	For     time.Duration `json:"for_ns"`
	Waiters int           `json:"waiters"`   // on this host
	Longest time.Duration `json:"waited_ns"` // by the first of them
}

// RemoteLock is a lock of another host that processes of this one wait for.
type RemoteLock struct {
	Session string        `json:"session"` // hash of the id
	Host    string        `json:"host"`
	PID     uint32        `json:"pid"`       // that asked for it there
	Since   time.Time     `json:"since"`     // by that host's clock
	Waiters int           `json:"waiters"`   // on this host
	Longest time.Duration `json:"waited_ns"` // by the first of them
}

// Wait is a process that waits for a lock.
type Wait struct {
	Session string        `json:"session"` // hash of the id
	PID     uint32        `json:"pid"`     // 0: not known
	Process string        `json:"process,omitempty"`
	Kind    string        `json:"kind"`
	For     time.Duration `json:"for_ns"`
}

// Contention returns the locks that are held for as long as that or longer, or waited for so long, and the longest waits,
// most of each at most.
func (m *Manager) Contention(long time.Duration, most int) Contention {
	type found struct {
		id     sessfs.ID
		age    time.Duration
		here   HeldLock // or a wait
		remote RemoteLock
	}
	var held, elsewhere, waits []found
	now, clock := sessfs.Boottime(), time.Now()
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		for id, e := range s.entries {
			waiters, longest := 0, time.Duration(0)
			for _, w := range e.queue.waiters {
				if w.absent == 0 {
					waiters++
					age := time.Duration(now - w.since)
					longest = max(longest, age)
					waits = append(waits, found{id: id, age: age, here: HeldLock{PID: w.claim.pid, Kind: kindName(w.kind)}})
				}
			}
			for _, c := range e.queue.holders {
				if age := time.Duration(now - c.since); age >= long {
					held = append(held, found{id: id, age: age, here: HeldLock{PID: c.pid, Kind: kindName(e.queue.kind), Waiters: waiters, Longest: longest}})
				}
			}
			if h := e.elsewhere; h != nil && e.lease == nil && waiters > 0 && max(longest, clock.Sub(h.Since)) >= long {
				elsewhere = append(elsewhere, found{id: id, age: longest, remote: RemoteLock{Host: h.Host, PID: h.PID, Since: h.Since, Waiters: waiters, Longest: longest}})
			}
		}
		s.mu.Unlock()
	}
	first := func(all []found) []found {
		slices.SortFunc(all, func(a, b found) int { return cmp.Or(cmp.Compare(b.age, a.age), cmp.Compare(a.id, b.id)) })
		return all[:min(most, len(all))]
	}
	c := Contention{Held: []HeldLock{}, Elsewhere: []RemoteLock{}, Waits: []Wait{}}
	for _, f := range first(held) {
		l := f.here
		l.Session, l.Process, l.For = f.id.Hash(), processName(l.PID), f.age
		c.Held = append(c.Held, l)
	}
	for _, f := range first(elsewhere) {
		l := f.remote
		l.Session = f.id.Hash()
		c.Elsewhere = append(c.Elsewhere, l)
	}
	for _, f := range first(waits) {
		c.Waits = append(c.Waits, Wait{f.id.Hash(), f.here.PID, processName(f.here.PID), f.here.Kind, f.age})
	}
	return c
}

// processName is what the process calls itself (proc(5), comm); "" where it is gone or not known.
func processName(pid uint32) string {
	if pid == 0 {
		return ""
	}
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return string(bytes.TrimSuffix(b, []byte("\n")))
}

// LastLost is when a lock was last lost while it was held; zero: never.
func (m *Manager) LastLost() time.Time {
	if ns := m.counters.lastLost.Load(); ns != 0 {
		return time.Unix(0, ns)
	}
	return time.Time{}
}

// Named returns the session in use on this host that has a hash.
func (m *Manager) Named(hash string) (sessfs.ID, bool) {
	if len(hash) != len(sessfs.ID("").Hash()) {
		return "", false
	}
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		for id := range s.entries {
			if id.Hash() == hash {
				s.mu.Unlock()
				return id, true
			}
		}
		s.mu.Unlock()
	}
	return "", false
}
