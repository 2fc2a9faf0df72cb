package fusefs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
)

// StatFs shows the room on the cache servers: some applications refuse to work without free space.
func (fs *FS) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	u, err := fs.store.Usage(background)
	if err != nil {
		return toErrno(err)
	}
	const block = 4096
	*out = fuse.StatfsOut{
		Bsize: block, Frsize: block, NameLen: 255,
		Blocks: u.TotalBytes / block, Bfree: u.FreeBytes / block, Bavail: u.FreeBytes / block,
		// An item takes some hundred bytes at least; nothing else limits their number.
		Files: u.Items + u.FreeBytes/256, Ffree: u.FreeBytes / 256,
	}
	return fuse.OK
}

// What a session directory does not have, each with the errno of a filesystem that lacks it.

// Mkdir: the directories of depth > 0 are there already.
func (fs *FS) Mkdir(_ <-chan struct{}, _ *fuse.MkdirIn, _ string, _ *fuse.EntryOut) fuse.Status {
	return fuse.EPERM
}

// Rmdir: see Mkdir.
func (fs *FS) Rmdir(_ <-chan struct{}, _ *fuse.InHeader, _ string) fuse.Status { return fuse.EPERM }

// Mknod: sessions are regular files, made by open.
func (fs *FS) Mknod(_ <-chan struct{}, _ *fuse.MknodIn, _ string, _ *fuse.EntryOut) fuse.Status {
	return fuse.EPERM
}

// Symlink is refused.
func (fs *FS) Symlink(_ <-chan struct{}, _ *fuse.InHeader, _, _ string, _ *fuse.EntryOut) fuse.Status {
	return fuse.EPERM
}

// Link is refused: a session has one name.
func (fs *FS) Link(_ <-chan struct{}, _ *fuse.LinkIn, _ string, _ *fuse.EntryOut) fuse.Status {
	return fuse.EPERM
}

// Rename is refused: the id is the session's key on the servers.
func (fs *FS) Rename(_ <-chan struct{}, _ *fuse.RenameIn, _, _ string) fuse.Status { return fuse.EPERM }

// Fallocate is refused: nothing is set aside on the servers.
func (fs *FS) Fallocate(_ <-chan struct{}, _ *fuse.FallocateIn) fuse.Status { return enotsup }
