package sessfs

import (
	"context"
	"time"
)

// LockKind is how a session's lock is held.
type LockKind uint8

// The kinds of lock, as in flock(2).
const (
	Shared LockKind = iota + 1
	Exclusive
)

// Queued is the key of a value of Claim.Lock's context: a func() that is called when the claim has its place among those
// that wait.
type Queued struct{}

// Store is what the filesystem works on: sessions with locks. Package locking implements it over a Backend. Every
// method but Claim.Lock returns within the configured timeout, whatever its context; errors are ErrUnavailable,
// ErrDamaged and those named.
type Store interface {
	// Open begins the use of a session by one open file description of process pid, and reads the session: one round
	// trip. For an opener that will write (intent), the lock among hosts is tried in that same round trip, unless
	// somebody here already holds or waits for it; it never waits for a lock. The session may be Missing or Destroyed.
	// The Claim must be closed.
	Open(ctx context.Context, id ID, intent bool, pid uint32) (Claim, *Session, error)
	// Read reads the session without a lock.
	Read(ctx context.Context, id ID) (*Session, error)
	// Commit changes a session without an open handle (touch, chmod, truncate by path). It is conditional on base
	// like Claim.Commit and takes the lock for its duration where nobody here holds it; ErrLocked when another host
	// does.
	Commit(ctx context.Context, id ID, base *Session, attr Attr, data []byte) (*Session, error)
	// Destroy replaces the session by a tombstone, lock or no lock. It reports whether there was a live session.
	Destroy(ctx context.Context, id ID) (bool, error)
	// List calls fn for every session on the servers, live ones only, in no order, in bounded memory. A session may
	// come twice. fn's error ends the listing and is returned.
	List(ctx context.Context, fn func(Entry) error) error
	// Usage tells how much room there is; it answers from figures at most some seconds old.
	Usage(ctx context.Context) (Usage, error)
}

// Claim is one open file description's place at the lock of one session. Its methods may be called from several
// goroutines at a time.
type Claim interface {
	// Lock gets the lock, or changes the kind that is held. With wait it queues, first come first served among this
	// host's claims, until the lock is got, ctx ends (the error is then ctx's) or lock.wait is over
	// (ErrLockTimeout). Without wait the answer may be ErrLocked. A session that is not nil was read under the lock
	// and replaces what the caller knew; nil: what Open or the last Commit through this Store showed is still current.
	// A failure other than ErrLocked or ctx's poisons the claim: see Err.
	Lock(ctx context.Context, kind LockKind, wait bool) (*Session, error)
	// LockAtOnce is Lock where it needs neither the network nor a wait, and where there is no session that replaces what
	// the caller knows. It reports false, having done nothing, for every other case.
	LockAtOnce(kind LockKind) bool
	// Unlock gives the lock up (LOCK_UN). It does not wait for the network.
	Unlock()
	// Commit stores attr and data as the next version, on condition that the servers still have base (its Version and
	// Ref), and returns the snapshot that now stands there. The caller gives data away. When this claim holds the
	// lock, the commit counts only while its lease stands (ErrLockLost otherwise). ErrConflict, ErrTooLarge.
	Commit(ctx context.Context, base *Session, attr Attr, data []byte) (*Session, error)
	// Held tells whether this claim holds the lock on a lease that still stands.
	Held() bool
	// Leased tells whether this host has the lease, whoever of its claims uses it: nobody elsewhere can change the
	// session under its lock.
	Leased() bool
	// Err is not nil once the lock was lost or could not be got: the handle must fail every later call.
	Err() error
	// Close ends the claim and gives up its lock. It does not wait for the network. A second Close does nothing.
	Close()
}

// Reopened is an open file description that a former daemon of this host has left.
type Reopened struct {
	PID  uint32
	Kind LockKind // the lock that it had; 0: none
}

// Reopener is a Store that can go on where a former daemon of this host has ended.
type Reopener interface {
	// Reopen makes the Claims of a session's open file descriptions, with the locks that they had, and reads the session.
	// A lock that was lost makes its claims fail: see Claim.Err. An error is that of the read.
	Reopen(ctx context.Context, id ID, list []Reopened) ([]Claim, *Session, error)
	// Reopened is called when Reopen was for all of them: the locks that the former daemon has left beside go back, in
	// the background.
	Reopened()
}

// MarkLife is how long a mark stays that is not left again.
const MarkLife = 5 * time.Second

// Backend keeps sessions and leases on servers. Package backend implements it over memcached, backend/memory in one
// process; both pass the same conformance suite (backend/backendtest). Every method returns within the configured
// timeout, whatever its context. Errors wrap ErrUnavailable when the servers did not answer and ErrDamaged when a
// record is unreadable.
type Backend interface {
	// TryLock tries to take the session's lease for holder and reads the session, in one round trip. The lease is nil
	// when somebody else has it. The session is as read after the lock, so with a lease it was read under it. The
	// holder's Token, where it has one, becomes the lease's, and a lock that has it already is this lease.
	TryLock(ctx context.Context, id ID, holder Holder) (*Lease, *Session, error)
	// Read reads the session.
	Read(ctx context.Context, id ID) (*Session, error)
	// Locked tells whether anybody holds the session's lock, and who, with the token of its lease and whether its
	// host has answered a mark: one round trip, cheaper than TryLock. The holder is nil when nobody does.
	Locked(ctx context.Context, id ID) (*Holder, error)
	// Mark tells the host that has the lease with that token that somebody wants it: its next Commit with Lease.Look or
	// its next Marked shows it. A mark ends by itself after MarkLife.
	Mark(ctx context.Context, id ID, token string) error
	// Marked tells which of some leases are marked: one round trip a server. One whose server is not connected, or does
	// not answer, counts as not marked.
	Marked(ctx context.Context, leases []*Lease) []bool
	// Unbroken tells, without asking, whether the connection that brought the lease stands: if not, the server may have
	// restarted without it.
	Unbroken(lease *Lease) bool
	// Answer replaces the mark of a lease by an answer, which tells those who left it that its host knows of them and
	// will not serve the session from memory any more. It does not wait.
	Answer(lease *Lease)
	// Commit stores attr and data as the version after base, if base is still what the servers have (for a Missing
	// base: if they have nothing). With a lease the commit is acknowledged only if the lease still stood after the
	// store (ErrLockLost). With Lease.Look it sets Lease.Marked too, in the same round trip. It returns the new snapshot. ErrConflict, ErrTooLarge: nothing was stored. An answer that
	// was lost is looked up: one's own nonce on the server is success. The session ends Attr.Remaining from now.
	Commit(ctx context.Context, id ID, base *Session, attr Attr, data []byte, lease *Lease) (*Session, error)
	// Renew moves the lease's end on the servers and its Deadline. ErrLockLost when it is no longer ours.
	Renew(ctx context.Context, lease *Lease) error
	// Unlock gives the lease back if it is still ours; nobody frees another's lock. It does not wait for the answer.
	Unlock(lease *Lease)
	// Break frees the lock of a session whoever holds it, and tells who did (nil: nobody). A lease that may be kept is
	// marked, so that its host learns of it.
	Break(ctx context.Context, id ID) (*Holder, error)
	// Destroy stores a tombstone above the highest version seen, and tells whether there was a live session.
	// A missing session is not given a tombstone. The holder is who had the lock after that (nil: nobody): with Keep,
	// its host may go on serving the destroyed session from memory for so long, or until its lease is marked.
	Destroy(ctx context.Context, id ID) (bool, *Holder, error)
	// List calls fn for every session (see Store.List).
	List(ctx context.Context, fn func(Entry) error) error
	// Usage sums the servers' room.
	Usage(ctx context.Context) (Usage, error)
	// Servers tells how each server stands, asking those that answer.
	Servers(ctx context.Context) []ServerStatus
	// Close ends all connections and goroutines.
	Close() error
}
