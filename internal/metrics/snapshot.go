// Package metrics shows a daemon's figures to Prometheus. It keeps none of its own: a scrape takes one Snapshot and
// translates it. docs/metrics.md says what each is good for, and a test holds it to what is exported.
//
// No label has a session's id or hash, or anything else that a visitor chooses: the number of series depends on the
// configuration alone.
package metrics

import (
	"time"

	"sessfs"
	"sessfs/backend"
	"sessfs/fusefs"
	"sessfs/internal/hist"
	"sessfs/locking"
)

// Snapshot is how a daemon stands.
type Snapshot struct {
	Version    string
	Mountpoint string
	Started    time.Time
	Mounted    bool
	NotReady   error // why sessions of this host fail; nil: they do not

	Files                  fusefs.Stats
	Locking                locking.Stats
	OldestHold, OldestWait time.Duration // of the locks that are held and waited for now

	// Of the cache servers; nil and 0 where sessions are kept in the process.
	Copies     *backend.Copies
	Seals      *backend.Seals
	Cache      *backend.Cache
	Servers    []sessfs.ServerStatus
	RoundTrips map[string]hist.Snapshot // by the server's name
	Waited     uint64                   // round trips that requests waited for

	Reload Reload
}

// Reload is what became of the configuration file.
type Reload struct {
	OK      bool      // the last one was taken over, as far as that is possible while mounted
	At      time.Time // when the last one was that was
	Pending int       // keys that differ from the file until the next mount
}

// NamedServers are the servers, one for each name: of a server that has moved to another address, the new one.
func (s *Snapshot) NamedServers() []sessfs.ServerStatus {
	var list []sessfs.ServerStatus
	at := make(map[string]int)
	for _, sv := range s.Servers {
		i, known := at[sv.Name]
		switch {
		case !known:
			at[sv.Name] = len(list)
			list = append(list, sv)
		case list[i].Leaving && !sv.Leaving:
			list[i] = sv
		}
	}
	return list
}
