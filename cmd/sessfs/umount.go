package main

import (
	"errors"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sessfs/fusefs"
)

func umountCommand() *cobra.Command {
	var lazy bool
	cmd := &cobra.Command{
		Use:   "umount MOUNTPOINT",
		Short: "Unmount a session directory",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := realPath(args[0])
			if err != nil {
				return err
			}
			kind, dead, err := fusefs.Mounted(dir)
			switch {
			case err != nil:
				return err
			case kind != fusefs.Type:
				return failf(exitFailed, "%s is not a mount of sessfs", dir)
			}
			flags := 0
			if lazy || dead {
				flags = unix.MNT_DETACH
			}
			switch err := unix.Unmount(dir, flags); {
			case errors.Is(err, unix.EBUSY):
				return failf(exitFailed, "%s: files or the directory itself are in use (fuser -vm %s); --lazy detaches it, those who use it go on until they close", dir, dir)
			case err != nil:
				return failf(exitFailed, "unmounting %s: %w", dir, err)
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&lazy, "lazy", "l", false, "detach now, end when the last file is closed")
	return cmd
}
