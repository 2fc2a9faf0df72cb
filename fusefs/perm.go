package fusefs

import (
	"bytes"
	"os"
	"strconv"

	"github.com/hanwen/go-fuse/v2/fuse"

	"sessfs"
)

// Wanted permissions, as in access(2).
const (
	wantExec  = 1
	wantWrite = 2
	wantRead  = 4
)

// allowed checks permissions as a local filesystem does (the kernel checks nothing without default_permissions).
// Where the caller's uid and gid leave the answer open, its supplementary groups decide; a caller from another pid
// namespace has none that could be asked, and is refused then.
func allowed(c *fuse.Caller, uid, gid, mode, want uint32) bool {
	if want == 0 {
		return true
	}
	if c.Uid == 0 {
		return want&wantExec == 0 || mode&0o111 != 0 // CAP_DAC_OVERRIDE
	}
	if c.Uid == uid {
		return mode>>6&want == want
	}
	group, other := mode>>3&want == want, mode&want == want
	if c.Gid == gid {
		return group
	}
	if group == other {
		return other
	}
	return inGroup(c.Pid, gid, other, group)
}

// inGroup answers inside where the process has gid as a supplementary group, else outside. Where that can't be told
// (pid 0: another pid namespace; a process that is gone), the answer is no.
func inGroup(pid, gid uint32, outside, inside bool) bool {
	if pid == 0 {
		return false
	}
	b, err := os.ReadFile("/proc/" + strconv.FormatUint(uint64(pid), 10) + "/status")
	if err != nil {
		return false
	}
	_, rest, ok := bytes.Cut(b, []byte("\nGroups:"))
	if !ok {
		return false
	}
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	for _, f := range bytes.Fields(line) {
		if g, err := strconv.ParseUint(string(f), 10, 32); err == nil && uint32(g) == gid {
			return inside
		}
	}
	return outside
}

// dropped are the bits that a file's mode loses when c changes its content: setuid, and setgid where it means anything.
func (fs *FS) dropped(c *fuse.Caller, a sessfs.Attr) uint32 {
	if c.Uid == 0 || a.Mode&0o6000 == 0 {
		return 0
	}
	if gid := fs.shown(a).GID; a.Mode&0o010 != 0 || c.Gid != gid && !inGroup(c.Pid, gid, false, true) {
		return 0o6000
	}
	return 0o4000
}

func (fs *FS) dirAllowed(c *fuse.Caller, want uint32) bool {
	return allowed(c, fs.opts.DirUID, fs.opts.DirGID, fs.opts.DirMode, want)
}

// fileAllowed checks the session's own owner and mode.
func (fs *FS) fileAllowed(c *fuse.Caller, a sessfs.Attr, want uint32) bool {
	a = fs.shown(a)
	return allowed(c, a.UID, a.GID, a.Mode, want)
}

// mayUnlink is the sticky bit's rule: in such a directory only the owner of the file, of the directory, or root
// removes it.
func (fs *FS) stickyAllows(c *fuse.Caller, a sessfs.Attr) bool {
	return fs.opts.DirMode&0o1000 == 0 || c.Uid == 0 || c.Uid == fs.opts.DirUID || c.Uid == fs.shown(a).UID
}

// shown is what processes of this host see of a session's owner: see Options.Owner.
func (fs *FS) shown(a sessfs.Attr) sessfs.Attr {
	if fs.opts.Owner != nil {
		a.UID = *fs.opts.Owner
	}
	if fs.opts.OwnerGID != nil {
		a.GID = *fs.opts.OwnerGID
	}
	return a
}

func wantOf(flags uint32) uint32 {
	switch flags & 3 {
	case 0:
		return wantRead
	case 1:
		return wantWrite
	default:
		return wantRead | wantWrite
	}
}
