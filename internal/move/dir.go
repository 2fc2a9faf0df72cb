package move

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Names are the rules of a session directory.
type Names struct {
	// Match tells whether a session's file may have that name, and which part of it the levels are made of.
	Match func(name string) (sub string, ok bool)
	// Level tells whether a directory of that name may be a level.
	Level func(name string) bool
	Depth int // N of session.save_path = "N;/path"
}

// Dir is an open directory of session files. It stays that one when something is mounted over it.
type Dir struct {
	Path string
	root *level
	nfs  bool
	stat unix.Stat_t
}

// Open opens a directory. Links are followed here, and nowhere below it.
func Open(path string) (*Dir, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the directory %s: %w", path, err)
	}
	d := &Dir{Path: path, root: &level{fd: fd}}
	d.root.refs.Store(1)
	if err := unix.Fstat(fd, &d.stat); err != nil {
		d.Close()
		return nil, fmt.Errorf("the directory %s: %w", path, err)
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		d.Close()
		return nil, fmt.Errorf("the directory %s: %w", path, err)
	}
	d.nfs = fs.Type == unix.NFS_SUPER_MAGIC
	return d, nil
}

// Close closes it.
func (d *Dir) Close() { d.root.done() }

// Device is what /proc/self/mountinfo calls the filesystem.
func (d *Dir) Device() string {
	return fmt.Sprintf("%d:%d", unix.Major(uint64(d.stat.Dev)), unix.Minor(uint64(d.stat.Dev)))
}

// Key names the directory itself, whatever its path is.
func (d *Dir) Key() string { return fmt.Sprintf("%d:%d", d.stat.Dev, d.stat.Ino) }

// level is an open directory that files are reached by, as long as somebody needs it.
type level struct {
	fd   int
	path string // the characters of its levels
	refs atomic.Int32
}

func (l *level) use() *level {
	l.refs.Add(1)
	return l
}

func (l *level) done() {
	if l.refs.Add(-1) == 0 {
		unix.Close(l.fd)
	}
}

// entry is a name in a directory of the deepest level, or one that should not be where it is.
type entry struct {
	at   *level // in use for this entry
	name string
	why  string // it is refused; "": it is not
}

// walk calls fn for all entries, in the order of the directories. Each entry's level is fn's to let go of.
func (d *Dir) walk(ctx context.Context, n Names, fn func(entry)) error {
	return d.walkLevel(ctx, d.root, n, fn)
}

func (d *Dir) walkLevel(ctx context.Context, l *level, n Names, fn func(entry)) error {
	// Of its own: the position of a descriptor is shared among those that are duplicated.
	fd, err := unix.Openat(l.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("reading %s: %w", d.Path, err)
	}
	f := os.NewFile(uintptr(fd), d.Path)
	defer f.Close()
	for {
		names, err := f.Readdirnames(1024)
		for _, name := range names {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := d.visit(ctx, l, name, n, fn); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("reading %s: %w", d.Path, plain(err))
		}
	}
}

func (d *Dir) visit(ctx context.Context, l *level, name string, n Names, fn func(entry)) error {
	e := entry{at: l.use(), name: name}
	if len(l.path) < n.Depth && n.Level(name) {
		next, err := l.enter(name)
		if err == nil {
			l.done()
			defer next.done()
			return d.walkLevel(ctx, next, n, fn)
		}
		e.why = "no directory of the filesystem, where depth asks for one"
		fn(e)
		return nil
	}
	sub, ok := n.Match(name)
	switch {
	case !ok || strings.HasPrefix(name, tempName):
		e.why = "the name is none of `files`"
	case len(l.path) != n.Depth || len(sub) < n.Depth || sub[:n.Depth] != l.path:
		e.why = fmt.Sprintf("it is not where depth %d has it", n.Depth)
	}
	fn(e)
	return nil
}

// enter opens a directory in this one, on the same filesystem and without following links.
func (l *level) enter(name string) (*level, error) {
	fd, err := unix.Openat(l.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	var own, its unix.Stat_t
	err = errors.Join(unix.Fstat(l.fd, &own), unix.Fstat(fd, &its))
	if err == nil && own.Dev != its.Dev {
		err = unix.EXDEV
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	next := &level{fd: fd, path: l.path + name}
	next.refs.Store(1)
	return next, nil
}

// plain is the reason of an error alone: the path in it may hold a session's id.
func plain(err error) error {
	if p := (*os.PathError)(nil); errors.As(err, &p) {
		return p.Err
	}
	if s := (*os.SyscallError)(nil); errors.As(err, &s) {
		return s.Err
	}
	return err
}
