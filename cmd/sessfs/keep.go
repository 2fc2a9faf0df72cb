package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"sessfs/fusefs"
	"sessfs/internal/confine"
	"sessfs/internal/handover"
	"sessfs/internal/keeper"
	"sessfs/internal/mountopt"
	"sessfs/internal/sdnotify"
)

// readyFd is the pipe of detach in its child.
const readyFd = 3

// keep holds the mount, and has a daemon serve it.
func keep(ctx context.Context, r mountRequest) error {
	runtime.GOMAXPROCS(1) // it sleeps
	debug.SetGCPercent(20)
	conf, err := loadConfig(r.file, r.asked)
	if err != nil {
		return err
	}
	rights := daemonRights(conf, r.importFrom != "")
	if err := confine.Self(keeperRights(rights)); err != nil {
		return fmt.Errorf("giving up rights: %w", err)
	}
	if err := confine.NoCore(); err != nil {
		return err
	}
	opts, err := mountopt.Parse(r.options...)
	if err != nil {
		return coded{exitUsage, err}
	}
	mountpoint, err := r.where(conf)
	if err != nil {
		return err
	}
	sink, stderr := io.Writer(os.Stderr), os.Stderr
	if r.background {
		stderr = nil // the daemon logs elsewhere; what it dies of is logged by this
		if sink, err = backgroundSink(); err != nil {
			return fmt.Errorf("opening a log: %w", err)
		}
	}
	log := slog.New(newLogger(sink, conf.Log.Level, conf.Log.Format))
	device, err := fusefs.OpenDevice()
	if err != nil {
		return coded{exitMount, err}
	}
	memory, err := handover.New()
	if err != nil {
		return err
	}
	heap, err := unix.MemfdCreate("sessfs-sessions", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("memfd_create: %w", err)
	}
	binary, err := os.Executable()
	if err != nil {
		return err
	}
	file, err := givenFile(r.file)
	if err != nil {
		return err
	}
	mount := fusefs.Options{Device: device, Mountpoint: mountpoint, Source: sourceOf(file), Flags: opts.Flags(), Data: opts.Data()}
	upgrades := newUpgrades()
	defer upgrades.close()
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	sdnotify.Unset() // the daemon is not systemd's
	defer sdnotify.Stopping()
	err = keeper.Run(ctx, keeper.Options{
		Binary:   binary,
		Args:     slices.Insert(slices.Clone(os.Args[1:]), 1, "--worker"),
		Files:    []*os.File{os.NewFile(uintptr(device), "/dev/fuse"), os.NewFile(uintptr(memory.Fd()), "memory"), os.NewFile(uintptr(heap), "sessions")},
		Stderr:   stderr,
		Terminal: os.Stderr,
		Log:      log,
		Start:    func(c *exec.Cmd) error { return confine.Start(c, rights) },
		Mount:    func() error { return fusefs.MountDevice(mount) },
		Unmount:  func(flags int) error { return unmountOurs(mountpoint, flags) },
		Started: func() error {
			if err := upgrades.begin(upgradeSocket(socketOf(conf, file, mountpoint))); err != nil {
				return err
			}
			sdnotify.Ready("serving " + mountpoint)
			if r.background {
				return goBackground()
			}
			return nil
		},
		Abandon:  func() { unmountOurs(mountpoint, unix.MNT_FORCE|unix.MNT_DETACH) },
		Hangup:   hangup,
		Upgrades: upgrades.asked,
	})
	if exit := (keeper.ExitError{}); errors.As(err, &exit) {
		return said(exit.Code)
	}
	return err
}

// said is an error that the daemon has written already; its value is the exit code.
type said int

func (s said) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// goBackground tells the waiting parent that the mount answers, and lets go of its terminal.
func goBackground() error {
	ready := os.NewFile(readyFd, "ready")
	if _, err := ready.Write([]byte("mounted\n")); err != nil {
		return fmt.Errorf("telling the parent: %w", err)
	}
	ready.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	for fd := range 3 {
		if err := unix.Dup2(int(null.Fd()), fd); err != nil {
			return err
		}
	}
	return nil
}

// sourceOf is the first column of /proc/mounts: the configuration file, as in fstab's first column.
func sourceOf(file string) string {
	if file == "" {
		return "sessfs"
	}
	return file
}

// givenFile is the absolute path of a configuration file; "": there is none.
func givenFile(file string) (string, error) {
	if _, err := os.Stat(file); err != nil {
		return "", nil
	}
	return filepath.Abs(file)
}
