// Package handover kills and replaces daemons under a standing mount, with real PHP at work (P5).
package handover

import (
	"os"
	"strings"
	"testing"
	"time"

	"sessfs/internal/testkit"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == actorArg {
		act(os.Args[2])
		return
	}
	testkit.Main(m)
}

func servers(t *testing.T, n int) (list []*testkit.Memcached) {
	t.Helper()
	for range n {
		list = append(list, testkit.StartMemcached(t))
	}
	return list
}

// state is what a daemon says of itself.
type state struct {
	PID     int `json:"pid"`
	Daemons int
	Files   struct {
		OpenFiles    int `json:"open_files"`
		OpenSessions int `json:"open_sessions"`
	}
	Locking struct {
		Claims, Leases, Waiting int
		LocksLost               int `json:"locks_lost"`
	}
}

func status(t *testing.T, h *testkit.Host) (s state) {
	t.Helper()
	h.Status(&s)
	return s
}

// kill ends the daemon and waits until another one answers.
func kill(t *testing.T, h *testkit.Host) {
	t.Helper()
	served := func() int { return strings.Count(h.Log(), "another daemon serves") }
	before := served()
	h.Process().KillDaemon()
	testkit.Until(t, 20*time.Second, "another daemon serves; log:\n"+h.Log(), func() bool { return served() > before })
	time.Sleep(320 * time.Millisecond) // one that dies younger is not replaced at once
}

// want fails when PHP printed something else.
const (
	start = testkit.PHPStart
	write = testkit.PHPWrite
	read  = testkit.PHPRead
)
