// Package status is what a daemon tells of itself: the document of `sessfs status --json`, what in it is not well, and
// how it is shown.
package status

import (
	"time"

	"sessfs"
	"sessfs/backend"
	"sessfs/fusefs"
	"sessfs/internal/hist"
	"sessfs/locking"
)

// Report is `sessfs status --json`: a contract, fields are only ever added. Counts are since the start of the daemon, but
// for those that say "now".
type Report struct {
	Version    string                `json:"version"`
	Host       string                `json:"host"`
	PID        int                   `json:"pid"`
	Keeper     int                   `json:"keeper_pid"`
	Daemons    int                   `json:"daemons"` // that have served this mount
	Mountpoint string                `json:"mountpoint"`
	Config     string                `json:"config,omitempty"`
	Started    time.Time             `json:"started"`
	Uptime     time.Duration         `json:"uptime_ns"` // by a clock that nobody sets
	Store      string                `json:"store"`     // "memcached" or "embedded"
	Servers    []sessfs.ServerStatus `json:"servers"`
	Copies     *backend.Copies       `json:"copies,omitempty"`
	Seals      *backend.Seals        `json:"seals,omitempty"`
	Cache      *backend.Cache        `json:"cache,omitempty"`
	Hosts      []backend.HostRecord  `json:"hosts,omitempty"` // that use the same servers, as they have told within 15 minutes
	Files      fusefs.Stats          `json:"files"`
	Locking    locking.Stats         `json:"locking"`
	Locks      []locking.Lock        `json:"locks"` // now, the first 1000
	LastLost   *time.Time            `json:"last_lost_lock,omitempty"`
	// Contention are the locks that were held for LongLock or longer, or waited for, now.
	Contention locking.Contention   `json:"contention"`
	Requests   uint64               `json:"requests"` // openings of sessions, of which a PHP request makes one
	Hottest    []locking.HotSession `json:"hottest"`  // the sessions opened most in the last minute
	RoundTrips uint64               `json:"round_trips_waited"`
	// RoundTripTimes are those of the round trips that were answered, by server.
	RoundTripTimes map[string]hist.Snapshot `json:"round_trip_times,omitempty"`
	Goroutines     int                      `json:"goroutines"`
}

const (
	// MaxLocks is how many Locks a Report has.
	MaxLocks = 1000
	// MaxListed is how many entries each of its other lists of sessions has.
	MaxListed = 50
	// LongLock is how old a lock of the Contention is.
	LongLock = 2 * time.Second
)
