package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sessfs/backend"
	"sessfs/internal/admin"
)

// rebalanceRequest is what `sessfs rebalance` was asked for.
type rebalanceRequest struct {
	options backend.RebalanceOptions
	asJSON  bool
	wait    bool
	bar     *progressBar
	out     io.Writer
	sleep   func(context.Context, time.Duration) error
}

func rebalanceCommand() *cobra.Command {
	var f clientFlags
	r := rebalanceRequest{sleep: sleep}
	cmd := &cobra.Command{
		Use:   "rebalance",
		Short: "Move sessions to where the present list of servers says; exit 0 when all are there",
		Long: `Move sessions to where the present list of servers says, and show which servers may be switched off.

After a change of the list sessions move by themselves when they are used, and what is not used ends within its
lifetime. This moves them now. It may be interrupted at any time (Ctrl-C): whatever was moved stays moved, and the next
rebalance goes on with the rest. One host does it for all. Sessions stay usable meanwhile; one that is locked is tried
again.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if r.options.Rate < 0 {
				return failf(exitUsage, "--rate: sessions per second are needed")
			}
			c, err := f.dial()
			if err != nil {
				return err
			}
			r.bar, r.out = newProgressBar(), cmd.OutOrStdout()
			return r.run(cmd.Context(), c.Rebalance)
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVarP(&r.options.DryRun, "dry-run", "n", false, "only count what would be moved")
	cmd.Flags().IntVar(&r.options.Rate, "rate", backend.DefaultRebalanceRate, "sessions moved in a second, at most")
	cmd.Flags().BoolVar(&r.wait, "wait", false, "go on until all servers that were removed may be switched off")
	cmd.Flags().BoolVar(&r.asJSON, "json", false, "the report for programs")
	return cmd
}

func (r *rebalanceRequest) run(ctx context.Context, rebalance admin.RebalanceFunc) error {
	report, err := r.untilDone(ctx, rebalance)
	r.bar.end()
	if err != nil {
		if ctx.Err() != nil {
			return failf(exitFailed, "interrupted: what was moved stays moved; run it again for the rest")
		}
		return err
	}
	if r.asJSON {
		enc := json.NewEncoder(r.out)
		enc.SetIndent("", "  ")
		err = enc.Encode(report)
	} else {
		err = printRebalance(r.out, report, r.bar.clock())
	}
	if err != nil {
		return err
	}
	if left := report.Busy + report.Failed; left > 0 {
		return failf(exitFailed, "%d sessions are not where they belong: run it again", left)
	}
	return nil
}

// untilDone rebalances once; with --wait again, at the times when that may free the servers that were removed.
func (r *rebalanceRequest) untilDone(ctx context.Context, rebalance admin.RebalanceFunc) (backend.RebalanceReport, error) {
	for {
		r.bar.begin()
		report, err := rebalance(ctx, r.options, func(p backend.RebalanceProgress) { r.bar.show(p.Done, p.Total, rebalanceText(p)) })
		if err != nil || !r.wait || r.options.DryRun {
			return report, err
		}
		var again, off time.Time
		for _, s := range report.Servers {
			if s.Again.After(again) {
				again = s.Again
			}
			if s.Off.After(off) {
				off = s.Off
			}
		}
		switch {
		case !again.IsZero():
			err = r.until(ctx, again, "seconds until it is certain that no host has the old list")
		case report.Complete():
			return report, r.until(ctx, off, "seconds until all removed servers may be switched off")
		default:
			return report, nil
		}
		if err != nil {
			return report, err
		}
	}
}

// until waits for a time, and shows how long that lasts.
func (r *rebalanceRequest) until(ctx context.Context, end time.Time, text string) error {
	r.bar.begin()
	begun := r.bar.begun
	for now := begun; now.Before(end); now = r.bar.clock() {
		r.bar.show(uint64(now.Sub(begun)/time.Second), uint64(end.Sub(begun)/time.Second), text)
		if err := r.sleep(ctx, min(time.Second, end.Sub(now))); err != nil {
			return err
		}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// rebalanceText is what stands behind the bar.
func rebalanceText(p backend.RebalanceProgress) string {
	text := p.Server
	if text != "" {
		text += ": "
	}
	text += fmt.Sprintf("%d moved", p.Moved)
	if p.Busy > 0 {
		text += fmt.Sprintf(", %d locked", p.Busy)
	}
	if p.Failed > 0 {
		text += fmt.Sprintf(", %d failed", p.Failed)
	}
	if p.Text != "" {
		text += "; " + p.Text
	}
	return text
}

// printRebalance prints what is where, and which servers may be switched off.
func printRebalance(out io.Writer, r backend.RebalanceReport, now time.Time) error {
	verb := "were moved"
	if r.DryRun {
		verb = "would be moved"
	}
	fmt.Fprintf(out, "%d sessions, %d %s", r.Sessions, r.Moved, verb)
	if r.Busy > 0 {
		fmt.Fprintf(out, ", %d were locked all the time", r.Busy)
	}
	if r.Failed > 0 {
		fmt.Fprintf(out, ", %d could not be moved", r.Failed)
	}
	fmt.Fprint(out, "\n\n")
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "SERVER\tADDRESS\tLIST\tSESSIONS\tSWITCH OFF")
	for _, s := range r.Servers {
		list := "removed"
		if s.Present {
			list = "present"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\n", printable(s.Name), s.Address, list, s.Sessions, switchOff(s, now))
	}
	return w.Flush()
}

// switchOff tells when a server may be switched off.
func switchOff(s backend.RebalanceServer, now time.Time) string {
	var text string
	switch {
	case s.Present && s.Off.IsZero():
		text = "no"
	case s.Off.IsZero():
		text = "not yet"
	case !s.Off.After(now):
		return "now"
	default:
		text = "from " + s.Off.Local().Format(time.DateTime)
	}
	if s.Why != "" {
		text += ": " + s.Why
	}
	return text
}
