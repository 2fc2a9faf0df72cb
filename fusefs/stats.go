package fusefs

import (
	"fmt"
	"sync/atomic"
	"time"

	"sessfs"
	"sessfs/internal/hist"
)

// Stats are figures since the mount was made, but for those that say "now".
type Stats struct {
	Operations map[string]uint64 `json:"operations"` // requests of the kernel, by their FUSE name
	// Latency is how long requests took from being read to their answer, by the same names: those that are answered.
	Latency      map[string]hist.Snapshot `json:"latency"`
	OpenFiles    int                      `json:"open_files"`                // now
	OpenSessions int                      `json:"open_sessions"`             // now
	Nodes        int                      `json:"nodes"`                     // names known now
	Stores       uint64                   `json:"stores"`                    // sessions stored
	LostStores   uint64                   `json:"lost_stores"`               // changes left to close that could not be stored
	Lookups      uint64                   `json:"lookups_waited"`            // LOOKUPs that waited for the network
	Errors       uint64                   `json:"errors"`                    // operations that failed because of the servers or the lock
	TooLarge     uint64                   `json:"too_large"`                 // writes over session.max_size
	Refused      uint64                   `json:"opens_refused"`             // opens of a user, or of all, beyond what may be open at a time
	LastError    *time.Time               `json:"last_error,omitempty"`      // when Errors last grew; nil: never
	LastLost     *time.Time               `json:"last_lost_store,omitempty"` // when LostStores last grew; nil: never
}

type counters struct {
	polls      atomic.Uint64 // of the device, that brought requests
	crowded    atomic.Uint64 // of these, that brought more than one
	ops        [maxOpcode]atomic.Uint64
	latency    [maxOpcode]hist.Hist
	stores     atomic.Uint64
	lostStores atomic.Uint64
	lookups    atomic.Uint64
	errors     atomic.Uint64
	tooLarge   atomic.Uint64
	lastError  atomic.Int64 // unix nanoseconds; 0: never
	lastLost   atomic.Int64
}

// maxOpcode is above all opcodes that are known.
const maxOpcode = 64

// took counts a request that was answered.
func (c *counters) took(op uint32, begun hist.Instant) {
	if op < maxOpcode {
		c.latency[op].Since(begun)
	}
}

func moment(ns *atomic.Int64) *time.Time {
	if n := ns.Load(); n != 0 {
		t := time.Unix(0, n)
		return &t
	}
	return nil
}

func opName(op uint32) string {
	if name := opNames[op]; name != "" {
		return name
	}
	return fmt.Sprintf("OPCODE_%d", op)
}

// opNames are the operations a session directory sees, by opcode (linux/fuse.h).
var opNames = map[uint32]string{
	1: "LOOKUP", 2: "FORGET", 3: "GETATTR", 4: "SETATTR", 6: "SYMLINK", 8: "MKNOD", 9: "MKDIR", 10: "UNLINK",
	11: "RMDIR", 12: "RENAME", 13: "LINK", 14: "OPEN", 15: "READ", 16: "WRITE", 17: "STATFS", 18: "RELEASE",
	20: "FSYNC", 21: "SETXATTR", 22: "GETXATTR", 23: "LISTXATTR", 24: "REMOVEXATTR", 25: "FLUSH", 26: "INIT",
	27: "OPENDIR", 28: "READDIR", 29: "RELEASEDIR", 30: "FSYNCDIR", 31: "GETLK", 32: "SETLK", 33: "SETLKW",
	34: "ACCESS", 35: "CREATE", 36: "INTERRUPT", 38: "DESTROY", 39: "IOCTL", 40: "POLL", 42: "BATCH_FORGET",
	43: "FALLOCATE", 44: "READDIRPLUS", 45: "RENAME2", 46: "LSEEK", 47: "COPY_FILE_RANGE", 51: "TMPFILE", 52: "STATX",
}

func (fs *FS) stats() Stats {
	s := Stats{
		Operations: make(map[string]uint64),
		Latency:    make(map[string]hist.Snapshot),
		Stores:     fs.counters.stores.Load(),
		LostStores: fs.counters.lostStores.Load(),
		Lookups:    fs.counters.lookups.Load(),
		Errors:     fs.counters.errors.Load(),
		TooLarge:   fs.counters.tooLarge.Load(),
		LastError:  moment(&fs.counters.lastError),
		LastLost:   moment(&fs.counters.lastLost),
	}
	for op := range fs.counters.ops {
		if n := fs.counters.ops[op].Load(); n > 0 {
			s.Operations[opName(uint32(op))] = n
		}
		if l := fs.counters.latency[op].Snapshot(); l.Count > 0 {
			s.Latency[opName(uint32(op))] = l
		}
	}
	fs.mu.Lock()
	s.OpenFiles, s.OpenSessions, s.Nodes, s.Refused = len(fs.handles), len(fs.files), fs.nodes.len(), fs.open.refused
	fs.mu.Unlock()
	return s
}

// failed counts and logs an operation that PHP is told EIO for.
func (fs *FS) failed(what string, id sessfs.ID, err error) {
	if conflict(err) {
		fs.log.Warn("a change was refused: the session was changed by somebody else since it was read", "operation", what, "session", id.Hash(), "err", err)
	} else {
		fs.log.Error("an operation failed", "operation", what, "session", id.Hash(), "err", err)
	}
	fs.counters.errors.Add(1)
	fs.counters.lastError.Store(time.Now().UnixNano())
}

func (fs *FS) tooLarge(id sessfs.ID, size uint64) {
	fs.counters.tooLarge.Add(1)
	fs.log.Warn("a session is over session.max_size and was not stored; the old one stays", "session", id.Hash(), "bytes", size, "max_size", fs.settings.Load().MaxSize)
}
