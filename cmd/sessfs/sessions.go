package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sessfs/internal/admin"
)

func lsCommand() *cobra.Command {
	var f clientFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the sessions of all hosts",
		Long: `List the sessions of all hosts: mode, owner, group, bytes, time of the last change, hash, and name.

The hash is what stands for the session in logs, in status and in top: sessfs ls | grep HASH finds its name.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.dial()
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if asJSON {
				enc := json.NewEncoder(out)
				return c.List(cmd.Context(), func(e admin.Entry) error { return enc.Encode(e) })
			}
			return c.List(cmd.Context(), func(e admin.Entry) error {
				// Ids are chosen by whoever sends the cookie: control bytes must not reach the terminal.
				_, err := fmt.Fprintf(out, "%04o %5d %5d %8d  %s  %s  %s\n", e.Mode, e.UID, e.GID, e.Size, e.Mtime.Format(time.DateTime), e.Hash, printable(e.Name()))
				return err
			})
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "for programs, one object a line")
	return cmd
}

func printable(s string) string {
	q := strconv.QuoteToASCII(s)
	if q == `"`+s+`"` {
		return s
	}
	return q
}

// nameHint helps who gave PHP's session id where the file's name was asked for.
func nameHint(id string) string {
	if strings.HasPrefix(id, "sess_") {
		return ""
	}
	return " (ID is the file's name as ls shows it, such as sess_4fb1…)"
}

func showCommand() *cobra.Command {
	var f clientFlags
	var asJSON, data bool
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show one session and who holds its lock",
		Long: `Show one session and who holds its lock. ID is the file's name, such as sess_4fb1…, or, of a session that is in use on
this host, the hash that logs, status and top show.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.dial()
			if err != nil {
				return err
			}
			q := url.Values{"id": args}
			if data {
				q.Set("data", "1")
			}
			var s admin.Session
			if err := c.Get(cmd.Context(), "/session", q, &s); err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if s.State != "live" && !asJSON {
				lock := ""
				if h := s.Holder; h != nil {
					lock = fmt.Sprintf("; its lock is held by pid %d of %s since %s", h.PID, printable(h.Host), h.Since.Format(time.RFC3339))
				}
				return failf(exitFailed, "session %s is %s%s%s", printable(args[0]), s.State, nameHint(args[0]), lock)
			}
			if asJSON {
				enc := json.NewEncoder(out)
				enc.SetIndent("", "  ")
				return enc.Encode(s)
			}
			if data {
				_, err := out.Write(s.Data)
				return err
			}
			w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
			fmt.Fprintf(w, "session\t%s (%s in the logs)\n", printable(s.Name()), s.Hash)
			fmt.Fprintf(w, "version\t%d\n", s.Counter)
			fmt.Fprintf(w, "size\t%d bytes\n", s.Size)
			fmt.Fprintf(w, "owner\t%d:%d, mode %04o\n", s.UID, s.GID, s.Mode)
			fmt.Fprintf(w, "modified\t%s\n", s.Mtime.Format(time.RFC3339))
			if h := s.Holder; h != nil {
				fmt.Fprintf(w, "lock\theld by pid %d of %s since %s\n", h.PID, printable(h.Host), h.Since.Format(time.RFC3339))
			} else {
				fmt.Fprintf(w, "lock\tfree\n")
			}
			return w.Flush()
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "for programs")
	cmd.Flags().BoolVar(&data, "data", false, "print what the application stored, and nothing else")
	return cmd
}

func rmCommand() *cobra.Command {
	var f clientFlags
	cmd := &cobra.Command{
		Use:   "rm ID...",
		Short: "Destroy sessions: their users are logged out",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.dial()
			if err != nil {
				return err
			}
			missing := 0
			for _, id := range args {
				var r admin.Removed
				if err := c.Delete(cmd.Context(), "/session", url.Values{"id": {id}}, &r); err != nil {
					return err
				}
				if !r.Existed {
					missing++
					fmt.Fprintf(cmd.ErrOrStderr(), "sessfs: there is no session %s%s\n", printable(id), nameHint(id))
				}
			}
			if missing > 0 {
				return failf(exitFailed, "%d of %d sessions were not there", missing, len(args))
			}
			return nil
		},
	}
	f.add(cmd)
	return cmd
}

func unlockCommand() *cobra.Command {
	var f clientFlags
	cmd := &cobra.Command{
		Use:   "unlock ID",
		Short: "Break a session's lock: its holder's write will fail",
		Long: `Break a session's lock: its holder's write will fail. ID is the file's name, such as sess_4fb1…, or, of a session that is
in use on this host, the hash that logs, status and top show.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.dial()
			if err != nil {
				return err
			}
			var u admin.Unlocked
			if err := c.Delete(cmd.Context(), "/lock", url.Values{"id": args}, &u); err != nil {
				return err
			}
			if u.Holder == nil {
				fmt.Fprintf(cmd.OutOrStdout(), "nobody held the lock%s\n", nameHint(args[0]))
				return nil
			}
			fmt.Fprintf(cmd.OutOrStdout(), "broken; it was held by pid %d of %s since %s\n", u.Holder.PID, printable(u.Holder.Host), u.Holder.Since.Format(time.RFC3339))
			return nil
		},
	}
	f.add(cmd)
	return cmd
}
