package backend

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// The history of lists: which servers, with which weights and how many replicas, hosts have lately had in their
// configuration. A session lives where the list said that was in use when it was stored, so for one lifetime after a
// change every operation goes to the sets of all lists of that lifetime. Hosts learn of each other's lists, a daemon that
// starts in between of those before it, from one JSON document on every server of all these lists.
//
// What is here is pure: no clock, no I/O. A host reads the document of every server, lets mergeInto say what is to be
// stored there, and stores it with add or cas.
const (
	listsMark      = documentMark + "lists" // the document's key, after the prefix; no record's key begins so
	listsFormat    = 1
	maxLists       = 16 // in a document
	maxKnownLists  = 64 // in a host's memory, which may know more than has a place in a document
	maxListServers = 1024
	maxListsSize   = 64 << 10 // bytes of the document

	// listRefresh is how old a list's last use may become before a host that has the list notes it again.
	listRefresh = time.Minute
	// listSkew is how far the clocks of two hosts may differ.
	listSkew = 2 * time.Minute
	// listQuietFor is how long ago the last noted use of a list must be before it is certain that no host has it any more.
	listQuietFor = 2*listRefresh + listSkew
)

// list is one list of servers, with what is known of its use.
type list struct {
	Servers  []listServer `json:"servers"` // in the order of their names
	Replicas int          `json:"replicas"`
	Hashed   bool         `json:"hashed,omitempty"` // keys have hashes in the place of names
	Used     int64        `json:"used"`             // when a host last noted that it has this list; unix ms
	Moved    int64        `json:"moved,omitempty"`  // when all its sessions had been moved to newer lists; unix ms
}

type listServer struct {
	Name    string `json:"name"`
	Network string `json:"network"` // "tcp" or "unix"
	Address string `json:"address"`
	Weight  int    `json:"weight"`
}

// history is some lists, no two of them equal (see identity), in the order of newest.
type history []list

type historyDocument struct {
	Format int     `json:"format"`
	Lists  history `json:"lists"`
}

// identity is the same for two lists that place sessions alike: addresses and order do not matter.
func (l *list) identity() string {
	b := strconv.AppendInt(nil, int64(l.Replicas), 10)
	if l.Hashed {
		b = append(b, hashedMark...)
	}
	for _, s := range l.Servers {
		b = strconv.AppendInt(append(b, '\n'), int64(s.Weight), 10)
		b = append(append(b, ' '), s.Name...)
	}
	return string(b)
}

// addresses decides between two lists that were used at the same time, so that all hosts decide alike.
func (l *list) addresses() string {
	var b strings.Builder
	for _, s := range l.Servers {
		b.WriteString(s.Network + " " + s.Address + "\n")
	}
	return b.String()
}

// alive says whether sessions may be found under the list alone, or hosts have it.
func (l *list) alive(now time.Time, lifetime time.Duration) bool {
	return !l.old(now, lifetime) && l.Moved <= l.Used+listSkew.Milliseconds()
}

// old: whatever was stored under the list has ended.
func (l *list) old(now time.Time, lifetime time.Duration) bool {
	return now.UnixMilli()-l.Used > (lifetime + 2*listRefresh).Milliseconds()
}

// ends is when the list is old, if no host notes it again.
func (l *list) ends(lifetime time.Duration) time.Time {
	return time.UnixMilli(l.Used).Add(lifetime + 2*listRefresh)
}

// quiet says whether it is certain that no host has had the list since at.
func (l *list) quiet(at time.Time) bool { return l.quietFrom().Before(at) }

// quietFrom is when the list is quiet, if no host notes it again.
func (l *list) quietFrom() time.Time { return time.UnixMilli(l.Used).Add(listQuietFor) }

// newest orders lists: the one that was used last comes first.
func newest(a, b list) int {
	return cmp.Or(cmp.Compare(b.Used, a.Used), cmp.Compare(a.identity(), b.identity()))
}

// newHistory is that of lists in any order, with repetitions.
func newHistory(lists []list) history {
	at := make(map[string]int, len(lists))
	h := make(history, 0, len(lists))
	for _, l := range lists {
		l.Servers = slices.Clone(l.Servers)
		slices.SortFunc(l.Servers, func(a, b listServer) int { return cmp.Compare(a.Name, b.Name) })
		i, known := at[l.identity()]
		if !known {
			at[l.identity()] = len(h)
			h = append(h, l)
			continue
		}
		moved := max(h[i].Moved, l.Moved)
		if cmp.Or(cmp.Compare(l.Used, h[i].Used), cmp.Compare(l.addresses(), h[i].addresses())) > 0 {
			h[i] = l
		}
		h[i].Moved = moved
	}
	slices.SortFunc(h, newest)
	return h
}

// merge puts two histories together. In whatever order and how often hosts do it, all come to the same.
func (h history) merge(other history) history { return newHistory(slices.Concat(h, other)) }

// find returns the list that places sessions like l, or nil.
func (h history) find(l list) *list {
	l = newHistory([]list{l})[0]
	for i := range h {
		if h[i].identity() == l.identity() {
			return &h[i]
		}
	}
	return nil
}

// alive returns the lists that operations must go to, newest first.
func (h history) alive(now time.Time, lifetime time.Duration) history {
	return h.filter(func(l *list) bool { return l.alive(now, lifetime) })
}

// expire leaves the old lists out. Those that were moved stay until they are old: another server may not know it yet.
func (h history) expire(now time.Time, lifetime time.Duration) history {
	return h.filter(func(l *list) bool { return !l.old(now, lifetime) })
}

func (h history) filter(keep func(*list) bool) history {
	kept := make(history, 0, len(h))
	for i := range h {
		if keep(&h[i]) {
			kept = append(kept, h[i])
		}
	}
	return kept
}

// drop marks a list as one that nobody needs any more: all its sessions were found, by a search that began at begun, to
// be where newer lists say. It reports false, and changes nothing, where that is not certain: a host had the list that
// lately that it may have stored sessions by it alone, behind the search.
func (h history) drop(l list, begun, now time.Time) (history, bool) {
	found := h.find(l)
	if found == nil {
		return h, true
	}
	if !found.quiet(begun) {
		return h, false
	}
	dropped := *found
	dropped.Moved = max(dropped.Moved, now.UnixMilli())
	return h.merge(history{dropped}), true
}

// clamp mends times that are further in the future than clocks differ: a list must not stay for ever because one clock
// was wrong. It reports whether there were any.
func (h history) clamp(now time.Time) (history, bool) {
	latest := now.Add(listSkew).UnixMilli()
	lists := slices.Clone(h)
	clamped := false
	for i := range lists {
		l := &lists[i]
		clamped = clamped || l.Used > latest || l.Moved > latest
		l.Used, l.Moved = min(l.Used, latest), min(l.Moved, latest)
	}
	return newHistory(lists), clamped
}

// mergeInto says what a host is to do with the document that it found on a server (nil: none). known is what the host
// knew before; own is the list of its configuration, which is in use now. It returns what is known after that, and what
// is to be stored, or nil where the server has it all, with times that are fresh enough: of many hosts one stores in a
// minute. An error tells what is wrong with the document; then it is to be replaced, and nothing is lost by that.
// left is how many lists that are alive found no place in it.
func mergeInto(current []byte, known history, own list, now time.Time, lifetime time.Duration) (merged history, store []byte, left int, err error) {
	var found history
	if current != nil {
		found, err = decodeHistory(current)
	}
	found, clamped := found.clamp(now)
	known, _ = known.clamp(now)
	own.Used, own.Moved = now.UnixMilli(), 0
	merged, _ = known.merge(found).merge(history{own}).expire(now, lifetime).bounded(own, now, lifetime, maxKnownLists, math.MaxInt)
	fits, left := merged.bounded(own, now, lifetime, maxLists, maxListsSize)
	if !clamped && found.covers(fits) {
		return merged, nil, left, err
	}
	return merged, fits.encode(), left, err
}

// covers says whether h has all of other, but for times of use that differ by less than a refresh.
func (h history) covers(other history) bool {
	for _, l := range other {
		f := h.find(l)
		if f == nil || f.Moved < l.Moved || l.Used-f.Used >= listRefresh.Milliseconds() {
			return false
		}
	}
	return true
}

// bounded leaves out what is over so many lists, or over the length of their document: first lists that are not alive,
// then those used longest ago; never own. left is how many of them are alive.
func (h history) bounded(own list, now time.Time, lifetime time.Duration, lists, size int) (fits history, left int) {
	own = newHistory([]list{own})[0]
	rank := func(l list) int {
		switch {
		case l.identity() == own.identity():
			return 0
		case l.alive(now, lifetime):
			return 1
		}
		return 2
	}
	fits = slices.Clone(h)
	slices.SortStableFunc(fits, func(a, b list) int { return cmp.Compare(rank(a), rank(b)) })
	for len(fits) > 1 && (len(fits) > lists || len(fits.encode()) > size) {
		last := len(fits) - 1
		if rank(fits[last]) == 1 {
			left++
		}
		fits = fits[:last]
	}
	slices.SortFunc(fits, newest)
	return fits, left
}

// encode is the document; equal histories give equal bytes.
func (h history) encode() []byte {
	b, err := json.Marshal(historyDocument{listsFormat, h})
	if err != nil {
		panic(err) // strings and numbers alone
	}
	return b
}

// decodeHistory reads a document, which may be anything: whoever can reach the servers can write there.
func decodeHistory(b []byte) (history, error) {
	if len(b) > maxListsSize {
		return nil, fmt.Errorf("the history of server lists has %d bytes, %d are possible", len(b), maxListsSize)
	}
	if !utf8.Valid(b) {
		return nil, errors.New("the history of server lists is not UTF-8")
	}
	var d historyDocument
	if err := json.Unmarshal(b, &d); err != nil {
		return nil, fmt.Errorf("the history of server lists: %w", err)
	}
	if d.Format != listsFormat {
		return nil, fmt.Errorf("the history of server lists has the format %d, this program knows %d", d.Format, listsFormat)
	}
	if len(d.Lists) > maxLists {
		return nil, fmt.Errorf("the history of server lists has %d of them, %d are possible", len(d.Lists), maxLists)
	}
	for i := range d.Lists {
		if err := d.Lists[i].check(); err != nil {
			return nil, fmt.Errorf("the history of server lists: list %d: %w", i+1, err)
		}
	}
	return newHistory(d.Lists), nil
}
