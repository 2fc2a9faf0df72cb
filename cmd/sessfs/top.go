package main

import (
	"context"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"sessfs/internal/admin"
	"sessfs/internal/status"
	"sessfs/internal/top"
)

// topRequest is what `sessfs top` was asked for.
type topRequest struct {
	interval time.Duration
	once     bool
	batch    int // snapshots; 0: live, where there is a terminal
}

// shortestInterval keeps top from being the load that it shows.
const shortestInterval = 100 * time.Millisecond

func topCommand() *cobra.Command {
	var f clientFlags
	var r topRequest
	cmd := &cobra.Command{
		Use:   "top [MOUNTPOINT]",
		Short: "Show live what is slow, who holds locks, and how the servers are",
		Long: `Show live what is slow, who holds locks, and how the servers are. Keys: q quits, p pauses, h explains.

Where standard output is no terminal one snapshot is written, as with --once.
The environment variable NO_COLOR leaves colours out.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch batch := cmd.Flags().Changed("batch"); {
			case r.once && batch:
				return failf(exitUsage, "--once and --batch: only one of them")
			case r.interval < shortestInterval:
				return failf(exitUsage, "--interval: %v or longer is needed, such as 1s", shortestInterval)
			case r.batch < 1 && batch:
				return failf(exitUsage, "--batch: the number of snapshots is needed, one or more")
			case r.once:
				r.batch = 1
			}
			c, err := f.dial(args...)
			if err != nil {
				return err
			}
			return r.run(cmd, c)
		},
	}
	f.add(cmd)
	cmd.Flags().DurationVarP(&r.interval, "interval", "i", time.Second, "time between two looks, and what rates are of")
	cmd.Flags().BoolVar(&r.once, "once", false, "one plain snapshot")
	cmd.Flags().IntVar(&r.batch, "batch", 0, "so many plain snapshots")
	return cmd
}

func (r *topRequest) run(cmd *cobra.Command, c *admin.Client) error {
	o := top.Options{Interval: r.interval, Colour: os.Getenv("NO_COLOR") == "", Ask: func(ctx context.Context) (*status.Report, error) {
		var s status.Report
		return &s, c.Get(ctx, "/status", nil, &s)
	}}
	if r.batch > 0 || !onTerminal() {
		err := top.Batch(cmd.Context(), cmd.OutOrStdout(), o, max(r.batch, 1), plainWidth())
		if cmd.Context().Err() != nil {
			return failf(exitFailed, "interrupted")
		}
		return err
	}
	// Whatever ends it, the terminal is left as it was.
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGHUP, syscall.SIGQUIT)
	defer stop()
	// A daemon that is not there at all is an error; one that goes meanwhile is waited for.
	if _, err := o.Ask(ctx); err != nil {
		return err
	}
	t, err := top.OpenTerminal()
	if err != nil {
		return err
	}
	defer t.Close()
	return top.Live(ctx, t, o)
}

func onTerminal() bool {
	kind := os.Getenv("TERM")
	return term.IsTerminal(int(os.Stdout.Fd())) && kind != "" && kind != "dumb"
}

// plainWidth is how many columns a snapshot has.
func plainWidth() int {
	if width, _, err := term.GetSize(int(os.Stdout.Fd())); err == nil && width > 0 {
		return width
	}
	if width, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && width > 0 {
		return width
	}
	return 120
}
