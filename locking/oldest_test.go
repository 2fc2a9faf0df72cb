package locking

import (
	"testing"
	"time"

	"sessfs"
)

// Oldest and the times of waits tell of the lock that is held and the call that waits.
func TestOldest(t *testing.T) {
	m := New(servers(t), Options{Host: "a", Settings: Settings{Lease: 2 * time.Second}})
	defer m.Close()
	if held, waited := m.Oldest(); held != 0 || waited != 0 {
		t.Errorf("of nothing: %v, %v", held, waited)
	}
	first, _ := mustOpen(t, m, true)
	defer first.Close()
	if !first.LockAtOnce(sessfs.Exclusive) {
		t.Fatal("the lock is not got at once")
	}
	time.Sleep(30 * time.Millisecond)
	second, _ := mustOpen(t, m, true)
	defer second.Close()
	got := waitFor(t, m, second)
	time.Sleep(20 * time.Millisecond)
	held, waited := m.Oldest()
	if waited < 20*time.Millisecond || held < waited+30*time.Millisecond || held > 10*time.Second {
		t.Errorf("held %v, waited %v", held, waited)
	}
	if n := m.Stats().WaitTimes.Count; n != 0 {
		t.Errorf("%d waits are over", n)
	}
	first.Unlock()
	<-got
	s := m.Stats()
	if s.WaitTimes.Count != 1 || s.WaitTimes.Sum < 20*time.Millisecond || s.WaitTimes.Sum > s.LongestWait {
		t.Errorf("waits are %+v, the longest %v", s.WaitTimes, s.LongestWait)
	}
	if _, waited := m.Oldest(); waited != 0 {
		t.Errorf("waited %v, and nobody waits", waited)
	}
}
