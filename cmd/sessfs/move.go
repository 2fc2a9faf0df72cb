package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sessfs"
	"sessfs/backend"
	"sessfs/config"
	"sessfs/fusefs"
	"sessfs/internal/move"
)

// moveRequest is what import and export have in common.
type moveRequest struct {
	file     string
	asked    bool
	depth    int
	dryRun   bool
	asJSON   bool
	patience time.Duration
}

func (r *moveRequest) add(cmd *cobra.Command, waits string) {
	f := cmd.Flags()
	f.StringVarP(&r.file, "config", "c", defaultConfig, "configuration file")
	f.IntVar(&r.depth, "depth", 0, "`N` of session.save_path = \"N;/path\" in DIR (default: the configuration's depth)")
	f.BoolVarP(&r.dryRun, "dry-run", "n", false, "change nothing, and say what would be done")
	f.DurationVar(&r.patience, "patience", 30*time.Second, waits)
	f.BoolVar(&r.asJSON, "json", false, "the summary for programs")
}

// movement is an import or export that may begin.
type movement struct {
	conf    *config.Config
	cluster *backend.Cluster
	dir     *move.Dir
	names   move.Names
}

func (m *movement) close() {
	m.dir.Close()
	m.cluster.Close()
}

// open opens the directory, and connects to all servers.
func (r *moveRequest) open(cmd *cobra.Command, path string) (*movement, error) {
	r.asked = cmd.Flags().Changed("config")
	c, err := loadConfig(r.file, r.asked)
	if err != nil {
		return nil, err
	}
	if !cmd.Flags().Changed("depth") {
		r.depth = c.Depth
	}
	if r.depth < 0 || r.depth > 7 {
		return nil, failf(exitUsage, "--depth %d: 0 to 7 levels of directories are possible", r.depth)
	}
	if r.patience < 0 {
		return nil, failf(exitUsage, "--patience: a time is needed, such as 30s")
	}
	if len(c.Cache.Servers) == 0 {
		return nil, failf(exitConfig, "%s names no cache servers (cache.servers): sessions are then kept in the process of a mount, where nothing can be moved in or out", r.file)
	}
	m := &movement{conf: c, names: sessionNames(c, r.depth)}
	if m.dir, err = openSessionDir(path, exitUsage); err != nil {
		return nil, err
	}
	o := backendOptions(c)
	o.Log = slog.New(newLogger(os.Stderr, slog.LevelError, c.Log.Format))
	if o.Seal, err = loadSeal(c); err == nil {
		m.cluster, err = backend.New(o)
	}
	if err != nil {
		m.dir.Close()
		return nil, coded{exitConfig, err}
	}
	check, end := context.WithTimeout(cmd.Context(), 2*c.Cache.Timeout)
	defer end()
	// With copies on others a server may be down.
	if err := m.cluster.Check(check); err != nil && (!errors.Is(err, sessfs.ErrUnavailable) || c.Cache.Replicas < 2) {
		m.close()
		return nil, coded{exitUnreachable, err}
	}
	return m, nil
}

func sessionNames(c *config.Config, depth int) move.Names {
	return move.Names{
		Match: func(name string) (string, bool) { return fusefs.SessionName(c.Files, name) },
		Level: fusefs.Level,
		Depth: depth,
	}
}

// openSessionDir opens a directory of files, which no sessfs may be.
func openSessionDir(path string, code int) (*move.Dir, error) {
	d, err := move.Open(path)
	if err != nil {
		return nil, coded{code, err}
	}
	mounts, err := fusefs.Mounts()
	if err != nil {
		d.Close()
		return nil, err
	}
	for _, m := range mounts {
		if m.Device == d.Device() {
			d.Close()
			return nil, failf(code, "%s is the sessfs mounted at %s, and not a directory of files; what lies under a mount is seen with "+
				"mkdir /mnt/old && mount --bind PARENT /mnt/old, for the directory PARENT that %s is in, if the mount is not to be taken away", path, m.Dir, m.Dir)
		}
	}
	return d, nil
}

// journalOf is where it is noted what was imported from a directory to the servers.
func journalOf(c *config.Config, socket string, d *move.Dir) (string, error) {
	var names []string
	for _, s := range c.Cache.Servers {
		names = append(names, s.Name+"="+s.Address)
	}
	sum := sha256.Sum256([]byte(d.Key() + "\x00" + c.Cache.Prefix + "\x00" + strings.Join(names, "\x00")))
	dir := filepath.Dir(socket)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("the journal of imports: %w", err)
	}
	return filepath.Join(dir, "import-"+hex.EncodeToString(sum[:6])+".journal"), nil
}

func importOptions(c *config.Config, socket string, d *move.Dir, names move.Names) (move.ImportOptions, error) {
	journal, err := journalOf(c, socket, d)
	return move.ImportOptions{Names: names, Lifetime: c.Session.Lifetime, MaxSize: c.Session.MaxSize, Lease: c.Lock.Lease, Journal: journal,
		Holder: sessfs.Holder{Host: hostName(), Boot: bootID(), PID: uint32(os.Getpid())}}, err
}

// finish shows the summary, and tells how it went.
func (r *moveRequest) finish(cmd *cobra.Command, report move.Report, err error) error {
	if report.Counts != nil {
		show := report.Print
		if r.asJSON {
			show = report.JSON
		}
		if err := show(cmd.OutOrStdout()); err != nil {
			return err
		}
	}
	switch {
	case err != nil && cmd.Context().Err() != nil:
		return failf(exitFailed, "interrupted: what was moved stays moved; run it again for the rest")
	case errors.Is(err, sessfs.ErrUnavailable):
		return failf(exitUnreachable, "not complete: %w (run it again: it goes on with the rest)", err)
	case err != nil:
		return failf(exitFailed, "not complete: %w (run it again: it goes on with the rest)", err)
	case report.Left() > 0:
		return failf(exitFailed, "%d could not be moved: run it again", report.Left())
	}
	return nil
}

// movedText is what stands behind the bar.
func movedText(first move.Outcome) func(move.Report) string {
	return func(r move.Report) string {
		text := fmt.Sprintf("%d %s", r.Counts[first], first)
		for _, o := range []move.Outcome{move.Unchanged, move.Expired, move.Refused, move.Failed} {
			if n := r.Counts[o]; n > 0 {
				text += fmt.Sprintf(", %d %s", n, o)
			}
		}
		return text
	}
}
