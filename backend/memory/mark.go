package memory

import (
	"context"

	"sessfs"
)

// marks tells whether it is marked for the lease with that token.
func (it *item) marks(token string) bool { return it.mark != nil && it.mark.token == token }

// setMark leaves a mark. The caller holds s.mu.
func (s *shard) setMark(id sessfs.ID, token string) {
	it := s.items[id]
	if it == nil {
		it = &item{}
		s.items[id] = it
	}
	it.mark = &mark{token: token, until: sessfs.Boottime() + int64(sessfs.MarkLife)}
}

// Mark implements sessfs.Backend.
func (b *Backend) Mark(_ context.Context, id sessfs.ID, token string) error {
	s := b.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setMark(id, token)
	return nil
}

// Marked implements sessfs.Backend.
func (b *Backend) Marked(_ context.Context, leases []*sessfs.Lease) []bool {
	marked := make([]bool, len(leases))
	for i, l := range leases {
		s := b.shard(l.ID)
		s.mu.Lock()
		if it := s.get(l.ID); it != nil {
			marked[i] = it.marks(l.Token) && !it.mark.answered
		}
		s.mu.Unlock()
	}
	return marked
}

// Unbroken implements sessfs.Backend.
func (b *Backend) Unbroken(*sessfs.Lease) bool { return true }

// Answer implements sessfs.Backend.
func (b *Backend) Answer(l *sessfs.Lease) {
	s := b.shard(l.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setMark(l.ID, l.Token)
	s.items[l.ID].mark.answered = true
}
