package backend

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sessfs"
)

// agree checks that two hosts find each other's sessions, exclude each other, and see each other's destroys.
func agree(t *testing.T, a, b *Cluster, name string) {
	t.Helper()
	ctx := context.Background()
	for i, h := range [][2]*Cluster{{a, b}, {b, a}} {
		one, other := h[0], h[1]
		id := sessfs.ID(fmt.Sprintf("sess_%s%d", name, i))
		large := sessfs.ID(fmt.Sprintf("sess_%s%dlarge", name, i))
		mustCommit(t, one, id, &sessfs.Session{}, "0", nil)
		mustCommit(t, one, large, &sessfs.Session{}, strings.Repeat(name, 1200<<10/len(name)), nil)
		for n := 1; n < 6; n++ {
			host := h[n%2]
			if !increment(t, host, id) {
				t.Fatalf("%s: the lock is not free", name)
			}
			if v := value(t, h[(n+1)%2], id); v != n {
				t.Fatalf("%s: after %d increments the other host finds %d", name, n, v)
			}
		}
		lease, _ := lockSoon(t, one, id)
		if l, _, err := other.TryLock(ctx, id, sessfs.Holder{Host: "h"}.WithToken()); l != nil || err != nil {
			t.Fatalf("%s: two hosts have the lock: %v", name, err)
		}
		one.Unlock(lease)
		if s := mustRead(t, other, large); len(s.Data) < 1100<<10 {
			t.Fatalf("%s: the large session has %d bytes", name, len(s.Data))
		}
		gone := sessfs.ID(fmt.Sprintf("sess_%s%dgone", name, i))
		mustCommit(t, one, gone, &sessfs.Session{}, "x", nil)
		if existed, _, err := other.Destroy(ctx, gone); !existed || err != nil {
			t.Fatal(existed, err)
		}
		if s := mustRead(t, one, gone); s.State == sessfs.Live {
			t.Fatalf("%s: the other host's destroy is not seen", name)
		}
	}
}

// Hosts take the steps of the introduction one after the other, by a reload or by a restart, and share sessions and locks
// at each of them. At the end nothing on the servers is plain.
func TestSealsAreIntroduced(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("restart=%v", restart), func(t *testing.T) {
			mem, o := servers(t, 3)
			o.Lifetime, o.Timeout = time.Hour, 10*time.Second
			k := []*SealKey{sealKey(t, "k1", nil)}
			steps := []*Seal{nil, {Keys: k, AcceptPlain: true, WritePlain: true}, {Keys: k, AcceptPlain: true}, {Keys: k}}
			a, b := open(t, o), open(t, o)
			for i, next := range steps {
				change := func(c *Cluster) *Cluster {
					if !restart {
						if err := c.SetSeal(next); err != nil {
							t.Fatal(err)
						}
						return c
					}
					c.Close()
					o := o
					o.Seal = next
					return open(t, o)
				}
				if i == 3 {
					report, err := quick(a, context.Background(), RebalanceOptions{Seal: true}, quietly)
					if err != nil || report.Seals.Left > 0 || report.Seals.Sealed == 0 || report.Seals.Keys[""] == 0 || report.Seals.Plain.IsZero() {
						t.Fatalf("%+v, %v", report.Seals, err)
					}
				}
				b = change(b)
				agree(t, a, b, fmt.Sprintf("step%d", i))
				a = change(a)
				agree(t, a, b, fmt.Sprintf("after%d", i))
				for j := range i { // nothing of what was there before is lost
					for n := range 2 {
						if v := value(t, a, sessfs.ID(fmt.Sprintf("sess_after%d%d", j, n))); v != 5 {
							t.Fatalf("at step %d a session of step %d is %d", i, j, v)
						}
					}
				}
			}
			// Nobody uses plain names any more, some minutes later.
			a.Close()
			b.Close()
			old := a.known.history
			for i := range old {
				if !old[i].Hashed {
					old[i].Used -= 10 * time.Minute.Milliseconds()
				}
			}
			document := string(a.seal.Load().seal(documentKind, o.Prefix+listsMark, old.encode()))
			for _, m := range mem {
				m.raw("set %s 0 0 %d\r\n%s\r\n", o.Prefix+listsMark, len(document), document)
			}
			o.Seal = steps[3]
			a, b = open(t, o), open(t, o)
			report, err := quick(a, context.Background(), RebalanceOptions{Seal: true}, quietly)
			if err != nil || report.Seals.Left > 0 || len(*a.views.Load()) != 1 {
				t.Fatalf("%+v, %v, %d lists", report.Seals, err, len(*a.views.Load()))
			}
			agree(t, a, b, "end")
			for _, m := range mem {
				for key, v := range dump(t, m) {
					if name := strings.TrimPrefix(key, o.Prefix); strings.HasPrefix(name, hashedMark) && !isSealed([]byte(v)) || strings.Contains(name, "end") {
						t.Errorf("%.60q is not sealed", key)
					}
				}
			}
		})
	}
}

// A host without keys, or with others, does not go on beside those that seal; those that do are not disturbed by it, nor by
// somebody who writes there.
func TestKeylessHost(t *testing.T) {
	mem, o := servers(t, 2)
	plain := open(t, o)
	mustCommit(t, plain, "sess_a", &sessfs.Session{}, "x", nil)
	right := sealed(t, o)
	c := open(t, right)
	if err := c.Check(context.Background()); err != nil {
		t.Fatal(err)
	}
	c.exchangeLists()
	mustCommit(t, c, "sess_b", &sessfs.Session{}, "x", nil)
	plain.exchangeLists()
	fails := func(c *Cluster, what string) {
		t.Helper()
		if s, err := c.Read(context.Background(), "sess_a"); !errors.Is(err, sessfs.ErrUnavailable) || !strings.Contains(err.Error(), "seal.keys") {
			t.Errorf("%s: %+v, %v", what, s, err)
		}
	}
	fails(plain, "one that was there before")
	fails(open(t, o), "one that starts later")
	wrong := open(t, sealed(t, o))
	fails(wrong, "one with another key")
	if err := wrong.SetSeal(nil); err != nil {
		t.Fatal(err)
	}
	fails(wrong, "one whose keys were taken away")
	// The right ones go on, and mend what somebody has written.
	foreign := string(newSealing(sealed(t, o).Seal, o.Prefix).seal(documentKind, o.Prefix+listsMark, []byte("x")))
	for _, m := range mem {
		m.raw("set %s 0 0 %d\r\n%s\r\n", o.Prefix+listsMark, len(foreign), foreign)
	}
	late := open(t, right)
	fails(late, "one that starts then")
	c.exchangeLists()
	mustRead(t, c, "sess_b")
	late.exchangeLists()
	mustRead(t, late, "sess_b")
}

// Keys are changed under load: a new one is added, made the first, everything is sealed with it, and the old one goes.
func TestKeysAreRotated(t *testing.T) {
	for name, change := range map[string]func(*Options){"copies": func(o *Options) { o.Replicas = 2 }, "classic": func(o *Options) { o.ForceClassic = true }} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, o := servers(t, 2)
			o.Lifetime, o.Timeout = time.Hour, 10*time.Second // a busy machine must not look like a dead server
			change(&o)
			k1 := sealKey(t, "k1", nil)
			k2 := sealKey(t, "k2", k1)
			o.Seal = &Seal{Keys: []*SealKey{k1}}
			hosts := []*Cluster{open(t, o), open(t, o)}
			const quiet = 300
			for i := range quiet {
				mustCommit(t, hosts[0], sessfs.ID(fmt.Sprintf("sess_quiet%d", i)), &sessfs.Session{}, "5", nil)
			}
			mustCommit(t, hosts[0], "sess_large", &sessfs.Session{}, strings.Repeat("x", 2500<<10), nil)
			var stop atomic.Bool
			var work sync.WaitGroup
			var done [2][4]int
			for h, c := range hosts {
				for w := range 4 {
					id := sessfs.ID(fmt.Sprintf("sess_busy%d", w))
					if h == 0 {
						mustCommit(t, c, id, &sessfs.Session{}, "0", nil)
					}
				}
			}
			for h, c := range hosts {
				for w := range 4 {
					work.Go(func() {
						for !stop.Load() && !t.Failed() {
							if increment(t, c, sessfs.ID(fmt.Sprintf("sess_busy%d", w))) {
								done[h][w]++
							}
						}
					})
				}
			}
			step := func(s *Seal) {
				for _, c := range hosts {
					if err := c.SetSeal(s); err != nil {
						t.Error(err)
					}
				}
			}
			step(&Seal{Keys: []*SealKey{k1, k2}})
			step(&Seal{Keys: []*SealKey{k2, k1}})
			dry, err := quick(hosts[1], context.Background(), RebalanceOptions{Seal: true, DryRun: true}, quietly)
			if err != nil || dry.Seals.Sealed < quiet || dry.Seals.Keys["k1"] < quiet || dry.Complete() != (dry.Moved == 0) {
				t.Errorf("a dry run: %+v, %v", dry.Seals, err)
			}
			report, err := quick(hosts[1], context.Background(), RebalanceOptions{Seal: true}, quietly)
			if err != nil || report.Seals.Sealed < quiet || report.Seals.Left != 0 || report.Seals.First != "k2" {
				t.Errorf("%+v, %v", report.Seals, err)
			}
			step(&Seal{Keys: []*SealKey{k2}})
			time.Sleep(100 * time.Millisecond)
			stop.Store(true)
			work.Wait()
			for w := range 4 {
				if v := value(t, hosts[0], sessfs.ID(fmt.Sprintf("sess_busy%d", w))); v != done[0][w]+done[1][w] || v == 0 {
					t.Errorf("%d increments of %d are there", v, done[0][w]+done[1][w])
				}
			}
			for i := range quiet {
				if v := value(t, hosts[1], sessfs.ID(fmt.Sprintf("sess_quiet%d", i))); v != 5 {
					t.Fatalf("a session was lost: %d", v)
				}
			}
			if s := mustRead(t, hosts[1], "sess_large"); len(s.Data) != 2500<<10 {
				t.Errorf("the large session has %d bytes", len(s.Data))
			}
			for _, n := range hosts[0].Seals().Refused {
				if n != 0 {
					t.Errorf("seals were refused: %v", hosts[0].Seals())
				}
			}
			if err := hosts[0].SetSeal(&Seal{Keys: []*SealKey{sealKey(t, "k3", nil)}}); err == nil || !strings.Contains(err.Error(), "--like") {
				t.Errorf("a key with other names: %v", err)
			}
		})
	}
}
