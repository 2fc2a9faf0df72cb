// Package fusefs is the filesystem that PHP sees: go-fuse's RawFileSystem over a sessfs.Store.
//
// The idea: PHP's files handler opens, stats, flocks, reads, truncates, writes and closes; only two of these wait for
// the network. OPEN takes the lock and reads the session in one round trip, WRITE stores it in another; everything
// between is answered from memory. LOOKUP is answered locally, because kernels before 6.12 hold the directory's lock
// through every open(O_CREAT): a well-formed name exists until known otherwise, and the truth comes out at OPEN, which
// answers ESTALE for a missing session; the kernel then looks the name up again, hears ENOENT, and sends CREATE.
//
// The raw interface is used because go-fuse's node API numbers nodes afresh in every process and hides RELEASE's
// flags. Node ids here are a keyed hash of the name, the same in every daemon of a mount.
//
// Order of locks: file.storing, then FS.mu, then file.mu, then witnesses.mu. None of the last three is held over a call of the Store that
// may wait for the network.
package fusefs

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"sessfs"
	"sessfs/internal/handover"
	"sessfs/internal/loop"
)

// Options say how a mount looks. All but Settings are fixed for its life.
type Options struct {
	Mountpoint string
	Source     string  // first column of /proc/mounts
	Flags      uintptr // of mount(2)
	Data       string  // more data for mount(2): SELinux contexts

	DirUID, DirGID, DirMode uint32   // of the directory; DirMode are permission bits, the sticky bit included
	Files                   []string // patterns of the names that may stand here; '*' is any run of bytes
	Depth                   int      // N of session.save_path = "N;/path", 0 to 7
	Owner, OwnerGID         *uint32  // nil: kept with each session; else all sessions appear as theirs
	Key                     []byte   // secret of the node ids, the same in every daemon of this mount

	Settings
	Log   *slog.Logger
	Loops *loop.Group // that read /dev/fuse; nil: one of the mount's own

	// Device is /dev/fuse (see OpenDevice), which the Server closes; 0: Mount opens it. Memory is where stands what a
	// successor needs, or what a former daemon of the mount has left: then the mount is there, and is taken over. nil: the
	// mount ends with this daemon.
	Device int
	Memory *handover.Memory
	// Mount is MountDevice, and Unmount umount2(2) of the mount, for a process that may make neither call; nil: it may.
	Mount   func() error
	Unmount func(flags int) error
	// Before, where it is not nil, is called between mounting and serving, when all that is asked of the mount waits. An
	// error of it ends the mount.
	Before func() error
}

// Settings may change while mounted.
type Settings struct {
	MaxSize  int64         // bytes of one session
	Lease    time.Duration // how long a store at RELEASE is retried
	Lifetime time.Duration // of a session that is not touched
	Timeout  time.Duration // of one operation on the network
}

// FS answers the kernel's requests. It is made by Mount.
type FS struct {
	fuse.RawFileSystem // everything not implemented here: ENOSYS
	store              sessfs.Store
	opts               Options
	settings           atomic.Pointer[Settings]
	log                *slog.Logger
	device             *device // for notifications; nil in tests without a kernel
	memory             *handover.Memory
	honest             int64 // Boottime until which LOOKUP tells the truth: a former daemon may have told part of it
	names              names
	started            time.Time

	resumed   sync.Map // unique -> chan struct{}: waits for locks that have not got their places again
	witnesses witnesses
	counters  counters
	work      sync.WaitGroup // stores at RELEASE that are under way
	stop      chan struct{}  // closed when the mount is gone

	mu      sync.Mutex
	nodes   nodeTable              // guarded by mu
	files   map[sessfs.ID]*file    // guarded by mu: sessions that are open here
	handles map[uint64]*handle     // guarded by mu
	dirs    map[uint64]*listing    // guarded by mu
	lastFh  uint64                 // guarded by mu
	marks   marks                  // guarded by mu
	unsaved map[sessfs.ID]error    // guarded by mu: a store at RELEASE failed; the next OPEN says so, once
	ghosts  *lru[sessfs.ID, ghost] // guarded by mu: see ghost
	seen    sightings              // guarded by mu
	unknown unknownNodes           // guarded by mu
	retries retries                // guarded by mu
	open    openFiles              // guarded by mu
}

const (
	entryTimeout = time.Hour
	attrTimeout  = 100 * time.Millisecond // rule 1: the longest that attributes may be reused
	openFresh    = 100 * time.Millisecond // what OPEN read is still news for its process
	maxUnsaved   = 4096
	maxGhosts    = 16384
)

func newFS(store sessfs.Store, o Options) *FS {
	fs := &FS{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		store:         store,
		opts:          o,
		log:           o.Log,
		memory:        o.Memory,
		names:         newNames(o.Files, o.Depth, o.Key),
		started:       time.Now(),
		stop:          make(chan struct{}),
		files:         make(map[sessfs.ID]*file),
		handles:       make(map[uint64]*handle),
		dirs:          make(map[uint64]*listing),
		unsaved:       make(map[sessfs.ID]error),
		ghosts:        newLRU[sessfs.ID, ghost](maxGhosts),
	}
	fs.nodes.init(&fs.names, o.Memory)
	fs.marks.init()
	fs.open.init()
	fs.seen.init()
	s := o.Settings
	fs.settings.Store(&s)
	return fs
}

// String names the filesystem in go-fuse's messages.
func (fs *FS) String() string { return "sessfs" }

// background is the context of every operation but a lock wait: signals are ignored, since PHP's timers would turn
// them into spurious EINTR; the Store's own timeout bounds the operation.
var background = context.Background()

// janitor ends marks that nobody claimed, and the watching of processes that are gone. It runs until the mount is gone.
func (fs *FS) janitor() {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-fs.stop:
			fs.mu.Lock()
			ended := fs.marks.expire(1 << 62)
			fs.mu.Unlock()
			closeClaims(ended)
			return
		case <-tick.C:
			fs.mu.Lock()
			ended := fs.marks.expire(sessfs.Boottime())
			fs.mu.Unlock()
			closeClaims(ended)
			if n%10 == 0 {
				fs.witnesses.tidy()
			}
		}
	}
}

func closeClaims(claims []sessfs.Claim) {
	for _, c := range claims {
		c.Close()
	}
}
