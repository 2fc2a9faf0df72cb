package main

import (
	"context"

	"github.com/spf13/cobra"

	"sessfs"
	"sessfs/backend"
	"sessfs/internal/move"
)

func exportCommand() *cobra.Command {
	var r moveRequest
	cmd := &cobra.Command{
		Use:   "export DIR",
		Short: "Export the sessions of the cache servers to files, as PHP has them without sessfs",
		Long: `Export the sessions of the cache servers to files in a directory, as PHP has them without sessfs: with owner, group, mode
and times. The directory must be there; take an empty one: sessions that were destroyed since do not come back then.
Directories that depth asks for are made like DIR.

It may be run again at any time, and writes what is left and what changed since. Each file is written whole or not at
all. A file that was changed later than its session is left alone.

Exit codes: 0 all sessions are in the directory, 1 some are not (they are named by their hash, as in logs), 2 wrong usage,
3 the configuration file is wrong, 4 a cache server does not answer.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return r.exportTo(cmd, args[0]) },
	}
	r.add(cmd, "how long files that PHP has open are waited for")
	return cmd
}

// thorough lists every session: who is active just now is missed otherwise.
type thorough struct{ *backend.Cluster }

func (t thorough) List(ctx context.Context, fn func(sessfs.Entry) error) error {
	return t.ListAll(ctx, fn)
}

func (r *moveRequest) exportTo(cmd *cobra.Command, path string) error {
	m, err := r.open(cmd, path)
	if err != nil {
		return err
	}
	defer m.close()
	bar, text := newProgressBar(), movedText(move.Exported)
	o := move.ExportOptions{Names: m.names, DryRun: r.dryRun, Patience: r.patience}
	o.Progress = func(done, total uint64, report move.Report) { bar.show(done, total, text(report)) }
	if m.conf.Owner != "keep" {
		uid, gid, err := lookupUser(r.file+": owner", m.conf.Owner)
		if err != nil {
			return err
		}
		o.Owner = &move.Owner{UID: uid, GID: gid}
	}
	report, err := move.Export(cmd.Context(), thorough{m.cluster}, m.dir, o)
	bar.end()
	return r.finish(cmd, report, err)
}
