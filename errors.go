package sessfs

import "errors"

// The errors that cross the layers. Inner code wraps them with %w and says which server or file, and why; fusefs has
// the one table that turns them into an errno.
var (
	// ErrUnavailable: the servers that must answer did not, in time, or their breaker is open.
	ErrUnavailable = errors.New("cache servers unavailable")
	// ErrConflict: the session is no longer the version that the change was built on. Nothing was stored.
	ErrConflict = errors.New("session was changed by somebody else")
	// ErrLockLost: the lease ended before the change was stored, or was taken away with `sessfs unlock`.
	ErrLockLost = errors.New("the session's lock was lost")
	// ErrLocked: the lock is held by somebody else and the caller did not want to wait.
	ErrLocked = errors.New("the session is locked")
	// ErrLockTimeout: the lock was waited for as long as lock.wait allows.
	ErrLockTimeout = errors.New("gave up waiting for the session's lock")
	// ErrTooLarge: the session is over session.max_size, or the server refuses its size. The old one stays.
	ErrTooLarge = errors.New("session too large")
	// ErrDamaged: what the server holds under the session's key is not a session of this program.
	ErrDamaged = errors.New("damaged session record")
	// ErrNotSupported: the server or this store cannot do that.
	ErrNotSupported = errors.New("not supported")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("closed")
)
