// Package move carries sessions between a directory of files, as PHP keeps them, and the servers.
//
// The directory may be writable by everybody, and PHP may be at work in it. So names are checked, links never followed, and
// nothing but regular files opened; and a file is copied while no process has it open for writing (a lease of fcntl(2),
// where the filesystem has them) and none has its lock (flock(2)). On the servers a session is stored under its lock and on
// condition of its version, as by a mount. The session's lock is taken first, and held until the file is free: whoever
// wants the session through a mount waits for what the process with the file will leave there.
//
// Which is newer, file or session, is told by the time of the last change; the session that an import has stored has the
// file's. So an import can be repeated, and does what is left. A journal beside it knows what was imported: a file that is
// gone since then was a session that PHP has destroyed, and so is the copy on the servers, unless it was changed there.
package move
