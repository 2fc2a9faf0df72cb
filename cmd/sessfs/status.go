package main

import (
	"context"
	"encoding/json"
	"os"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"sessfs/internal/status"
)

// status is called by the admin socket.
func (d *daemon) status(ctx context.Context) any {
	r := status.Report{Version: version, Host: d.host, PID: os.Getpid(), Keeper: os.Getppid(), Daemons: d.generation, Mountpoint: d.mountpoint, Config: d.file, Started: d.started, Uptime: time.Since(d.started),
		Store: "embedded", Locking: d.locks.Stats(), Locks: d.locks.Locks(status.MaxLocks), Contention: d.locks.Contention(status.LongLock, status.MaxListed),
		Requests: d.locks.Opened(), Hottest: d.locks.Hottest(status.MaxListed), Goroutines: runtime.NumGoroutine()}
	if t := d.locks.LastLost(); !t.IsZero() {
		r.LastLost = &t
	}
	if d.cluster != nil {
		c, seals, cache := d.cluster.Copies(), d.cluster.Seals(), d.cluster.Cache()
		r.Copies, r.Seals, r.Cache = &c, &seals, &cache
		r.Hosts = d.cluster.Hosts()
		r.Store, r.Servers, r.RoundTrips = "memcached", d.cluster.Servers(ctx), d.cluster.Waits()
		r.RoundTripTimes = d.cluster.RoundTripTimes()
	}
	if d.mounted.Load() {
		r.Files = d.mount.Stats()
	}
	return r
}

func statusCommand() *cobra.Command {
	var f clientFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status [MOUNTPOINT]",
		Short: "Show what is wrong, servers, sessions and locks; exit 4 when a cache server is down",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.dial(args...)
			if err != nil {
				return err
			}
			var r status.Report
			if err := c.Get(cmd.Context(), "/status", nil, &r); err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				if err := enc.Encode(r); err != nil {
					return err
				}
			} else if err := r.Print(cmd.OutOrStdout(), time.Now()); err != nil {
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
