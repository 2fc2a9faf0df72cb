package handover

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"sessfs/internal/testkit"
)

//go:embed load.php
var load string

// use is one time that a PHP process had a session: counted in nanoseconds of the machine's monotonic clock.
type use struct {
	id       string
	from, to int64
}

// work is what one PHP process reports.
type work struct {
	Acknowledged map[string]int
	Failures     []string
	Uses         [][3]any
	Longest      float64
}

// P5, and with it P1, P2 and P4: eight PHP processes on one mount and one on another host; the daemon is killed again and
// again, and replaced by a new binary. No request fails, no increment is lost, no lock is held twice, and the mount point
// is one all the time. The full size is a kill a second for a minute: SESSFS_HANDOVER=full.
func TestDaemonsUnderLoad(t *testing.T) {
	seconds := 12
	if os.Getenv("SESSFS_HANDOVER") == "full" {
		seconds = 62
	}
	c := testkit.Conf{Servers: servers(t, 2)}
	a, b := testkit.NewHost(t, c), testkit.Mount(t, c)
	a.Binary = testkit.OwnBinary(t)
	a.Start()
	stop := filepath.Join(testkit.Dir(t), "stop")
	var procs []*testkit.Process
	for i := range 9 {
		h := a
		if i == 8 {
			h = b
		}
		procs = append(procs, testkit.StartPHP(t, h, nil, load, stop, "12", fmt.Sprint(i)))
	}
	kills, upgrades := 0, 0
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for end := time.Now().Add(time.Duration(seconds) * time.Second); time.Now().Before(end); {
		<-second.C
		a.Process().KillDaemon()
		kills++
		if out, err := exec.Command("mountpoint", a.Dir).CombinedOutput(); err != nil {
			t.Errorf("mountpoint: %v: %s", err, out)
		}
		if kills%4 == 3 {
			testkit.CopyBinary(t, a.Binary, nil)
			if out, code := testkit.Run(t, a.Binary, "upgrade", a.Dir); code != 0 {
				t.Errorf("upgrade: exit %d: %s", code, out)
			}
			upgrades++
		}
	}
	os.WriteFile(stop, nil, 0o644)
	acknowledged, uses, cycles := make(map[string]int), []use(nil), 0
	for _, p := range procs {
		if err := p.Wait(t, 60*time.Second); err != nil {
			t.Fatalf("a PHP process: %v: %s", err, p.Output())
		}
		var w work
		if err := json.NewDecoder(bytes.NewReader([]byte(p.Output()))).Decode(&w); err != nil {
			t.Fatalf("a PHP process printed %.2000s: %v", p.Output(), err)
		}
		for _, f := range w.Failures {
			t.Errorf("a request failed: %s", f)
		}
		for id, n := range w.Acknowledged {
			acknowledged[id] += n
			cycles += n
		}
		for _, u := range w.Uses {
			uses = append(uses, use{u[0].(string), int64(u[1].(float64)), int64(u[2].(float64))})
		}
	}
	for id, n := range acknowledged {
		testkit.Want(t, testkit.PHP(t, b, start+`echo $_SESSION['n'];`, id), fmt.Sprint(n))
	}
	sort.Slice(uses, func(i, j int) bool { return uses[i].from < uses[j].from })
	last := make(map[string]use)
	for _, u := range uses {
		if l := last[u.id]; l.to > u.from {
			t.Errorf("session %s was held twice for %v", u.id, time.Duration(l.to-u.from))
		}
		last[u.id] = u
	}
	s := status(t, a)
	if s.Daemons < kills || s.Locking.LocksLost != 0 {
		t.Errorf("after %d kills and %d upgrades: %+v", kills, upgrades, s)
	}
	testkit.Until(t, 20*time.Second, "nothing is open", func() bool {
		s = status(t, a)
		return s.Files.OpenFiles == 0 && s.Locking.Claims == 0 && s.Locking.Leases == 0
	})
	t.Logf("%d kills, %d upgrades, %d increments of %d sessions", kills, upgrades, cycles, len(acknowledged))
	if cycles < 100 || strings.Contains(a.Log(), "DATA RACE") {
		t.Error("that was no load")
	}
}
