package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sessfs/config"
	"sessfs/fusefs"
	"sessfs/internal/mountopt"
)

// mountRequest is what mount and mount.sessfs were asked for.
type mountRequest struct {
	file           string // of the configuration
	asked          bool   // the file was named, and must be there
	mountpoint     string // "": the configuration's
	options        []string
	requireServers bool
	background     bool   // a `sessfs mount` waits for this one, which has no terminal after that
	worker         bool   // this is the daemon of a keeper
	importFrom     string // the directory whose sessions are imported before the mount answers; "": none
}

func mountCommand() *cobra.Command {
	var r mountRequest
	var foreground bool
	cmd := &cobra.Command{
		Use:   "mount [MOUNTPOINT]",
		Short: "Mount the session directory; returns when it answers",
		Long: `Mount the session directory. The command returns when the mount answers, or says why not.

Without --config the file ` + defaultConfig + ` is used where it exists. Without cache servers in it,
sessions are kept in the process, for this host alone.
In the background the daemon logs to syslog, or to ` + fallbackLog + ` where there is none.

With --import the sessions of a directory, which may be the mount point itself, are imported while PHP waits: what
changed there since sessfs import was run. Files that PHP processes still have open are imported when they are closed;
until then their sessions are locked.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r.asked = cmd.Flags().Changed("config")
			if len(args) == 1 {
				r.mountpoint = args[0]
			}
			switch {
			case r.worker:
				return serve(cmd.Context(), r)
			case foreground:
				return keep(cmd.Context(), r)
			}
			return r.detach()
		},
	}
	f := cmd.Flags()
	f.StringVarP(&r.file, "config", "c", defaultConfig, "configuration file")
	f.BoolVarP(&foreground, "foreground", "f", false, "stay in the foreground and log to standard error")
	f.StringArrayVarP(&r.options, "options", "o", nil, "mount options, as in fstab")
	f.BoolVar(&r.requireServers, "require-servers", false, "fail (exit 4) when a cache server does not answer")
	f.StringVar(&r.importFrom, "import", "", "import the session files of this `DIR` before PHP's requests are answered")
	f.BoolVar(&r.background, "background-child", false, "")
	f.MarkHidden("background-child")
	f.BoolVar(&r.worker, "worker", false, "")
	f.MarkHidden("worker")
	return cmd
}

// mountHelper is mount.sessfs CONFIG MOUNTPOINT [-o OPTS], as mount(8) calls it.
func mountHelper(_ context.Context, args []string) error {
	h, err := mountopt.ParseHelperArgs(args)
	if err != nil {
		return coded{exitUsage, err}
	}
	r := mountRequest{file: h.Source, asked: true, mountpoint: h.Mountpoint, options: h.Raw}
	if h.Source == "sessfs" || h.Source == "none" {
		r.file, r.asked = defaultConfig, false
	}
	if h.Fake {
		_, err := loadConfig(r.file, r.asked)
		return err
	}
	return r.detach()
}

// where is the mount point that is meant, as in /proc/mounts.
func (r mountRequest) where(c *config.Config) (string, error) {
	dir := c.Mountpoint
	if r.mountpoint != "" {
		dir = r.mountpoint
	}
	dir, err := realPath(dir)
	if err != nil {
		return "", coded{exitMount, err}
	}
	return dir, nil
}

// detach starts the daemon in the background and waits until the mount answers. The daemon says so over a pipe; ends
// it before, its exit code is ours.
func (r mountRequest) detach() error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	args := []string{"mount", "--foreground", "--background-child"}
	if r.asked {
		file, err := filepath.Abs(r.file)
		if err != nil {
			return err
		}
		args = append(args, "--config", file)
	}
	for _, o := range r.options {
		args = append(args, "-o", o)
	}
	if r.requireServers {
		args = append(args, "--require-servers")
	}
	if r.importFrom != "" {
		dir, err := filepath.Abs(r.importFrom)
		if err != nil {
			return err
		}
		args = append(args, "--import", dir)
	}
	if r.mountpoint != "" {
		dir, err := filepath.Abs(r.mountpoint)
		if err != nil {
			return err
		}
		args = append(args, "--", dir)
	}
	ready, answer, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	cmd := exec.Command(exe, args...)
	cmd.Dir = "/"
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{answer}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	answer.Close()
	if err != nil {
		return fmt.Errorf("starting the daemon: %w", err)
	}
	if b, _ := io.ReadAll(ready); len(b) > 0 {
		return cmd.Process.Release()
	}
	err = cmd.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() > 0 {
		os.Exit(exit.ExitCode()) // the daemon has said why
	}
	return fmt.Errorf("the daemon ended before the mount answered: %v", err)
}

// socketOf is where a mount's daemon listens: the configuration's socket; a mount without a file has one named after
// its mount point.
func socketOf(c *config.Config, file, mountpoint string) string {
	if file == "" {
		return filepath.Join(runDir, socketName(mountpoint))
	}
	return c.Admin.Socket
}

// realPath is the absolute path without links, as in /proc/mounts. A mount whose daemon is gone is no obstacle.
func realPath(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(dir))
	if err != nil {
		return "", fmt.Errorf("the mount point: %w", err)
	}
	if dir == "/" {
		return "", errors.New("the mount point cannot be /")
	}
	joined := filepath.Join(parent, filepath.Base(dir))
	switch real, err := filepath.EvalSymlinks(joined); {
	case err == nil:
		return real, nil
	case errors.Is(err, syscall.ENOTCONN):
		return joined, nil
	default:
		return "", fmt.Errorf("the mount point: %w (make the directory first)", err)
	}
}

// prepareMountpoint sees that one may mount there: a dead mount of ours is taken away.
func prepareMountpoint(dir string, unmount func(flags int) error, imports bool, log *slog.Logger) error {
	for {
		kind, dead, err := fusefs.Mounted(dir)
		if err != nil {
			return coded{exitMount, err}
		}
		if kind == fusefs.Type && dead {
			log.Warn("an old mount whose daemon is gone is taken away", "mountpoint", dir)
			if err := unmount(unix.MNT_DETACH); err != nil {
				return failf(exitMount, "taking the old mount at %s away: %w (umount -l %s)", dir, err, dir)
			}
			continue
		}
		if kind == fusefs.Type {
			return failf(exitMount, "%s is mounted already by a sessfs that answers (sessfs status %s; sessfs umount %s)", dir, dir, dir)
		}
		break
	}
	info, err := os.Stat(dir)
	if err != nil {
		return failf(exitMount, "the mount point: %w (make the directory first)", err)
	}
	if !info.IsDir() {
		return failf(exitMount, "the mount point %s is no directory", dir)
	}
	if imports {
		return nil
	}
	if d, err := os.Open(dir); err == nil {
		defer d.Close()
		if names, _ := d.Readdirnames(1); len(names) > 0 {
			log.Warn("the directory is not empty: what is in it is hidden while the mount stands, and its sessions are not seen (sessfs import takes them along)", "mountpoint", dir)
		}
	}
	return nil
}
