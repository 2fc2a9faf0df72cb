package locking

import (
	"cmp"
	"slices"
	"time"

	"sessfs"
)

// hotList counts how often sessions of one shard were opened in the last minute, for those that were opened the most:
// Space-Saving (Metwally, Agrawal, El Abbadi 2005) with counts that end with their time. It is of a fixed size, looks at
// sixteen numbers for each opening, and allocates nothing. Guarded by the shard's mu.
//
// A session that is not among the slots takes the one with the lowest count, and what that had may have been its own:
// such counts are a lower bound, with what may be missing beside.
type hotList struct {
	slice  int64              // number of the slice of time that is counted now
	keys   [hotSlots]uint64   // hashes of the ids; 0: free, or that hash
	totals [hotSlots]uint32   // what is counted of each, with what may be missing
	counts [hotSlots]hotCount // and by time
}

// hotCount is one session's count, by slice of time.
type hotCount struct {
	id      sessfs.ID
	opened  [hotSlices]uint32
	missing uint32 // openings that the former user of the slot had
	taken   int64  // the slice in which it was taken over
}

const (
	hotSlots  = 16 // of each shard
	hotSlices = 7  // six whole ones and the present one
	hotSlice  = int64(10 * time.Second)
)

// opened counts an opening of the session id, whose hash is key, at now (Boottime).
func (h *hotList) opened(key uint64, id sessfs.ID, now int64) {
	if s := now / hotSlice; s != h.slice {
		h.turn(s)
	}
	lowest := 0
	for i := range h.keys {
		if h.keys[i] == key && h.totals[i] > 0 {
			h.counts[i].opened[h.slice%hotSlices]++
			h.totals[i]++
			return
		}
		if h.totals[i] < h.totals[lowest] {
			lowest = i
		}
	}
	had := h.totals[lowest]
	h.keys[lowest], h.totals[lowest] = key, had+1
	h.counts[lowest] = hotCount{id: id, missing: had, taken: h.slice}
	h.counts[lowest].opened[h.slice%hotSlices] = 1
}

// turn begins another slice of time: what is older than a minute counts no more.
func (h *hotList) turn(slice int64) {
	if slice-h.slice >= hotSlices || slice < h.slice {
		*h = hotList{slice: slice}
		return
	}
	for h.slice < slice {
		h.slice++
		for i := range h.counts {
			c, at := &h.counts[i], h.slice%hotSlices
			h.totals[i] -= c.opened[at]
			c.opened[at] = 0
			if c.missing > 0 && h.slice-c.taken >= hotSlices {
				h.totals[i] -= c.missing
				c.missing = 0
			}
			if h.totals[i] == 0 {
				c.id = "" // it may go
			}
		}
	}
}

// HotSession is a session that was opened often in the last minute.
type HotSession struct {
	Session  string `json:"session"`           // hash of the id
	Requests uint32 `json:"requests"`          // openings in the last 60 to 70 s: so many at least
	Missing  uint32 `json:"missing,omitempty"` // openings that may have to be added: it was not among those counted all the time
}

// Hottest returns the sessions that were opened the most on this host in the last minute, most of them at most.
func (m *Manager) Hottest(most int) []HotSession {
	type counted struct {
		id sessfs.ID
		HotSession
	}
	var all []counted
	now := sessfs.Boottime()
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		if slice := now / hotSlice; slice > s.hot.slice {
			s.hot.turn(slice)
		}
		for j, c := range s.hot.counts {
			if n := s.hot.totals[j] - c.missing; n > 0 {
				all = append(all, counted{c.id, HotSession{Requests: n, Missing: c.missing}})
			}
		}
		s.mu.Unlock()
	}
	slices.SortFunc(all, func(a, b counted) int {
		return cmp.Or(cmp.Compare(b.Requests, a.Requests), cmp.Compare(a.id, b.id))
	})
	list := make([]HotSession, 0, most)
	for _, c := range all[:min(most, len(all))] {
		c.Session = c.id.Hash()
		list = append(list, c.HotSession)
	}
	return list
}

// Opened is how often sessions were opened on this host since the start.
func (m *Manager) Opened() (n uint64) {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		n += s.opened
		s.mu.Unlock()
	}
	return n
}
