package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"sessfs/fusefs"
	"sessfs/internal/move"
)

func importCommand() *cobra.Command {
	var r moveRequest
	cmd := &cobra.Command{
		Use:   "import DIR",
		Short: "Import the session files of a directory; PHP may go on there meanwhile",
		Long: `Import the session files of a directory, local or NFS, to the cache servers: with owner, group, mode, times and the time
that they have left. It speaks with the servers itself, so nothing needs to be mounted; mounts may be.

It may be run again at any time, after it was interrupted or while PHP goes on with the files: it does what is left, and
what changed since. Of file and session the one counts that was changed last. A session that was destroyed stays so; one
whose file is gone since an earlier import is destroyed, unless it was changed on the servers meanwhile. A file that PHP
has open is imported when it is closed; until then its session is locked.

So a host is moved without logging anybody out:

  sessfs import /var/lib/php/sessions
  sessfs mount --import /var/lib/php/sessions

The second command imports what changed since the first one, while PHP's requests wait for a moment.

Links, pipes and whatever else is no session file are refused and counted. Exit codes: 0 all that may be imported is on the
servers, 1 some files are not (they are named by their hash, as in logs), 2 wrong usage, 3 the configuration file is wrong,
4 a cache server does not answer.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return r.importFrom(cmd, args[0]) },
	}
	r.add(cmd, "how long files that PHP has open, and locked sessions, are waited for at the end")
	return cmd
}

func (r *moveRequest) importFrom(cmd *cobra.Command, path string) error {
	m, err := r.open(cmd, path)
	if err != nil {
		return err
	}
	defer m.close()
	o, err := importOptions(m.conf, m.conf.Admin.Socket, m.dir, m.names)
	if err != nil {
		return err
	}
	bar, text := newProgressBar(), movedText(move.Imported)
	o.DryRun, o.Patience = r.dryRun, r.patience
	o.Progress = func(done, total uint64, report move.Report) { bar.show(done, total, text(report)) }
	report, err := move.Import(cmd.Context(), m.cluster, m.dir, o)
	bar.end()
	return r.finish(cmd, report, err)
}

// moving is the import of a mount, which may last longer than its beginning.
type moving struct {
	cancel  context.CancelFunc
	running sync.WaitGroup
}

func (m *moving) end() {
	if m != nil {
		m.cancel()
		m.running.Wait()
	}
}

const (
	// importTime is how long PHP's requests wait for an import, at most: the keeper waits a minute for the daemon.
	importTime = 45 * time.Second
	// openTime is how long files are waited for that PHP has opened before the mount was there.
	openTime = 15 * time.Minute
	// openedTime is how long a process may need from its last look at the directory below the mount to opening a file there.
	openedTime = 50 * time.Millisecond
)

// beginImport has the mount begin with an import.
func (d *daemon) beginImport(ctx context.Context, mo *fusefs.Options) error {
	if d.cluster == nil {
		return failf(exitConfig, "--import %s: without cache servers (cache.servers) there is nothing to import to", d.importFrom)
	}
	dir, err := openSessionDir(d.importFrom, exitUsage) // before it is mounted over
	if err != nil {
		return fmt.Errorf("--import: %w", err)
	}
	o, err := importOptions(d.conf, d.socket, dir, sessionNames(d.conf, d.conf.Depth))
	if err != nil {
		dir.Close()
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	d.moving = &moving{cancel: cancel}
	mo.Before = func() error { return d.importFiles(ctx, dir, o) }
	return nil
}

// importFiles returns when all is imported but what PHP has open.
func (d *daemon) importFiles(ctx context.Context, dir *move.Dir, o move.ImportOptions) error {
	begun := time.Now()
	settled, failed := make(chan struct{}), make(chan error, 1)
	o.Patience, o.Settled = openTime, func() { close(settled) }
	time.Sleep(openedTime)
	d.moving.running.Go(func() {
		defer dir.Close()
		report, err := move.Import(ctx, d.store, dir, o)
		failed <- err
		if err == nil && report.Left() == 0 {
			d.log.Info("the sessions of a directory were imported", "directory", dir.Path, "outcomes", report.Counts, "after", time.Since(begun).Round(time.Millisecond))
			return
		}
		d.log.Error("not all sessions of a directory were imported: run sessfs import", "directory", dir.Path, "outcomes", report.Counts, "err", err, "notes", report.Notes)
	})
	limit := time.NewTimer(importTime)
	defer limit.Stop()
	select {
	case <-settled:
		return nil
	case err := <-failed:
		if err != nil {
			return fmt.Errorf("importing %s: %w", dir.Path, err)
		}
		return nil
	case <-limit.C:
		return fmt.Errorf("importing %s: not done within %v, while PHP waits; run sessfs import first, after which less is left", dir.Path, importTime)
	}
}
