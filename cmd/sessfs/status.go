package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sessfs"
	"sessfs/backend"
	"sessfs/fusefs"
	"sessfs/locking"
)

// report is `sessfs status --json`: a contract, fields are only ever added.
type report struct {
	Version    string                `json:"version"`
	PID        int                   `json:"pid"`
	Keeper     int                   `json:"keeper_pid"`
	Daemons    int                   `json:"daemons"` // that have served this mount
	Mountpoint string                `json:"mountpoint"`
	Config     string                `json:"config,omitempty"`
	Started    time.Time             `json:"started"`
	Store      string                `json:"store"` // "memcached" or "embedded"
	Servers    []sessfs.ServerStatus `json:"servers"`
	Copies     *backend.Copies       `json:"copies,omitempty"`
	Hosts      []backend.HostRecord  `json:"hosts,omitempty"` // that use the same servers, as they have told within 15 minutes
	Files      fusefs.Stats          `json:"files"`
	Locking    locking.Stats         `json:"locking"`
	Locks      []locking.Lock        `json:"locks"` // the first 1000
	RoundTrips uint64                `json:"round_trips_waited"`
	Goroutines int                   `json:"goroutines"`
}

const maxLocks = 1000

// status is called by the admin socket.
func (d *daemon) status(ctx context.Context) any {
	r := report{Version: version, PID: os.Getpid(), Keeper: os.Getppid(), Daemons: d.generation, Mountpoint: d.mountpoint, Config: d.file, Started: d.started, Store: "embedded",
		Locking: d.locks.Stats(), Locks: d.locks.Locks(maxLocks), Goroutines: runtime.NumGoroutine()}
	if d.cluster != nil {
		c := d.cluster.Copies()
		r.Copies = &c
		r.Hosts = d.cluster.Hosts()
		r.Store, r.Servers, r.RoundTrips = "memcached", d.cluster.Servers(ctx), d.cluster.Waits()
	}
	if d.mount != nil {
		r.Files = d.mount.Stats()
	}
	return r
}

func statusCommand() *cobra.Command {
	var f clientFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status [MOUNTPOINT]",
		Short: "Show servers, sessions and locks; exit 4 when a cache server is down",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				f.mountpoint = args[0]
			}
			c, err := f.dial()
			if err != nil {
				return err
			}
			var r report
			if err := c.Get(cmd.Context(), "/status", nil, &r); err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				if err := enc.Encode(r); err != nil {
					return err
				}
			} else if err := r.print(cmd.OutOrStdout()); err != nil {
				return err
			}
			for _, s := range r.Servers {
				if !s.Up {
					return failf(exitUnreachable, "cache server %s is down: %s", s.Name, s.LastError)
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&f.file, "config", "c", "", "configuration file of the mount")
	cmd.Flags().BoolVar(&asJSON, "json", false, "for programs")
	return cmd
}

// trouble is what is not well with a server beside being down.
func trouble(s sessfs.ServerStatus) (text string) {
	switch {
	case s.ToMend > 0:
		text += fmt.Sprintf(", %d to mend", s.ToMend)
	case s.ToMend < 0:
		text += ", to be mended"
	}
	if s.Young {
		text += ", just started"
	}
	if s.Leaving {
		text += ", leaving"
	}
	return text
}

func (r *report) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "mount point\t%s\n", r.Mountpoint)
	fmt.Fprintf(w, "daemon\tpid %d, version %s, up %v\n", r.PID, r.Version, time.Since(r.Started).Round(time.Second))
	if r.Config != "" {
		fmt.Fprintf(w, "configuration\t%s\n", r.Config)
	}
	fmt.Fprintf(w, "store\t%s\n", r.Store)
	if len(r.Hosts) > 0 {
		fmt.Fprintf(w, "hosts\t%s\n", hostsText(r.Hosts))
	}
	fmt.Fprintf(w, "open\t%d files of %d sessions\n", r.Files.OpenFiles, r.Files.OpenSessions)
	l := r.Locking
	fmt.Fprintf(w, "locks\t%d held, %d kept, %d waiting; so far %d waits, the longest %v, %d lost\n", l.Leases-l.Kept, l.Kept, l.Waiting, l.Waits, l.LongestWait.Round(time.Millisecond), l.LocksLost)
	fmt.Fprintf(w, "stores\t%d done, %d refused (changed by somebody else), %d too large, %d lost after close\n", l.Commits, l.Conflicts, r.Files.TooLarge, r.Files.LostStores)
	fmt.Fprintf(w, "failures\t%d operations\n", r.Files.Errors)
	if c := r.Copies; c != nil && (c.Replicas > 1 || c.Lists > 1) {
		fmt.Fprintf(w, "copies\t%d of each session; %d mended, %d locks with a stand-in for a server that was down, %d refused changes put back, %d reads of lost sessions\n",
			c.Replicas, c.Mended, c.StandIns, c.PutBack, c.Lost)
		if c.Lists > 1 {
			fmt.Fprintf(w, "lists\t%d: sessions are looked for by the lists of the last lifetime, too (sessfs rebalance)\n", c.Lists)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(r.Servers) > 0 {
		fmt.Fprintln(out)
		w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
		fmt.Fprintln(w, "SERVER\tADDRESS\tSTATE\tVERSION\tSESSIONS\tMEMORY\tEVICTIONS\tFAILURES")
		for _, s := range r.Servers {
			state := "up (" + s.Protocol + ")"
			if !s.Up {
				state = "DOWN"
				if s.DownSince != nil {
					state += " for " + time.Since(*s.DownSince).Round(time.Second).String()
				}
			}
			state += trouble(s)
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d of %d MiB\t%d\t%d\n", s.Name, s.Address, state, s.Version, s.Items, s.Bytes>>20, s.LimitBytes>>20, s.Evictions, s.Failures)
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	if len(r.Locks) > 0 {
		fmt.Fprintln(out)
		w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
		fmt.Fprintln(w, "SESSION\tPID\tLOCK\tFOR")
		for _, l := range r.Locks {
			kind := l.Kind
			if l.Waiting {
				kind += ", waiting"
			}
			fmt.Fprintf(w, "%s\t%d\t%s\t%v\n", l.Session, l.PID, kind, l.For.Round(time.Millisecond))
		}
		return w.Flush()
	}
	return nil
}
