package main

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"sessfs/internal/secret"
)

func configCommand() *cobra.Command {
	root := &cobra.Command{Use: "config", Short: "Work with configuration files", Args: cobra.NoArgs}
	root.AddCommand(&cobra.Command{
		Use:   "check [FILE]",
		Short: "Check a configuration file: exit 0, or the lines and the reasons",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			file := defaultConfig
			if len(args) == 1 {
				file = args[0]
			}
			c, err := loadConfig(file, true)
			if err != nil {
				return err
			}
			if _, err := mountOptions(c, file, c.Mountpoint); err != nil {
				return err
			}
			if _, err := adminGroup(c, file); err != nil {
				return err
			}
			_, err = loadSeal(c)
			switch err := cmp.Or(backendOptions(c).Secure.Check(), err); {
			case errors.Is(err, secret.ErrNoCredentials):
				fmt.Fprintf(cmd.ErrOrStderr(), "%s: warning: not checked: %v\n", file, err)
			case err != nil:
				return failf(exitConfig, "%s: %w", file, err)
			}
			for _, w := range c.Warnings() {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s: warning: %s\n", file, w)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: ok: %s, %s\n", file, c.Mountpoint, serversText(c))
			return nil
		},
	})
	return root
}
