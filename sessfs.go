// Package sessfs holds the nouns that all parts of the daemon share: sessions, versions, leases, the two interfaces
// between its layers, and the errors that cross them.
//
// The way of a request:
//
//	PHP ── kernel ── fusefs ── Store (locking) ── Backend (backend, backend/memory) ── memcached
//
// fusefs, locking and backend never import each other; they meet here, and cmd/sessfs wires them. This package imports
// the standard library only.
package sessfs

import (
	"crypto/sha256"
	"encoding/hex"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// ID names a session: the whole file name, "sess_4fb1…" for PHP's own. Any bytes but '/' and NUL, 1 to 255 of them;
// it is chosen by whoever sends the cookie and must be treated as hostile.
type ID string

// Valid tells whether a file can have that name.
func (id ID) Valid() bool {
	return id != "" && len(id) <= 255 && id != "." && id != ".." && !strings.ContainsAny(string(id), "/\x00")
}

// Hash is what may stand in a log or an error instead of the id itself: 12 hexadecimal digits of its SHA-256.
func (id ID) Hash() string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:6])
}

// Version orders the states of one session. Counter grows by one with every commit; a new session's counter starts at
// the unix time in milliseconds, so that a later incarnation outranks every earlier one. Nonce is random for each
// commit and tells two commits with one counter apart.
type Version struct {
	Counter uint64
	Nonce   uint64
}

// State says what is known of a session.
type State uint8

// The states of a Session.
const (
	Missing   State = iota // no server has anything under this id
	Live                   // Data and Attr hold
	Destroyed              // a tombstone: it was unlinked, and an older copy must not come back
)

// Attr are a session's file attributes. Times are unix nanoseconds.
type Attr struct {
	UID, GID            uint32
	Mode                uint32 // the permission bits, 07777 at most
	Atime, Mtime, Ctime int64
}

// Remaining is how long a session with these attributes lives, which lasts so long from its last change or touch: that is
// what Ctime tells. 0: it has ended. Without a Ctime, or with one that is yet to come, it is the whole lifetime.
func (a Attr) Remaining(lifetime time.Duration) time.Duration {
	if a.Ctime == 0 {
		return lifetime
	}
	return min(max(lifetime-time.Since(time.Unix(0, a.Ctime)), 0), lifetime)
}

// Session is an immutable snapshot of a session as it stood on the servers. Nobody may change it or the bytes of Data
// once it is made.
type Session struct {
	State   State
	Version Version // zero when Missing
	Attr    Attr    // zero unless Live; of a tombstone Ctime alone: when it was made, 0: not known
	Data    []byte  // nil unless Live
	// Ref is what the Backend that made the snapshot needs to commit on top of it (cas values and the like).
	// No one else looks inside.
	Ref any
}

// Exists says whether the session is there for a reader: neither missing nor destroyed.
func (s *Session) Exists() bool { return s != nil && s.State == Live }

// Holder tells who holds a lock, for logs and `sessfs show`. PID is the PHP process, 0 when not known.
type Holder struct {
	Host  string
	Boot  string // the kernel's boot id: pids of another boot mean nothing
	PID   uint32
	Since time.Time
	// Keep is for how long the holder's host may serve the session from memory, without the lock being used, after its
	// last answer from the servers; 0: not at all.
	Keep time.Duration
	// Token is the lease's, where the holder was read from a lock: two leases of one process differ in it.
	Token string
	// Answered, where the holder was read from a lock: its host has answered a mark that this lease is wanted.
	Answered bool
	// Also is one whose lock stands on another server at the same time; nil: there is none. Of several hosts that try for the
	// lock none has it yet, or one has it and has lost its lock on a server that was restarted.
	Also *Holder
}

// Of returns the one with that token among the holder, its Also, and so on; nil: there is none.
func (h *Holder) Of(token string) *Holder {
	for ; h != nil && h.Token != token; h = h.Also {
	}
	return h
}

// WithToken returns the holder with a token for its lease where it has none: random, so that no two have the same.
func (h Holder) WithToken() Holder {
	if h.Token == "" {
		h.Token = strconv.FormatUint(rand.Uint64(), 16)
	}
	return h
}

// Lease is this host's hold on a session's lock among all hosts. It is made by Backend.TryLock.
type Lease struct {
	ID    ID
	Token string // unique for each lease; what stands in the lock's item
	// Deadline is when this host must stop relying on the lease: on CLOCK_BOOTTIME, in nanoseconds (see Boottime),
	// which goes on while a machine is suspended. It is moved only by Backend.Renew. Guarded by the owner of the lease.
	Deadline int64
	// Keep is the Holder's: what other hosts reckon with.
	Keep time.Duration
	// Look makes Backend.Commit look for a mark, and Marked says that there is one: somebody elsewhere wants this lease,
	// and Backend.Unlock should not be slow.
	Look, Marked bool
	// Ref is the Backend's own.
	Ref any
}

// Entry is one session of a listing.
type Entry struct {
	ID      ID
	State   State
	Attr    Attr
	Size    int64
	Expires time.Time // zero: not known
	Server  string    // the configured name of the server it was seen on
}

// Usage is the room for sessions on all servers together, in bytes and items.
type Usage struct {
	TotalBytes, FreeBytes uint64
	Items                 uint64
}

// ServerStatus tells how one cache server stands.
type ServerStatus struct {
	Name        string        `json:"name"`
	Address     string        `json:"address"`
	Up          bool          `json:"up"`
	DownSince   *time.Time    `json:"down_since,omitempty"`
	LastError   string        `json:"last_error,omitempty"`
	Protocol    string        `json:"protocol,omitempty"` // "meta" or "classic"
	TLS         string        `json:"tls,omitempty"`      // version, as "1.3"
	Login       string        `json:"login,omitempty"`    // that it wanted: "ascii" or "sasl"
	Version     string        `json:"version,omitempty"`
	Uptime      time.Duration `json:"uptime_ns,omitempty"`
	Items       uint64        `json:"items"`
	Bytes       uint64        `json:"bytes"`
	LimitBytes  uint64        `json:"limit_bytes"`
	ItemMax     uint64        `json:"item_max"`
	Evictions   uint64        `json:"evictions"`
	Hits        uint64        `json:"hits"`
	Misses      uint64        `json:"misses"`
	Connections uint64        `json:"connections"`
	RoundTrips  uint64        `json:"round_trips"` // made by this daemon, waited for or not
	Failures    uint64        `json:"failures"`    // requests of this daemon that got no usable answer
	// Young: it was started less than a lease ago and may have forgotten locks, so that it does not count among those that
	// must have one.
	Young bool `json:"young,omitempty"`
	// ToMend is how many sessions are still to be looked at since it came back, so that it has its copies; -1: not known yet.
	ToMend int64 `json:"to_mend"`
	// Leaving: it is in no list of the configuration any more, but sessions may be there alone.
	Leaving bool `json:"leaving,omitempty"`
	// Restarted is when this daemon last noticed that another process answers at its address.
	Restarted *time.Time `json:"restarted,omitempty"`
}
