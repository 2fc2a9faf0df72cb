package main

import (
	"strings"

	"github.com/spf13/cobra"

	"sessfs/fusefs"
	"sessfs/internal/admin"
)

// clientFlags choose the daemon that a command speaks with.
type clientFlags struct {
	file       string
	mountpoint string
}

func (f *clientFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&f.file, "config", "c", "", "configuration file of the mount")
	cmd.Flags().StringVarP(&f.mountpoint, "mountpoint", "m", "", "the mount to ask")
}

// dial finds the daemon's socket: of the named configuration, of the named mount point, which may be the command's only
// argument, or of the one mount there is.
func (f *clientFlags) dial(args ...string) (*admin.Client, error) {
	if len(args) == 1 {
		f.mountpoint = args[0]
	}
	if f.mountpoint == "" && f.file != "" {
		c, err := loadConfig(f.file, true)
		if err != nil {
			return nil, err
		}
		return admin.Dial(c.Admin.Socket), nil
	}
	mounts, err := fusefs.Mounts()
	if err != nil {
		return nil, err
	}
	if f.mountpoint != "" {
		dir, err := realPath(f.mountpoint)
		if err != nil {
			return nil, err
		}
		for _, m := range mounts {
			if m.Dir == dir {
				return dialMount(m)
			}
		}
		return nil, failf(exitFailed, "%s is not a mount of sessfs", dir)
	}
	switch len(mounts) {
	case 0:
		return nil, failf(exitFailed, "no sessfs is mounted on this host")
	case 1:
		return dialMount(mounts[0])
	}
	dirs := make([]string, len(mounts))
	for i, m := range mounts {
		dirs[i] = m.Dir
	}
	return nil, failf(exitUsage, "several are mounted (%s): say which with its mount point (--mountpoint)", strings.Join(dirs, ", "))
}

func dialMount(m fusefs.MountInfo) (*admin.Client, error) {
	if !strings.HasPrefix(m.Source, "/") {
		return admin.Dial(socketOf(nil, "", m.Dir)), nil
	}
	c, err := loadConfig(m.Source, true)
	if err != nil {
		return nil, err
	}
	return admin.Dial(c.Admin.Socket), nil
}

// socketName turns a mount point into a file name.
func socketName(mountpoint string) string {
	return strings.NewReplacer("%", "%25", "/", "%2F").Replace(mountpoint) + ".sock"
}
