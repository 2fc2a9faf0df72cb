// Package backendtest is the contract of sessfs.Backend as tests: every implementation passes it.
package backendtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"sessfs"
)

// Settings are what the Backend under test must be made with.
const (
	Lease   = 2 * time.Second
	MaxSize = 6 << 20
)

// Lifetimes of the sessions: short where a test waits for their end, else so long that no busy machine outlasts it.
const (
	short = 3 * time.Second
	long  = 2 * time.Minute
)

// Run runs the suite. open makes a Backend with the Settings above over an empty store, and closes it when the test
// ends.
func Run(t *testing.T, open func(t *testing.T, lifetime time.Duration) sessfs.Backend) {
	RunWithout(t, "", open)
}

// RunWithout is Run without one of its tests.
func RunWithout(t *testing.T, without string, open func(t *testing.T, lifetime time.Duration) sessfs.Backend) {
	for _, c := range []struct {
		name string
		test func(*env)
	}{
		{"Versions", (*env).versions},
		{"MissingBase", (*env).missingBase},
		{"Attributes", (*env).attributes},
		{"Sizes", (*env).sizes},
		{"MaxSize", (*env).maxSize},
		{"Names", (*env).names},
		{"Destroy", (*env).destroy},
		{"DestroyInsists", (*env).destroyInsists},
		{"Lock", (*env).lock},
		{"LeaseEnds", (*env).leaseEnds},
		{"Renew", (*env).renew},
		{"Break", (*env).breakLock},
		{"Marks", (*env).marks},
		{"KeptLease", (*env).keptLease},
		{"CommitUnderLostLease", (*env).commitUnderLostLease},
		{"ExpiredWhileLocked", (*env).expiredWhileLocked},
		{"Expires", (*env).expires},
		{"EndsByAge", (*env).endsByAge},
		{"ExclusionUnderLoad", (*env).exclusion},
		{"CompareAndSwapUnderLoad", (*env).compareAndSwap},
		{"List", (*env).list},
		{"Usage", (*env).usage},
		{"CancelledContext", (*env).cancelled},
	} {
		if c.name == without {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			lifetime := long
			if strings.HasPrefix(c.name, "Expire") {
				lifetime = short
			}
			c.test(&env{T: t, b: open(t, lifetime), ctx: context.Background()})
		})
	}
}

type env struct {
	*testing.T
	b   sessfs.Backend
	ctx context.Context
}

// attr has a Ctime that is yet to come, so that no session is older than its test.
var attr = sessfs.Attr{UID: 33, GID: 34, Mode: 0o600, Atime: 1, Mtime: 2, Ctime: time.Now().Add(time.Hour).UnixNano()}

func (e *env) read(id sessfs.ID) *sessfs.Session {
	e.Helper()
	s, err := e.b.Read(e.ctx, id)
	if err != nil {
		e.Fatalf("Read: %v", err)
	}
	return s
}

func (e *env) commit(id sessfs.ID, base *sessfs.Session, data []byte, l *sessfs.Lease) *sessfs.Session {
	e.Helper()
	s, err := e.b.Commit(e.ctx, id, base, attr, data, l)
	if err != nil {
		e.Fatalf("Commit of %d bytes: %v", len(data), err)
	}
	return s
}

func (e *env) refuse(want error, id sessfs.ID, base *sessfs.Session, l *sessfs.Lease) {
	e.Helper()
	if _, err := e.b.Commit(e.ctx, id, base, attr, []byte("refuse me"), l); !errors.Is(err, want) {
		e.Fatalf("Commit: %v, want %v", err, want)
	}
}

func (e *env) tryLock(id sessfs.ID, host string) (*sessfs.Lease, *sessfs.Session) {
	e.Helper()
	l, s, err := e.b.TryLock(e.ctx, id, sessfs.Holder{Host: host, Boot: "b", PID: 7, Since: time.Now()})
	if err != nil {
		e.Fatalf("TryLock: %v", err)
	}
	return l, s
}

func (e *env) holder(id sessfs.ID) string {
	e.Helper()
	h, err := e.b.Locked(e.ctx, id)
	if err != nil {
		e.Fatalf("Locked: %v", err)
	}
	if h == nil {
		return ""
	}
	return h.Host
}

// until waits for a condition.
func (e *env) until(what string, cond func() bool) {
	e.Helper()
	for end := time.Now().Add(15 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			e.Fatalf("not in 15 s: %s", what)
		}
	}
}

func (e *env) versions() {
	const id = "sess_a"
	if s := e.read(id); s.State != sessfs.Missing || s.Exists() {
		e.Fatalf("an empty store has %+v", s)
	}
	one := e.commit(id, &sessfs.Session{}, []byte("one"), nil)
	if now := uint64(time.Now().UnixMilli()); one.Version.Counter > now || one.Version.Counter < now-60_000 {
		e.Fatalf("the first counter is %d, want unix milliseconds", one.Version.Counter)
	}
	two := e.commit(id, one, []byte("two"), nil)
	if two.Version.Counter != one.Version.Counter+1 || two.Version.Nonce == one.Version.Nonce {
		e.Fatalf("%+v follows %+v", two.Version, one.Version)
	}
	e.refuse(sessfs.ErrConflict, id, one, nil)
	three := e.commit(id, e.read(id), []byte("three"), nil)
	e.refuse(sessfs.ErrConflict, id, two, nil)
	// A base without a Ref is as good: the version decides.
	four := e.commit(id, &sessfs.Session{State: sessfs.Live, Version: three.Version}, []byte("four"), nil)
	if s := e.read(id); string(s.Data) != "four" || s.Version != four.Version {
		e.Fatalf("read %q %+v", s.Data, s.Version)
	}
}

func (e *env) missingBase() {
	const id = "sess_a"
	missing := e.read(id)
	e.commit(id, missing, []byte("x"), nil)
	e.refuse(sessfs.ErrConflict, id, missing, nil)
	e.refuse(sessfs.ErrConflict, "sess_b", &sessfs.Session{State: sessfs.Live, Version: sessfs.Version{Counter: 1, Nonce: 2}}, nil)
	if s := e.read("sess_b"); s.State != sessfs.Missing {
		e.Fatal("a refused commit stored something")
	}
}

func (e *env) attributes() {
	a := sessfs.Attr{UID: 1<<32 - 1, GID: 1 << 31, Mode: 0o7777, Atime: -1, Mtime: 1 << 62, Ctime: time.Now().UnixNano()}
	s, err := e.b.Commit(e.ctx, "sess_a", &sessfs.Session{}, a, nil, nil)
	if err != nil || s.Attr != a {
		e.Fatalf("%+v %v", s, err)
	}
	if s := e.read("sess_a"); s.Attr != a || s.State != sessfs.Live || len(s.Data) != 0 {
		e.Fatalf("read %+v", s)
	}
}

func (e *env) sizes() {
	r := rand.NewChaCha8([32]byte{1})
	base := &sessfs.Session{}
	for _, n := range []int{0, 1, 1000, 1044480, 1044481, 1044482, 1048552, 1048576, 2088962, 5000000, 10} {
		data := make([]byte, n)
		r.Read(data)
		base = e.commit("sess_big", base, bytes.Clone(data), nil)
		if s := e.read("sess_big"); !bytes.Equal(s.Data, data) {
			e.Fatalf("%d bytes came back as %d", n, len(s.Data))
		} else if n%2 == 0 {
			base = s
		}
	}
}

func (e *env) maxSize() {
	base := e.commit("sess_a", &sessfs.Session{}, []byte("old"), nil)
	if _, err := e.b.Commit(e.ctx, "sess_a", base, attr, make([]byte, MaxSize+1), nil); !errors.Is(err, sessfs.ErrTooLarge) {
		e.Fatalf("one byte over MaxSize: %v", err)
	}
	if s := e.read("sess_a"); string(s.Data) != "old" {
		e.Fatalf("read %q", s.Data)
	}
	e.commit("sess_a", base, make([]byte, MaxSize), nil)
}

func (e *env) names() {
	ids := []sessfs.ID{"a", "sess_a b", "sess_\r\nflush_all\r\n", "@sess_x", "sess_x", "+sess_x", "#sess_x", "!probe.x",
		sessfs.ID(bytes.Repeat([]byte{'x'}, 255)), sessfs.ID(bytes.Repeat([]byte{0xff}, 255))}
	for i := 1; i < 256; i++ {
		if i != '/' {
			ids = append(ids, sessfs.ID("n"+string([]byte{byte(i)})))
		}
	}
	for _, id := range ids {
		l, _ := e.tryLock(id, "one")
		if l == nil {
			e.Fatalf("%q is locked already: it shares a key", id)
		}
		e.commit(id, &sessfs.Session{}, []byte(id), l)
	}
	for _, id := range ids {
		if s := e.read(id); string(s.Data) != string(id) {
			e.Fatalf("%q came back as %q", id, s.Data)
		}
	}
}

func (e *env) destroy() {
	const id = "sess_a"
	if existed, _, err := e.b.Destroy(e.ctx, id); existed || err != nil {
		e.Fatalf("Destroy of a missing session: %v %v", existed, err)
	}
	live := e.commit(id, &sessfs.Session{}, []byte("x"), nil)
	if existed, _, err := e.b.Destroy(e.ctx, id); !existed || err != nil {
		e.Fatalf("Destroy: %v %v", existed, err)
	}
	if existed, _, err := e.b.Destroy(e.ctx, id); existed || err != nil {
		e.Fatalf("second Destroy: %v %v", existed, err)
	}
	e.refuse(sessfs.ErrConflict, id, live, nil)
	e.refuse(sessfs.ErrConflict, id, &sessfs.Session{}, nil)
	l, tomb := e.tryLock(id, "one")
	if tomb.State != sessfs.Destroyed || tomb.Exists() || tomb.Version.Counter <= live.Version.Counter {
		e.Fatalf("%+v is there", tomb)
	}
	if at := time.Unix(0, tomb.Attr.Ctime); time.Since(at).Abs() > long {
		e.Fatalf("it was destroyed at %v", at)
	}
	e.refuse(sessfs.ErrConflict, id, live, l)
	reborn := e.commit(id, tomb, []byte("new"), l)
	if reborn.Version.Counter != tomb.Version.Counter+1 {
		e.Fatalf("%+v follows the tombstone %+v", reborn.Version, tomb.Version)
	}
}

func (e *env) destroyInsists() {
	const id = "sess_a"
	stop := make(chan struct{})
	var wg sync.WaitGroup
	base := e.commit(id, &sessfs.Session{}, []byte("x"), nil)
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			s, err := e.b.Commit(e.ctx, id, base, attr, []byte("x"), nil)
			if err != nil {
				return
			}
			base = s
		}
	})
	existed, _, err := e.b.Destroy(e.ctx, id)
	close(stop)
	wg.Wait()
	if !existed || err != nil {
		e.Fatalf("Destroy under load: %v %v", existed, err)
	}
	if s := e.read(id); s.State != sessfs.Destroyed {
		e.Fatalf("it came back: %+v", s)
	}
}

func (e *env) list() {
	want := map[sessfs.ID]int64{}
	for i := range 300 {
		id := sessfs.ID(fmt.Sprintf("sess_%d", i))
		if i%10 == 0 {
			id += " \xff" // not fit for a key
		}
		want[id] = int64(i)
		e.commit(id, &sessfs.Session{}, make([]byte, i), nil)
	}
	e.commit("sess_big", &sessfs.Session{}, make([]byte, 3<<20), nil)
	want["sess_big"] = 3 << 20
	e.commit("sess_gone", &sessfs.Session{}, []byte("x"), nil)
	if _, _, err := e.b.Destroy(e.ctx, "sess_gone"); err != nil {
		e.Fatal(err)
	}
	e.tryLock("sess_locked", "one")
	gone := false
	got := map[sessfs.ID]bool{}
	err := e.b.List(e.ctx, func(en sessfs.Entry) error {
		if en.State == sessfs.Destroyed {
			gone = gone || en.ID == "sess_gone"
			return nil
		}
		size, ok := want[en.ID]
		if !ok || size != en.Size || en.Attr != attr || en.Server == "" || time.Until(en.Expires).Abs() > 2*long {
			e.Errorf("entry %+v", en)
		}
		got[en.ID] = true
		return nil
	})
	if err != nil || len(got) != len(want) || !gone {
		e.Fatalf("%d of %d, tombstone %v, %v", len(got), len(want), gone, err)
	}
	stop := errors.New("stop")
	if err := e.b.List(e.ctx, func(sessfs.Entry) error { return stop }); !errors.Is(err, stop) {
		e.Fatalf("the error of fn came back as %v", err)
	}
}

func (e *env) usage() {
	e.commit("sess_a", &sessfs.Session{}, make([]byte, 1000), nil)
	u, err := e.b.Usage(e.ctx)
	if err != nil || u.TotalBytes == 0 || u.FreeBytes > u.TotalBytes || u.Items == 0 {
		e.Fatalf("%+v %v", u, err)
	}
}

func (e *env) cancelled() {
	ctx, end := context.WithCancel(e.ctx)
	end()
	start := time.Now()
	e.b.Read(ctx, "sess_a")
	e.b.TryLock(ctx, "sess_a", sessfs.Holder{})
	if d := time.Since(start); d > 5*time.Second {
		e.Fatalf("a cancelled context took %v", d)
	}
}
