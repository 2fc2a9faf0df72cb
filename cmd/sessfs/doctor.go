package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"sessfs/config"
	"sessfs/fusefs"
	"sessfs/internal/admin"
	"sessfs/internal/doctor"
	"sessfs/internal/status"
)

// doctorRequest is what `sessfs doctor` was asked for.
type doctorRequest struct {
	file    string
	asked   bool
	root    string
	ignore  []string
	asJSON  bool
	quiet   bool
	verbose bool
	strict  bool
}

func doctorCommand() *cobra.Command {
	var r doctorRequest
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check PHP's settings, the mount, the cache servers and the other hosts; say what to change",
		Long: `Check everything that sessions on this host depend on: the settings of every PHP (php.ini and conf.d of the command
line, php-fpm with all its pools, Apache with all its sites), the mount and who sees it, the daemon, every cache server,
the settings of the other hosts that share the servers, fstab and systemd, SELinux and AppArmor. Nothing is changed.

Each finding has a code, says what is wrong and why that matters, and which line to change: docs/doctor.md lists all of
them. An error means that sessions are lost, not shared, or fail; a warning that they may be. Notes, which are worth to
know, are shown with --verbose. On a good host one line says that no problem was found; with --quiet there is no output.

What the other hosts are set to is read from the cache servers, where each daemon notes itself every five minutes.

Exit codes: 0 no errors, 1 errors, 3 the configuration file is wrong, 4 a cache server cannot be used, 5 nothing that
works is mounted. Of several the highest counts. Warnings make it 1 with --strict.`,
		Example: `  sessfs doctor                          what is wrong with this host?
  sessfs doctor --verbose                and what is worth to know?
  sessfs doctor --quiet                  for cron: no output when all is well
  sessfs doctor --json                   for monitoring
  sessfs doctor --ignore hosts-prefix    another site has the same servers
  sessfs doctor --root /proc/4711/root   the PHP in the container of process 4711`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r.asked = cmd.Flags().Changed("config")
			report, err := r.run(cmd.Context())
			if err != nil {
				return err
			}
			return r.show(cmd, report)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&r.file, "config", "c", defaultConfig, "configuration file of the mount")
	f.StringVar(&r.root, "root", "/", "directory below which the settings of PHP, Apache and the system are")
	f.StringSliceVar(&r.ignore, "ignore", nil, "codes of findings that are as they should be here")
	f.BoolVar(&r.asJSON, "json", false, "for programs, with the notes")
	f.BoolVarP(&r.quiet, "quiet", "q", false, "no output when there is no error and no warning")
	f.BoolVarP(&r.verbose, "verbose", "v", false, "show notes, too")
	f.BoolVar(&r.strict, "strict", false, "exit 1 for warnings, too")
	return cmd
}

func (r *doctorRequest) run(ctx context.Context) (doctor.Report, error) {
	if info, err := os.Stat(r.root); err != nil || !info.IsDir() {
		return doctor.Report{}, failf(exitUsage, "--root %s: it is no directory", r.root)
	}
	if !r.asked {
		// The mount that stands tells which configuration it has.
		if mounts, err := fusefs.Mounts(); err == nil && len(mounts) == 1 && filepath.IsAbs(mounts[0].Source) {
			r.file, r.asked = mounts[0].Source, true
		}
	}
	c, err := loadConfig(r.file, r.asked)
	if err != nil {
		return doctor.Report{}, err
	}
	o := doctor.Options{Config: c, Root: r.root, Backend: backendOptions(c), Version: version, Mountpoint: c.Mountpoint}
	if o.Backend.Seal, err = loadSeal(c); err != nil {
		return doctor.Report{}, coded{exitConfig, err}
	}
	if o.ConfigFile, err = givenFile(r.file); err != nil {
		return doctor.Report{}, err
	}
	if real, err := realPath(c.Mountpoint); err == nil {
		o.Mountpoint = real
	}
	o.HostID = hostID(o.Mountpoint)
	o.Daemon = func(ctx context.Context) doctor.Daemon { return askDaemon(ctx, c, o.ConfigFile, o.Mountpoint) }
	found := doctor.Check(doctor.Gather(ctx, o))
	if ctx.Err() != nil {
		return doctor.Report{}, failf(exitFailed, "interrupted")
	}
	return doctor.NewReport(doctor.Without(found, r.ignore)), nil
}

func askDaemon(ctx context.Context, c *config.Config, file, mountpoint string) (d doctor.Daemon) {
	var s status.Report
	if err := admin.Dial(socketOf(c, file, mountpoint)).Get(ctx, "/status", nil, &s); err != nil {
		return doctor.Daemon{Err: err}
	}
	d = doctor.Daemon{PID: s.PID, Version: s.Version, Started: s.Started, LostStores: s.Files.LostStores, Restarted: make(map[string]time.Time)}
	for _, server := range s.Servers {
		if server.Restarted != nil {
			d.Restarted[server.Name] = *server.Restarted
		}
	}
	return d
}

func (r *doctorRequest) show(cmd *cobra.Command, report doctor.Report) error {
	out := cmd.OutOrStdout()
	bad := report.Errors+report.Warnings > 0
	var err error
	switch {
	case r.asJSON:
		err = report.JSON(out)
	case bad || r.verbose:
		err = report.Print(out, r.verbose)
	}
	if err != nil {
		return err
	}
	code := doctorExit(report)
	if code == 0 && r.strict && bad {
		code = exitFailed
	}
	switch {
	case code != 0:
		return failf(code, "%s", report.Summary())
	case !r.asJSON && (bad || !r.quiet):
		_, err = fmt.Fprintln(out, report.Summary())
	}
	return err
}

// doctorExit is the exit code of the gravest error.
func doctorExit(report doctor.Report) (code int) {
	for _, f := range report.Findings {
		if f.Severity != doctor.Error {
			continue
		}
		switch {
		case slices.Contains([]string{"mount-missing", "mount-dead", "mount-failing"}, f.Code):
			code = max(code, exitMount)
		case slices.Contains([]string{"server-unreachable", "server-login", "server-password", "server-certificate",
			"server-client-certificate", "server-tls", "server-no-cas", "server-protocol"}, f.Code):
			code = max(code, exitUnreachable)
		default:
			code = max(code, exitFailed)
		}
	}
	return code
}
