package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sessfs/backend"
	"sessfs/config"
	"sessfs/internal/secret"
)

// loadSeal reads the keys that the configuration names; nil: there are none.
func loadSeal(c *config.Config) (*backend.Seal, error) {
	var files []backend.SealFile
	for _, k := range c.Seal.Keys {
		files = append(files, backend.SealFile(k))
	}
	return backend.LoadSeal(files, c.Seal.AcceptPlain, c.Seal.WritePlain)
}

func sealCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "seal",
		Short: "Make and change the keys that sessions are sealed with",
		Long: `Make and change the keys that sessions are sealed with on the cache servers (seal.keys).

To change keys: make a successor with sessfs seal key --like OLD NEW; on all hosts add it at the end of seal.keys, then,
again on all, move it to the front; sessfs seal rotate; then, on all, take the old one away. Each is a change of the
configuration while mounted.`,
	}
	root.AddCommand(sealKeyCommand(), sealRotateCommand())
	return root
}

func sealKeyCommand() *cobra.Command {
	var like string
	cmd := &cobra.Command{
		Use:   "key FILE",
		Short: "Write a new key to a file that does not exist yet",
		Long: `Write a new key to a file that does not exist yet, for its owner alone to read.

A key that is to take the place of another one one day must be made --like it: both then give sessions the same names on
the servers, without which hosts could not agree on locks.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var old *backend.SealKey
			if like != "" {
				text, err := secret.Read(like)
				if err == nil {
					if old, err = backend.ParseSealKey("old", text); err != nil {
						err = fmt.Errorf("%s: %w", like, err)
					}
				}
				if err != nil {
					return failf(exitUsage, "--like: %w", err)
				}
			}
			if err := writeNew(args[0], backend.NewSealKey(old)); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: a new key; copy it to all hosts, and name it under seal.keys\n", args[0])
			return nil
		},
	}
	cmd.Flags().StringVar(&like, "like", "", "the file of the key that it is to follow")
	return cmd
}

// writeNew writes a file that must not be there, for its owner alone.
func writeNew(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return failf(exitUsage, "%s is there already: a key is never overwritten, for sessions may be sealed with it", path)
	}
	if err != nil {
		return failf(exitFailed, "writing the key: %w", err)
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		os.Remove(path)
		return failf(exitFailed, "writing the key to %s: %w", path, err)
	}
	return nil
}

func sealRotateCommand() *cobra.Command {
	var f clientFlags
	var asJSON bool
	o := backend.RebalanceOptions{Seal: true}
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Seal all sessions with the first key; exit 0 when all are",
		Long: `Seal all sessions that are on the servers with the first key of seal.keys, whatever they are sealed with now, and those
that are not sealed at all. Sessions stay usable meanwhile. It may be interrupted at any time (Ctrl-C), and goes on where
it stopped when it is run again. One host does it for all; all must have the first key before.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Rate < 0 {
				return failf(exitUsage, "--rate: sessions per second are needed")
			}
			c, err := f.dial()
			if err != nil {
				return err
			}
			bar := newProgressBar()
			bar.begin()
			report, err := c.Rebalance(cmd.Context(), o, func(p backend.RebalanceProgress) { bar.show(p.Done, p.Total, sealText(p)) })
			bar.end()
			switch {
			case err != nil && cmd.Context().Err() != nil:
				return failf(exitFailed, "interrupted: what was sealed stays sealed; run it again for the rest")
			case err != nil:
				return err
			}
			return printSeals(cmd.OutOrStdout(), report, asJSON, bar.clock())
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVarP(&o.DryRun, "dry-run", "n", false, "only count what is sealed with which key")
	cmd.Flags().IntVar(&o.Rate, "rate", backend.DefaultRebalanceRate, "sessions sealed in a second, at most")
	cmd.Flags().BoolVar(&asJSON, "json", false, "the report for programs")
	return cmd
}

// sealText is what stands behind the bar.
func sealText(p backend.RebalanceProgress) string {
	return fmt.Sprintf("%s; %d sealed", rebalanceText(p), p.Sealed)
}

func printSeals(out io.Writer, r backend.RebalanceReport, asJSON bool, now time.Time) error {
	s := r.Seals
	switch {
	case s == nil:
		return failf(exitFailed, "the daemon is older than this program: sessfs upgrade")
	case asJSON:
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		if err := enc.Encode(r); err != nil {
			return err
		}
	default:
		verb := "were sealed"
		if r.DryRun {
			verb = "are to be sealed"
		}
		fmt.Fprintf(out, "%d copies of sessions %s with %s\n\n", s.Sealed, verb, printable(s.First))
		w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
		fmt.Fprintln(w, "KEY\tCOPIES THAT WERE FOUND")
		for _, name := range slices.Sorted(maps.Keys(s.Keys)) {
			shown := printable(name)
			if name == "" {
				shown = "(not sealed)"
			}
			fmt.Fprintf(w, "%s\t%d\n", shown, s.Keys[name])
		}
		if err := w.Flush(); err != nil {
			return err
		}
		if !s.Plain.IsZero() {
			fmt.Fprintf(out, "\nhosts have lately used names that are not hashed: these are looked for, too, until %s at the latest\n",
				s.Plain.Local().Format(time.DateTime))
		}
	}
	if left := s.Left + r.Busy + r.Failed; left > 0 {
		return failf(exitFailed, "%d could not be sealed or moved: see the daemon's log, and run it again", left)
	}
	return nil
}
