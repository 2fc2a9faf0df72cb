package main

import (
	"errors"
	"log/slog"

	"golang.org/x/sys/unix"

	"sessfs/config"
	"sessfs/fusefs"
	"sessfs/internal/confine"
)

// daemonRights are what a daemon needs of root's: SYS_PTRACE to see how a process of PHP ended, DAC_READ_SEARCH for files
// with keys and passwords, whosever they are, SYS_NICE for its priority in a crowd.
func daemonRights(c *config.Config, imports bool) confine.Set {
	s := confine.Of(unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH, unix.CAP_SYS_NICE)
	if imports {
		s |= confine.Of(unix.CAP_LEASE) // tells whether PHP has a file open that is another user's
	}
	for _, server := range c.Cache.Servers {
		if server.Network == "unix" {
			s |= confine.Of(unix.CAP_DAC_OVERRIDE) // memcached's socket is for its own user alone by default
		}
	}
	return s
}

// keeperRights are those, since it starts the daemons, and what mounting and taking rights away needs.
func keeperRights(daemon confine.Set) confine.Set {
	return daemon | confine.Of(unix.CAP_SYS_ADMIN, unix.CAP_SETPCAP)
}

// confineDaemon takes from this process what a daemon never needs. What cannot be taken is said, and all goes on.
func confineDaemon(log *slog.Logger) {
	if err := confine.Filter(); err != nil {
		log.Warn("the kernel does not filter the system calls of this daemon", "err", err)
	}
}

// unmountOurs is umount2(2) of a session directory; what else may be mounted there is left alone.
func unmountOurs(mountpoint string, flags int) error {
	all, err := fusefs.MountsOf("self")
	if err != nil {
		return err
	}
	kind := ""
	for _, m := range all {
		if m.Dir == mountpoint {
			kind = m.Type
		}
	}
	if kind != fusefs.Type {
		return unix.EINVAL // as umount2 says where nothing is mounted
	}
	return unix.Unmount(mountpoint, flags&(unix.MNT_DETACH|unix.MNT_FORCE))
}

// unmount is unmountOurs of the daemon's own. The keeper does it, but for one of an older version, whose daemons may.
func (d *daemon) unmount(flags int) error {
	err := unmountOurs(d.mountpoint, flags)
	if errors.Is(err, unix.EPERM) {
		err = d.child.Unmount(flags)
	}
	return err
}
