package fusefs

import (
	"hash/maphash"

	"sessfs"
)

// sighting is what was last known of a session, for outages: strict mode throws an id away when stat fails.
type sighting struct {
	attr sessfs.Attr
	size int
}

// sightings are the sessions that this host has lately seen, maxSeen of them at most, in 3 MiB.
// They outlive the kernel's inodes, hence a table of their own. It is a cache as in a processor: a hash chooses the row,
// the least recently used of the row gives way. It has no pointers, and is allocated once. The hash stands for the name:
// it is seeded at random, so that nobody can choose names that meet, and 64 bits long.
type sightings struct {
	seed maphash.Seed
	rows []sightingRow
}

const (
	maxSeen  = 65536
	seenRow  = 4
	seenRows = maxSeen / seenRow
)

// sightingRow is ordered by use, the most recent first. A hash of 0 is no entry.
type sightingRow [seenRow]struct {
	hash                uint64
	uid, gid            uint32
	mode                uint32
	size                uint32
	atime, mtime, ctime int64
}

func (t *sightings) init() {
	t.seed = maphash.MakeSeed()
	t.rows = make([]sightingRow, seenRows)
}

// find returns the row of a session, its hash, and its index in the row: -1 where it is not in.
func (t *sightings) find(id sessfs.ID) (row *sightingRow, hash uint64, at int) {
	hash = max(maphash.String(t.seed, string(id)), 1)
	row = &t.rows[hash%seenRows]
	for i := range row {
		if row[i].hash == hash {
			return row, hash, i
		}
	}
	return row, hash, -1
}

// use makes the entry at i the most recent of its row.
func (r *sightingRow) use(i int) {
	e := r[i]
	copy(r[1:i+1], r[:i])
	r[0] = e
}

func (t *sightings) get(id sessfs.ID) (s sighting, ok bool) {
	row, _, i := t.find(id)
	if i < 0 {
		return s, false
	}
	row.use(i)
	e := &row[0]
	s.attr = sessfs.Attr{UID: e.uid, GID: e.gid, Mode: e.mode, Atime: e.atime, Mtime: e.mtime, Ctime: e.ctime}
	s.size = int(e.size)
	return s, true
}

func (t *sightings) put(id sessfs.ID, s sighting) {
	row, hash, i := t.find(id)
	if i < 0 {
		i = seenRow - 1
	}
	row.use(i)
	e, a := &row[0], s.attr
	e.hash, e.uid, e.gid, e.mode, e.size = hash, a.UID, a.GID, a.Mode, uint32(s.size)
	e.atime, e.mtime, e.ctime = a.Atime, a.Mtime, a.Ctime
}

func (t *sightings) remove(id sessfs.ID) {
	row, _, i := t.find(id)
	if i < 0 {
		return
	}
	row.use(i)
	copy(row[:], row[1:])
	row[seenRow-1].hash = 0
}
