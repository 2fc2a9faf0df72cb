package locking

import (
	"context"
	"testing"
	"time"

	"sessfs"
)

// held holds answers of the servers back: what was asked is done, but who asked does not know it yet.
type held struct {
	sessfs.Backend
	arrived chan struct{} // not nil: the next answer comes when passed is closed
	passed  chan struct{}
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
	m.destroyed(id) // what is known of the session is in doubt: the next holder reads
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
