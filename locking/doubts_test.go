package locking

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"sessfs"
	"sessfs/backend/memory"
)

// held holds answers of the servers back: what was asked is done, but who asked does not know it yet.
type held struct {
	sessfs.Backend
	arrived chan struct{} // not nil: the next answer comes when passed is closed
	passed  chan struct{}
	before  chan struct{} // not nil: destroys begin when it is closed
	begun   atomic.Bool   // one has come
}

// next holds the next answer back. It returns what waits until there is one, and what lets it through.
func (h *held) next() (wait, pass func()) {
	arrived, passed := make(chan struct{}), make(chan struct{})
	h.arrived, h.passed = arrived, passed
	return func() { <-arrived }, func() { close(passed) }
}

func (h *held) answer() {
	arrived, passed := h.arrived, h.passed
	if arrived == nil {
		return
	}
	h.arrived = nil
	close(arrived)
	<-passed
}

func (h *held) Read(ctx context.Context, id sessfs.ID) (*sessfs.Session, error) {
	v, err := h.Backend.Read(ctx, id)
	h.answer()
	return v, err
}

func (h *held) TryLock(ctx context.Context, id sessfs.ID, by sessfs.Holder) (*sessfs.Lease, *sessfs.Session, error) {
	l, v, err := h.Backend.TryLock(ctx, id, by)
	h.answer()
	return l, v, err
}

func (h *held) Destroy(ctx context.Context, id sessfs.ID) (bool, *sessfs.Holder, error) {
	h.begun.Store(true)
	if h.before != nil {
		<-h.before
	}
	existed, by, err := h.Backend.Destroy(ctx, id)
	h.answer()
	return existed, by, err
}

func (h *held) Commit(ctx context.Context, id sessfs.ID, base *sessfs.Session, attr sessfs.Attr, data []byte, l *sessfs.Lease) (*sessfs.Session, error) {
	v, err := h.Backend.Commit(ctx, id, base, attr, data, l)
	h.answer()
	return v, err
}

// P8: an answer that was on its way while the session was destroyed is shown to nobody who asks after that.
func TestAnswersFromBeforeADestroy(t *testing.T) {
	for _, keep := range []time.Duration{0, 10 * time.Minute} {
		for name, use := range map[string]func(t *testing.T, h *held, m *Manager, destroy func()){
			"read":     destroyDuringRead,
			"commit":   destroyDuringCommit,
			"try lock": destroyDuringTryLock,
		} {
			t.Run(name+"/keep="+keep.String(), func(t *testing.T) {
				b, s := lasting(t)
				s.Keep = keep
				h := &held{Backend: b}
				m := manager(t, h, "a", s)
				request(t, m, id, "secret")
				use(t, h, m, func() {
					if existed, err := m.Destroy(ctx, id); !existed || err != nil {
						t.Fatal(existed, err)
					}
				})
				if found := request(t, m, id, ""); found.State != sessfs.Destroyed {
					t.Errorf("found %+v", found)
				}
			})
		}
	}
}

func destroyDuringRead(t *testing.T, h *held, m *Manager, destroy func()) {
	c, _ := mustOpen(t, m, true)
	defer c.Close()
	m.shard(id).mu.Lock() // what is known of the session is in doubt: the next holder reads
	m.distrust(m.shard(id).entries[id])
	m.shard(id).mu.Unlock()
	wait, pass := h.next()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if _, err := c.Lock(ctx, sessfs.Exclusive, true); err != nil {
			t.Error(err)
		}
	}()
	wait()
	destroy()
	pass()
	<-done
}

func destroyDuringCommit(t *testing.T, h *held, m *Manager, destroy func()) {
	c, s := mustOpen(t, m, true)
	defer c.Close()
	if _, err := c.Lock(ctx, sessfs.Exclusive, true); err != nil {
		t.Fatal(err)
	}
	wait, pass := h.next()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if _, err := c.Commit(ctx, s, s.Attr, []byte("more")); err != nil {
			t.Error(err)
		}
	}()
	wait()
	destroy()
	pass()
	<-done
}

// The opener goes without asking for its lock; the next one finds the lease here.
func destroyDuringTryLock(t *testing.T, h *held, m *Manager, destroy func()) {
	m.shard(id).mu.Lock()
	if e := m.shard(id).entries[id]; e != nil {
		m.giveBack(e)
	}
	m.shard(id).mu.Unlock()
	next, _ := mustOpen(t, m, false)
	defer next.Close()
	wait, pass := h.next()
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, _ := mustOpen(t, m, true)
		c.Close()
	}()
	wait()
	destroyed := make(chan struct{})
	go func() { // it may wait for the lease that is about to come here
		defer close(destroyed)
		destroy()
	}()
	poll(t, 5*time.Second, func() bool {
		v, err := h.Backend.Read(ctx, id)
		return err == nil && v.State == sessfs.Destroyed
	})
	if m.settings.Load().Keep == 0 {
		<-destroyed
	}
	pass()
	<-done
	<-destroyed
	if found, err := next.Lock(ctx, sessfs.Exclusive, true); err != nil || found == nil || found.State != sessfs.Destroyed {
		t.Errorf("the next one found %+v: %v", found, err)
	}
}

// P8: nobody is told that a session is gone while a host that keeps it still shows it, although whoever destroys it waits
// for that host only after the tombstone is stored.
func TestNobodySeesATombstoneEarly(t *testing.T) {
	for name, look := range map[string]func(m *Manager) (*sessfs.Session, error){
		"read": func(m *Manager) (*sessfs.Session, error) { return m.Read(ctx, id) },
		"open to read": func(m *Manager) (*sessfs.Session, error) {
			c, v, err := m.Open(ctx, id, false, 1)
			if err == nil {
				c.Close()
			}
			return v, err
		},
		"open to write": func(m *Manager) (*sessfs.Session, error) {
			c, v, err := m.Open(ctx, id, true, 1)
			if err == nil {
				c.Close()
			}
			return v, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, s := lasting(t)
			h := &held{Backend: b}
			keeper, destroyer, third := manager(t, b, "a", s), manager(t, h, "b", s), manager(t, b, "c", s)
			request(t, keeper, id, "secret")
			wait, pass := h.next()
			done := make(chan struct{})
			go func() {
				defer close(done)
				if existed, err := destroyer.Destroy(ctx, id); !existed || err != nil {
					t.Error(existed, err)
				}
			}()
			wait()
			if v, err := look(third); err != nil || v.State != sessfs.Destroyed {
				t.Errorf("%+v, %v", v, err)
			}
			if found := request(t, keeper, id, ""); found.State != sessfs.Destroyed {
				t.Errorf("the keeper found %+v after another host was told that it is gone", found)
			}
			pass()
			<-done
		})
	}
}

// What a host read or stored a moment ago it shows to openers without a question: not after the session was destroyed.
func TestDestroyOutwaitsWhatIsFresh(t *testing.T) {
	b, s := lasting(t)
	s.Keep = 0
	one, two := manager(t, b, "a", s), manager(t, b, "b", s)
	request(t, one, id, "secret")
	first, _ := mustOpen(t, one, true)
	defer first.Close()
	if existed, err := two.Destroy(ctx, id); !existed || err != nil {
		t.Fatal(existed, err)
	}
	if found := request(t, one, id, ""); found.State != sessfs.Destroyed {
		t.Errorf("found %+v", found)
	}
}

// What a holder reads while its own host destroys the session is not trusted, whenever the tombstone is stored.
func TestReadsDuringOnesOwnDestroy(t *testing.T) {
	b, s := lasting(t)
	h := &held{Backend: b, before: make(chan struct{})}
	one, other := manager(t, h, "a", s), manager(t, b, "b", s)
	request(t, one, id, "secret")
	done := make(chan struct{})
	go func() {
		defer close(done)
		if existed, err := one.Destroy(ctx, id); !existed || err != nil {
			t.Error(existed, err)
		}
	}()
	poll(t, 5*time.Second, func() bool { return h.begun.Load() })
	if found := request(t, one, id, ""); string(found.Data) != "secret" {
		t.Fatalf("before the tombstone it found %+v", found)
	}
	wait, pass := h.next()
	close(h.before)
	wait()
	if v, err := other.Read(ctx, id); err != nil || v.State != sessfs.Destroyed {
		t.Fatalf("%+v, %v", v, err)
	}
	if found := request(t, one, id, ""); found.State != sessfs.Destroyed {
		t.Errorf("found %+v after another host was told that it is gone", found)
	}
	pass()
	<-done
}

// A host that is held up for longer than a lease while it takes a lock does not hand out what it read then: another host
// has had the lock meanwhile.
func TestLockThatComesTooLate(t *testing.T) {
	const lease = 300 * time.Millisecond
	b := memory.New(memory.Options{Lifetime: time.Hour, Lease: lease, MaxSize: 1 << 20})
	t.Cleanup(func() { b.Close() })
	h := &held{Backend: b}
	s := Settings{Lease: lease}
	slow, other := manager(t, h, "a", s), manager(t, b, "b", s)
	request(t, other, id, "old")
	waiting, _ := mustOpen(t, slow, false)
	defer waiting.Close()
	wait, pass := h.next()
	opened := make(chan struct{})
	go func() {
		defer close(opened)
		c, _ := mustOpen(t, slow, true)
		c.Close()
	}()
	wait()
	got := waitFor(t, slow, waiting)
	request(t, other, id, "new") // once the lease of the other has ended
	pass()
	<-opened
	if found := <-got; found == nil || string(found.Data) != "new" {
		t.Errorf("found %+v", found)
	}
}

// crowded shows an attempt of yet another host beside the lock, on the server that is asked first: the lock there was lost.
type crowded struct {
	sessfs.Backend
	looks int  // for which it stands
	later bool // it comes after the destroy
}

func (c *crowded) beside(h *sessfs.Holder) *sessfs.Holder {
	if h == nil || c.looks == 0 {
		return h
	}
	c.looks--
	return &sessfs.Holder{Host: "c", Token: "attempt", Keep: h.Keep, Also: h}
}

func (c *crowded) Destroy(ctx context.Context, id sessfs.ID) (bool, *sessfs.Holder, error) {
	existed, h, err := c.Backend.Destroy(ctx, id)
	if !c.later {
		h = c.beside(h)
	}
	return existed, h, err
}

func (c *crowded) Locked(ctx context.Context, id sessfs.ID) (*sessfs.Holder, error) {
	h, err := c.Backend.Locked(ctx, id)
	return c.beside(h), err
}

// P8: whoever destroys a session waits for all whose locks stand somewhere, not for the first that is found.
func TestDestroyWaitsForAllHolders(t *testing.T) {
	for looks, later := range map[int]bool{1: false, 2: false, 5: false, 3: true} {
		b, s := lasting(t)
		keeper, destroyer := manager(t, b, "a", s), manager(t, &crowded{b, looks, later}, "b", s)
		request(t, keeper, id, "secret")
		if existed, err := destroyer.Destroy(ctx, id); !existed || err != nil {
			t.Fatal(existed, err)
		}
		if found := request(t, keeper, id, ""); found.State != sessfs.Destroyed {
			t.Errorf("%d looks: the keeper found %+v", looks, found)
		}
	}
}
