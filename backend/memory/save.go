package memory

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"time"

	"sessfs"
)

// saved is an item on its way to another process of the same host.
type saved struct {
	ID      sessfs.ID
	Session *sessfs.Session
	Expires time.Time
	Token   string // of the lock; "": none
	Holder  sessfs.Holder
	Until   int64
}

// Save writes all sessions and locks, for Load. Marks are left again by those who wait.
func (b *Backend) Save(w io.Writer) error {
	enc := gob.NewEncoder(w)
	for i := range b.shards {
		s := &b.shards[i]
		s.mu.Lock()
		var list []saved
		for id := range s.items {
			it := s.get(id)
			if it == nil || it.session == nil && it.lock == nil {
				continue
			}
			x := saved{ID: id, Session: it.session, Expires: it.expires}
			if it.lock != nil {
				x.Token, x.Holder, x.Until = it.lock.token, it.lock.holder, it.lock.until
			}
			list = append(list, x)
		}
		s.mu.Unlock()
		for _, x := range list {
			if err := enc.Encode(x); err != nil {
				return fmt.Errorf("saving the sessions: %w", err)
			}
		}
	}
	return nil
}

// Load adds what Save has written.
func (b *Backend) Load(r io.Reader) error {
	dec := gob.NewDecoder(r)
	for {
		var x saved
		if err := dec.Decode(&x); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("loading the sessions that a former daemon has saved: %w", err)
		}
		s := b.shard(x.ID)
		s.mu.Lock()
		it := &item{session: x.Session, expires: x.Expires}
		if x.Token != "" {
			it.lock = &lock{token: x.Token, holder: x.Holder, until: x.Until}
		}
		s.items[x.ID] = it
		if x.Session != nil {
			s.bytes += int64(len(x.Session.Data))
		}
		s.mu.Unlock()
	}
}

// Empty tells whether there is no session.
func (b *Backend) Empty() bool {
	for i := range b.shards {
		s := &b.shards[i]
		s.mu.Lock()
		n := len(s.items)
		s.mu.Unlock()
		if n > 0 {
			return false
		}
	}
	return true
}
