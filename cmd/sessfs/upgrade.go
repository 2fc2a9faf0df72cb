package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sessfs/internal/admin"
	"sessfs/internal/keeper"
	"sessfs/internal/status"
)

// upgradeSocket is where the keeper of a mount is asked to replace the daemon whose admin socket is given.
func upgradeSocket(socket string) string { return socket + ".keeper" }

// upgrades takes requests to replace the daemon. Whoever connects has asked for it, and gets the answer: nothing, or
// what went wrong.
type upgrades struct {
	asked  chan keeper.Upgrade
	listen net.Listener // nil: not yet
	done   chan struct{}
}

func newUpgrades() *upgrades {
	return &upgrades{asked: make(chan keeper.Upgrade), done: make(chan struct{})}
}

// begin listens at path.
func (u *upgrades) begin(path string) (err error) {
	if u.listen, err = admin.Listen(path, nil); err != nil {
		return fmt.Errorf("the keeper's socket: %w", err)
	}
	go u.serve()
	return nil
}

// serve answers one after the other, until close.
func (u *upgrades) serve() {
	for {
		c, err := u.listen.Accept()
		if err != nil {
			return
		}
		answer := make(keeper.Upgrade, 1)
		select {
		case u.asked <- answer:
			select {
			case err := <-answer:
				if err != nil {
					fmt.Fprintln(c, err)
				}
			case <-u.done:
				fmt.Fprintln(c, "the keeper has ended")
			}
		case <-u.done:
		}
		c.Close()
	}
}

func (u *upgrades) close() {
	close(u.done)
	if u.listen == nil {
		return
	}
	path := u.listen.Addr().String()
	u.listen.Close()
	os.Remove(path)
}

// upgradeTime is how long an upgrade may take: the keeper's own limits are shorter.
const upgradeTime = 3 * time.Minute

func upgradeCommand() *cobra.Command {
	var f clientFlags
	cmd := &cobra.Command{
		Use:   "upgrade [MOUNTPOINT]",
		Short: "Replace the running daemon by the installed one, under the same mount",
		Long: `Replace the running daemon by one that is started from the installed binary, and reads the
configuration anew. The mount stays, files stay open, locks stay held; PHP requests wait for a moment.
The new daemon connects to the cache servers before the old one goes; when it cannot begin, the old one goes on and
this command says why. What needs a remount (see "sessfs config check") is not changed by it.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.dial(args...)
			if err != nil {
				return err
			}
			var before, after status.Report
			if err := c.Get(cmd.Context(), "/status", nil, &before); err == nil && before.Config != "" {
				if _, err := loadConfig(before.Config, true); err != nil {
					return err
				}
			}
			if err := askKeeper(upgradeSocket(c.Socket())); err != nil {
				return err
			}
			if err := c.Get(cmd.Context(), "/status", nil, &after); err != nil {
				return fmt.Errorf("the daemon was replaced, but does not answer: %w", err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: version %s (pid %d) has taken over from %s (pid %d)\n", after.Mountpoint, after.Version, after.PID, before.Version, before.PID)
			return nil
		},
	}
	f.add(cmd)
	return cmd
}

// askKeeper has a keeper replace its daemon.
func askKeeper(socket string) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return fmt.Errorf("asking the keeper of the mount: %w (is the mount of a version that had none? Then unmount and mount again, once)", err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(upgradeTime))
	answer, err := io.ReadAll(conn)
	if err != nil {
		return fmt.Errorf("waiting for the keeper of the mount: %w", err)
	}
	if len(answer) > 0 {
		return fmt.Errorf("the daemon was not replaced: %s", strings.TrimSpace(string(answer)))
	}
	return nil
}
