package move

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"sessfs"
)

// info is what is known of a file.
type info struct {
	attr sessfs.Attr // Ctime is the last change of the data, which is what a session's life begins with
	size int64
}

// Errors of files.
var (
	errGone    = errors.New("it is gone")
	errLocked  = errors.New("a process has it locked")
	errOpen    = errors.New("a process has it open for writing")
	errChanged = errors.New("it was changed while it was read")
)

// refusal is a file that is none of PHP's.
type refusal string

func (r refusal) Error() string { return string(r) }

// racy is for how long a file may be written again without another time of change: the clock of filesystems ticks at
// every 10 ms at most, that of some NFS servers every second.
func (d *Dir) racy() time.Duration {
	if d.nfs {
		return 2 * time.Second
	}
	return 20 * time.Millisecond
}

// look tells what stands under a name, without opening it.
func (l *level) look(name string) (info, error) {
	var st unix.Statx_t
	// NFS answers from its cache otherwise.
	err := unix.Statx(l.fd, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &st)
	switch {
	case errors.Is(err, unix.ENOENT):
		return info{}, errGone
	case err != nil:
		return info{}, fmt.Errorf("stat: %w", err)
	}
	if err := regular(uint32(st.Mode), uint64(st.Nlink)); err != nil {
		return info{}, err
	}
	ns := func(t unix.StatxTimestamp) int64 { return t.Sec*1e9 + int64(t.Nsec) }
	return newInfo(st.Uid, st.Gid, uint32(st.Mode), ns(st.Atime), ns(st.Mtime), ns(st.Ctime), int64(st.Size)), nil
}

// newInfo: the time of change may have been set to the future by the file's owner; the kernel's own is never before it
// otherwise.
func newInfo(uid, gid, mode uint32, atime, mtime, ctime, size int64) info {
	mtime = min(mtime, ctime)
	return info{attr: sessfs.Attr{UID: uid, GID: gid, Mode: mode & 0o777, Atime: atime, Mtime: mtime, Ctime: mtime}, size: size}
}

func regular(mode uint32, links uint64) error {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		if links > 1 {
			return refusal("a file with several names (hard links)")
		}
		return nil
	case unix.S_IFLNK:
		return refusal("a symbolic link")
	case unix.S_IFDIR:
		return refusal("a directory")
	case unix.S_IFIFO:
		return refusal("a fifo")
	case unix.S_IFSOCK:
		return refusal("a socket")
	}
	return refusal("a device")
}

// open opens a regular file for reading, without a trace in its times where that is possible.
func (l *level) open(name string) (fd int, st unix.Stat_t, err error) {
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	fd, err = unix.Openat(l.fd, name, flags|unix.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) {
		fd, err = unix.Openat(l.fd, name, flags, 0)
	}
	switch {
	case errors.Is(err, unix.ENOENT):
		return -1, st, errGone
	case errors.Is(err, unix.ELOOP):
		return -1, st, refusal("a symbolic link")
	case errors.Is(err, unix.EAGAIN): // somebody has a lease
		return -1, st, errOpen
	case err != nil:
		return -1, st, fmt.Errorf("open: %w", err)
	}
	if err = unix.Fstat(fd, &st); err == nil {
		err = regular(st.Mode, uint64(st.Nlink))
	}
	if err == nil && st.Nlink == 0 {
		err = errGone
	}
	if err != nil {
		unix.Close(fd)
		return -1, st, err
	}
	return fd, st, nil
}

// copied is a file's content with its attributes.
type copied struct {
	info
	data []byte
	racy bool // it may be written again without another time of change
}

// hold opens a file that nobody has open for writing, or locked. A writer that comes later waits until it is closed. With
// open its lock alone must be free.
func (d *Dir) hold(l *level, name string, open bool) (fd int, err error) {
	fd, _, err = l.open(name)
	if err != nil {
		return -1, err
	}
	switch err = unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		err = errLocked
	case err != nil:
		err = fmt.Errorf("flock: %w", err)
	case !d.nfs && !open:
		// Filesystems without leases, and users who may not take one, do without.
		if _, no := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_RDLCK); errors.Is(no, unix.EAGAIN) {
			err = errOpen
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// inUse tells whether somebody has a file open for writing, or locked. Other errors are not told.
func (d *Dir) inUse(l *level, name string, open bool) error {
	fd, err := d.hold(l, name, open)
	switch {
	case err == nil:
		unix.Close(fd)
	case errors.Is(err, errLocked), errors.Is(err, errOpen):
		return err
	}
	return nil
}

// copy reads a whole file. With open it does not matter who has it open, but for its lock.
func (d *Dir) copy(l *level, name string, maxSize int64, open bool) (copied, error) {
	fd, err := d.hold(l, name, open)
	if err != nil {
		return copied{}, err
	}
	defer unix.Close(fd)
	begun := time.Now()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return copied{}, fmt.Errorf("stat: %w", err)
	}
	c := copied{info: infoOf(&st)}
	if c.size > maxSize {
		return c, sessfs.ErrTooLarge
	}
	c.data = make([]byte, c.size)
	if err := readAll(fd, c.data); err != nil {
		return copied{}, err
	}
	if err := unix.Fstat(fd, &st); err != nil {
		return copied{}, fmt.Errorf("stat: %w", err)
	}
	if now := infoOf(&st); now.size != c.size || now.attr.Mtime != c.attr.Mtime {
		return copied{}, errChanged
	}
	c.racy = begun.Sub(time.Unix(0, c.attr.Mtime)) < d.racy()
	return c, nil
}

func infoOf(st *unix.Stat_t) info {
	return newInfo(st.Uid, st.Gid, st.Mode, st.Atim.Nano(), st.Mtim.Nano(), st.Ctim.Nano(), st.Size)
}

// readAll fills b from the file's beginning.
func readAll(fd int, b []byte) error {
	for at := 0; at < len(b); {
		n, err := unix.Pread(fd, b[at:], int64(at))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("read: %w", err)
		case n == 0:
			return errChanged
		default:
			at += n
		}
	}
	return nil
}

// writeAll writes b to a descriptor.
func writeAll(fd int, b []byte) error {
	for at := 0; at < len(b); {
		n, err := unix.Write(fd, b[at:])
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("write: %w", err)
		}
		at += max(n, 0)
	}
	return nil
}
