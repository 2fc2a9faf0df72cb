package fusefs

import (
	"context"
	"errors"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"sessfs"
)

// toErrno is the one table from errors to what the kernel is told. Everything not named is EIO: PHP shows it and
// keeps the client's id, where ENOENT would make strict mode throw the id away.
func toErrno(err error) fuse.Status {
	switch {
	case err == nil:
		return fuse.OK
	case errors.Is(err, sessfs.ErrTooLarge):
		return fuse.Status(syscall.EFBIG)
	case errors.Is(err, sessfs.ErrLocked):
		return fuse.EAGAIN
	case errors.Is(err, context.Canceled):
		return fuse.EINTR
	default:
		return fuse.EIO
	}
}

// Status values that go-fuse has no names for.
const (
	eisdir  = fuse.Status(syscall.EISDIR)
	efbig   = fuse.Status(syscall.EFBIG)
	estale  = fuse.Status(syscall.ESTALE)
	eexist  = fuse.Status(syscall.EEXIST)
	enotsup = fuse.Status(syscall.EOPNOTSUPP)
	enolck  = fuse.Status(syscall.ENOLCK)
	enotdir = fuse.Status(syscall.ENOTDIR)

	enametoolong = fuse.Status(syscall.ENAMETOOLONG)
)
