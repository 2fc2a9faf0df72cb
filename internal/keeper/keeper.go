// Package keeper holds a mount while its daemon dies, or is replaced by another binary.
//
// The keeper is the daemon's parent: a small process that has /dev/fuse and the shared memory of package handover open,
// starts the daemon, and starts another when that ends without having unmounted. Requests wait in the kernel meanwhile. It
// works the same with and without systemd, whose main process it is.
//
// Keeper and daemon speak over a socket pair, a word a message: the daemon says Prepared when it could take the mount, and
// takes it after Go; Serving when it answers; Ended when it has unmounted and goes. Leave tells it to end with the mount
// standing. The daemon, which strangers speak with, may neither mount nor unmount: it asks the keeper to.
package keeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// Options of a Keeper.
type Options struct {
	Binary string     // the daemon's, which an upgrade may replace
	Args   []string   // of the daemon
	Files  []*os.File // which it inherits, from descriptor FirstFile on
	Stderr *os.File   // of the daemon; nil: what it writes there is kept, and logged when it dies
	Log    *slog.Logger
	// Terminal is where what the first daemon writes goes too, until it has started; nil: nowhere.
	Terminal *os.File
	// Start starts a daemon's command, with the rights that a daemon has; nil: with this process's own.
	Start func(*exec.Cmd) error
	// Mount makes the mount, and Unmount takes it away, with the flags of umount2(2), for a daemon that may do neither.
	Mount   func() error
	Unmount func(flags int) error
	// Started is called once, when the first daemon serves. An error of it ends the daemon.
	Started func() error
	// Abandon takes the mount away, if it stands, when no daemon can.
	Abandon func()
	// Hangup passes SIGHUPs on to the daemon; nil: none come.
	Hangup <-chan os.Signal
	// Requests for another binary.
	Upgrades <-chan Upgrade
}

// Descriptors of the daemon.
const (
	Control   = 3 // of the socket to the keeper
	FirstFile = 4
)

// Upgrade asks for a daemon from the binary as it is now. Its answer is nil when that serves; while it cannot, the old one
// goes on.
type Upgrade chan error

const (
	prepareTime = 60 * time.Second // for a daemon to say that it could take the mount
	serveTime   = 60 * time.Second // and then that it serves
	leaveTime   = 3 * time.Second  // for the old one to go
	stopTime    = 15 * time.Second // to unmount; systemd waits for 20

	// A daemon that died younger than this has died at its start: the next one waits.
	short     = 300 * time.Millisecond
	patience  = 3 // so many times the next one does not wait
	firstWait = 100 * time.Millisecond
	longWait  = 10 * time.Second
)

// Keeper is one.
type Keeper struct {
	o     Options
	now   *daemon // that serves, or did; nil: none yet
	died  int     // daemons that have died, since one has lived for a while
	total int
}

// ExitError is how the daemon ended that could not even begin, or that failed to end properly: it has said why.
type ExitError struct{ Code int }

func (e ExitError) Error() string { return fmt.Sprintf("the daemon ended with exit status %d", e.Code) }

// Run starts a daemon and others after it, until one has unmounted; ctx's end has it do so.
func Run(ctx context.Context, o Options) error {
	k := &Keeper{o: o}
	d, err := k.start()
	if err != nil {
		return err
	}
	if err := k.begin(ctx, d); err != nil {
		return k.failed(d, err)
	}
	d.stderr.quiet()
	if err := o.Started(); err != nil {
		d.signal(syscall.SIGTERM)
		k.reap(d, stopTime)
		return err
	}
	k.now = d
	return k.keep(ctx)
}

// begin has a daemon take the mount, and waits until it serves.
func (k *Keeper) begin(ctx context.Context, d *daemon) error {
	if err := k.await(ctx, d, saidPrepared, prepareTime); err != nil {
		return err
	}
	return k.take(ctx, d)
}

// take is the second half of begin, for a daemon that is prepared.
func (k *Keeper) take(ctx context.Context, d *daemon) error {
	d.say(wordGo)
	return k.await(ctx, d, saidServing, serveTime)
}

// failed ends a daemon that did not begin to serve.
func (k *Keeper) failed(d *daemon, err error) error {
	d.signal(syscall.SIGTERM)
	k.reap(d, stopTime)
	if d.mounted && !d.ended {
		k.o.Abandon()
	}
	if code := d.exitCode(); code > 0 {
		return ExitError{code}
	}
	if d.ended {
		return nil
	}
	return fmt.Errorf("the daemon did not begin to serve: %w", err)
}

// keep looks after the daemon that serves.
func (k *Keeper) keep(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return k.stop()
		case s := <-k.o.Hangup:
			k.now.signal(s.(syscall.Signal))
		case u := <-k.o.Upgrades:
			u <- k.upgrade(ctx)
		case w := <-k.now.words:
			k.now.heard(w)
		case <-k.now.exited:
			if k.now.finish() {
				return exitError(k.now)
			}
			if err := k.restart(ctx); err != nil {
				return err
			}
		}
	}
}

func exitError(d *daemon) error {
	if code := d.exitCode(); code != 0 {
		return ExitError{code}
	}
	return nil
}

// stop has the daemon unmount.
func (k *Keeper) stop() error {
	k.now.signal(syscall.SIGTERM)
	if k.reap(k.now, stopTime) && k.now.ended && k.now.exitCode() == 0 {
		return nil
	}
	k.o.Log.Error("the daemon did not unmount; the mount is taken away", "daemon", k.now.end())
	k.o.Abandon()
	return ExitError{1}
}

// reap waits for the daemon's end, and brings it about after a while. It reports whether it ended by itself.
func (k *Keeper) reap(d *daemon, wait time.Duration) (itself bool) {
	t := time.NewTimer(wait)
	defer t.Stop()
	itself = true
	for {
		select {
		case w := <-d.words:
			d.heard(w)
		case <-d.exited:
			d.finish()
			return itself
		case <-t.C:
			itself = false
			d.signal(syscall.SIGKILL)
		}
	}
}

// restart starts daemons until one serves. It returns what ends the keeper.
func (k *Keeper) restart(ctx context.Context) error {
	for {
		k.total++
		k.died++
		if k.now.served && time.Since(k.now.since) > short {
			k.died = 1
		}
		wait := time.Duration(0)
		if k.died > patience {
			wait = min(firstWait<<min(k.died-patience-1, 10), longWait)
		}
		k.o.Log.Error("the daemon died; another one goes on with the mount", "daemon", k.now.end(), "in", wait, "died", k.total)
		if trace := k.now.trace(); trace != "" {
			k.o.Log.Error("what the daemon wrote last", "stderr", trace)
		}
		if err := k.pause(ctx, wait); err != nil {
			return err
		}
		d, err := k.start()
		if err == nil {
			k.now = d
			err = k.begin(ctx, d)
		}
		switch {
		case err == nil:
			k.o.Log.Info("another daemon serves", "pid", d.cmd.Process.Pid)
			return nil
		case ctx.Err() != nil:
			return k.stop()
		case d == nil:
			k.o.Log.Error("a daemon could not be started", "err", err)
		default:
			k.reap(d, 0)
			if d.ended {
				return exitError(d)
			}
		}
	}
}

var errStopped = errors.New("told to end")

// pause waits before the next daemon.
func (k *Keeper) pause(ctx context.Context, wait time.Duration) error {
	t := time.NewTimer(wait)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			return nil
		case <-ctx.Done():
			k.o.Log.Error("told to end while no daemon runs: the mount is taken away")
			k.o.Abandon()
			return errStopped
		case u := <-k.o.Upgrades:
			u <- errors.New("no daemon runs; the next one is started from the new binary")
			return nil
		case <-k.o.Hangup: // the next one reads the configuration anyway
		}
	}
}

// upgrade replaces the daemon by another one, which is ready to take the mount before the old one leaves it.
func (k *Keeper) upgrade(ctx context.Context) error {
	d, err := k.start()
	if err != nil {
		return err
	}
	if err := k.await(ctx, d, saidPrepared, prepareTime); err != nil {
		k.reap(d, 0)
		return fmt.Errorf("the new daemon could not begin, the old one goes on: %w; it wrote: %s", err, d.trace())
	}
	old := k.now
	k.now = d
	old.say(wordLeave)
	k.reap(old, leaveTime)
	if old.ended { // somebody has unmounted meanwhile
		k.reap(d, 0)
		k.now = old
		return errors.New("the directory was unmounted")
	}
	if err := k.take(ctx, d); err != nil {
		d.signal(syscall.SIGKILL) // and keep starts another
		return fmt.Errorf("the new daemon did not begin to serve: %w; it wrote: %s", err, d.trace())
	}
	k.o.Log.Info("the daemon was replaced", "pid", d.cmd.Process.Pid)
	return nil
}

// await waits until the daemon says a word.
func (k *Keeper) await(ctx context.Context, d *daemon, word string, limit time.Duration) error {
	t := time.NewTimer(limit)
	defer t.Stop()
	for {
		select {
		case w := <-d.words:
			if d.heard(w); w == word {
				return nil
			}
		case <-d.exited:
			d.finish()
			return errors.New(d.end())
		case <-t.C:
			return fmt.Errorf("it did not say %q within %v", word, limit)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// command is the daemon's. A binary that is not there any more is this one.
func (k *Keeper) command() *exec.Cmd {
	binary := k.o.Binary
	if _, err := os.Stat(binary); err != nil {
		binary = "/proc/self/exe"
	}
	return exec.Command(binary, k.o.Args...)
}
