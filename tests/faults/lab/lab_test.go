package lab

import (
	"flag"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sessfs/internal/testkit"
	"sessfs/tests/faults/lab/history"
)

var (
	seed    = flag.Uint64("seed", 0, "what everything is drawn from; 0: a new one")
	minutes = flag.Float64("minutes", 1.5, "how long faults are made")
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == clockVerb {
		printTime()
		return
	}
	testkit.Main(m)
}

// quiet fails the test when it leaves a goroutine behind. It comes first, so that its check comes last.
func quiet(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
}

func drawn() uint64 {
	if *seed != 0 {
		return *seed
	}
	return rand.Uint64N(1_000_000)
}

// One fault after the other, and no promise is broken.
func TestLab(t *testing.T) {
	quiet(t)
	breaches := Run(t, Plan{
		Seed: drawn(), Time: time.Duration(*minutes * float64(time.Minute)), Hosts: 3, Servers: 4, Spare: 1, Workers: 3,
		Pace: 30 * time.Millisecond, Kills: 4 * time.Second, Classes: Classes,
	})
	fail(t, breaches)
}

// Without faults, sessions are used by many at once that are destroyed all the time.
func TestDestroyed(t *testing.T) {
	for _, keep := range []string{"0s", "500ms"} {
		t.Run("keep="+keep, func(t *testing.T) {
			quiet(t)
			fail(t, Run(t, Plan{Seed: drawn(), Time: 10 * time.Second, Hosts: 2, Servers: 3, Workers: 4, Pace: time.Millisecond, Keep: keep, How: "mortal"}))
		})
	}
}

func fail(t *testing.T, breaches []history.Breach) {
	t.Helper()
	for i, b := range breaches {
		if i == 10 {
			t.Fatalf("and %d more", len(breaches)-i)
		}
		t.Errorf("%s: %s %s", b.Checker, b.Session, b.Text)
	}
}
