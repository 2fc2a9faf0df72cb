package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"sessfs"
	"sessfs/backend"
	"sessfs/backend/memory"
	"sessfs/config"
	"sessfs/fusefs"
	"sessfs/internal/admin"
	"sessfs/internal/handover"
	"sessfs/internal/keeper"
	"sessfs/internal/loop"
	"sessfs/locking"
)

// daemon is one mount and everything behind it.
type daemon struct {
	file       string // of the configuration; "": none
	mountpoint string
	socket     string
	conf       *config.Config
	log        *slog.Logger
	logs       *logger
	started    time.Time
	key        []byte // of the node ids
	device     int    // /dev/fuse
	memory     *handover.Memory
	child      *keeper.Child
	heap       *os.File // for the sessions of a mount without servers, from daemon to daemon
	generation int      // daemons that have served this mount, with this one
	host       string   // this machine's name
	importFrom string   // the directory whose sessions are imported before the mount answers; "": none

	loops   *loop.Group
	store   sessfs.Backend
	cluster *backend.Cluster // nil: embedded
	own     *memory.Backend  // nil: on servers
	locks   *locking.Manager
	moving  *moving // nil: nothing is imported
	mount   *fusefs.Server
	admin   *admin.Server
	monitor *monitor
	mounted atomic.Bool // mount is there; others than the one who starts look at it before
}

// grace is how long open files are waited for when the daemon is told to end.
const grace = 5 * time.Second

// start mounts, or takes the mount over. On error nothing is left behind.
func (d *daemon) start(ctx context.Context, requireServers bool) (err error) {
	d.started = time.Now()
	successor := d.key != nil
	defer func() {
		if err != nil && !successor { // the leases that a successor has taken over are for the next one
			d.close()
		}
	}()
	mo, err := mountOptions(d.conf, sourceOf(d.file), d.mountpoint)
	if err != nil {
		return err
	}
	group, err := adminGroup(d.conf, sourceOf(d.file))
	if err != nil {
		return err
	}
	mo.Log = d.log
	mo.Mount, mo.Unmount = d.child.Mount, d.unmount
	if !successor {
		if d.key, err = nodeKey(); err != nil {
			d.log.Warn("the secret of the node ids could not be kept; they differ after a remount", "err", err)
		}
		if err := prepareMountpoint(d.mountpoint, d.unmount, d.importFrom != "", d.log); err != nil {
			return err
		}
	}
	mo.Key, mo.Device, mo.Memory = d.key, d.device, d.memory
	if d.loops, err = loop.New(min(runtime.GOMAXPROCS(0), 4)); err != nil {
		return err
	}
	mo.Loops = d.loops
	if err := d.openStore(ctx, requireServers); err != nil {
		return err
	}
	if !d.child.Prepared() {
		return errors.New("not needed any more")
	}
	d.generation = d.memory.Begin()
	if d.own != nil {
		d.inherit()
	}
	d.host = hostName()
	d.locks = locking.New(d.store, locking.Options{Host: d.host, Boot: bootID(), Settings: lockSettings(d.conf), Log: d.log, Leases: d.memory.Leases()})
	d.monitor = newMonitor(d, d.host)
	control := admin.Daemon{Status: d.status, Store: d.locks, Backend: d.store, Named: d.locks.Named, Group: group, Log: d.log, Metrics: d.monitor.handler, Health: d.monitor.health()}
	if d.cluster != nil {
		control.Rebalance = d.cluster.Rebalance
	}
	if d.admin, err = admin.Serve(d.socket, control); err != nil {
		return err
	}
	d.save()
	if d.importFrom != "" && !successor {
		if err := d.beginImport(ctx, &mo); err != nil {
			return err
		}
	}
	if d.mount, err = fusefs.Mount(d.locks, mo); err != nil {
		return coded{exitMount, err}
	}
	d.mounted.Store(true)
	d.monitor.start(control, d.conf.Admin.Metrics)
	d.announce()
	if successor {
		d.log.Info("took the mount over", "mountpoint", d.mountpoint, "version", version, "daemons", d.generation, "after", time.Since(d.started).Round(time.Millisecond))
		return nil
	}
	d.log.Info("mounted", "mountpoint", d.mountpoint, "version", version, "servers", serversText(d.conf), "config", sourceOf(d.file))
	return nil
}

func (d *daemon) openStore(ctx context.Context, requireServers bool) error {
	if len(d.conf.Cache.Servers) == 0 {
		d.log.Warn("no cache servers are configured: sessions are kept in this process, for this host alone, and end with it")
		d.own = memory.New(memoryOptions(d.conf))
		d.store = d.own
		return nil
	}
	o := backendOptions(d.conf)
	o.Log, o.Loops = d.log, d.loops
	var err error
	if o.Seal, err = loadSeal(d.conf); err != nil {
		return coded{exitConfig, err}
	}
	c, err := backend.New(o)
	if err != nil {
		return coded{exitConfig, err}
	}
	d.cluster, d.store = c, c
	check, end := context.WithTimeout(ctx, 2*d.conf.Cache.Timeout)
	defer end()
	switch err := c.Check(check); {
	case err == nil:
	case requireServers || !errors.Is(err, sessfs.ErrUnavailable):
		return coded{exitUnreachable, err}
	default:
		d.log.Error("mounting although cache servers do not answer: sessions on them fail until they do", "err", err)
	}
	return nil
}

// run serves until ctx ends or the mount is gone.
func (d *daemon) run(ctx context.Context, reload <-chan os.Signal) error {
	watching, end := context.WithCancel(ctx)
	defer end()
	var watcher *config.Watcher
	if d.file != "" {
		var err error
		if watcher, err = config.Watch(watching, d.file, d.reloaded); err != nil {
			d.log.Warn("the configuration file is not watched; SIGHUP reloads it", "file", d.file, "err", err)
		} else {
			defer watcher.Close()
			watcher.Reload() // it may have changed since it was loaded
		}
	}
	keeper := d.child.Gone()
	for {
		select {
		case <-d.child.Leave():
			d.log.Info("another daemon takes the mount over", "mountpoint", d.mountpoint)
			d.leave()
			return nil
		case <-keeper:
			keeper = nil
			d.log.Error("the keeper of the mount is gone: the mount is dead when this daemon ends, and is not upgraded any more (umount -l, or another mount, takes it away)", "mountpoint", d.mountpoint)
		case <-ctx.Done():
			d.log.Info("ending: unmounting", "mountpoint", d.mountpoint)
			return d.stop()
		case <-d.mount.Done():
			d.log.Info("unmounted", "mountpoint", d.mountpoint)
			d.close()
			d.child.Ended()
			return nil
		case <-reload:
			d.log.Info("SIGHUP: reloading", "file", d.file)
			switch {
			case watcher != nil:
				watcher.Reload()
			case d.file != "":
				d.reloaded(config.Load(d.file))
			default:
				d.log.Warn("there is no configuration file to reload")
			}
		}
	}
}

// reloaded takes a new configuration over as far as that is possible while mounted. It is called by one goroutine at
// a time.
func (d *daemon) reloaded(c *config.Config, err error) {
	if err != nil {
		d.monitor.reloadFailed()
		d.log.Error("the new configuration is not used; the old one goes on", "file", d.file, "err", err)
		return
	}
	live, remount := config.Diff(d.conf, c)
	if len(remount) > 0 {
		d.log.Warn("these changes need a remount", "file", d.file, "keys", strings.Join(remount, ", "))
	}
	if len(live) == 0 {
		d.monitor.reloaded(len(remount))
		return
	}
	next := *d.conf
	next.Session, next.Lock, next.Log, next.Admin.Metrics = c.Session, c.Lock, c.Log, c.Admin.Metrics
	next.Cache.Timeout, next.Cache.RetryInterval = c.Cache.Timeout, c.Cache.RetryInterval
	next.Cache.TLS, next.Cache.Auth, next.Seal = c.Cache.TLS, c.Cache.Auth, c.Seal
	if err := d.reloadCluster(c, &next, live); err != nil {
		d.monitor.reloadFailed()
		d.log.Error("the new configuration is not used; the old one goes on", "file", d.file, "err", err)
		return
	}
	d.conf = &next
	d.save()
	d.logs.set(next.Log.Level, next.Log.Format)
	if d.cluster != nil {
		d.cluster.Reconfigure(backendSettings(&next))
		d.announce()
	} else {
		d.own.Reconfigure(memoryOptions(&next))
	}
	d.locks.Reconfigure(lockSettings(&next))
	d.mount.Reconfigure(fuseSettings(&next))
	d.monitor.listen(next.Admin.Metrics)
	d.monitor.reloaded(len(remount))
	d.log.Info("the configuration was reloaded", "file", d.file, "keys", strings.Join(live, ", "))
}

// reloadCluster takes over what is about the cache servers: next is what holds then. An error leaves the servers as they
// were.
func (d *daemon) reloadCluster(c, next *config.Config, live []string) error {
	if d.cluster == nil {
		return nil
	}
	if slices.Contains(live, "cache.tls") || slices.Contains(live, "cache.auth") {
		if err := d.cluster.SetSecure(backendOptions(next).Secure); err != nil {
			return err
		}
	}
	if slices.ContainsFunc(live, func(key string) bool { return strings.HasPrefix(key, "seal.") }) {
		seal, err := loadSeal(next)
		if err == nil {
			err = d.cluster.SetSeal(seal)
		}
		if err != nil {
			return err
		}
	}
	if len(c.Cache.Servers) == 0 {
		return nil
	}
	next.Cache.Servers, next.Cache.Replicas, next.Cache.Quorum = c.Cache.Servers, c.Cache.Replicas, c.Cache.Quorum
	o := backendOptions(next)
	return d.cluster.SetServers(o.Servers, o.Replicas, o.Majority)
}

// stop unmounts and ends everything. Files that are still open have a moment to be closed.
func (d *daemon) stop() error {
	d.monitor.ending.Store(true)
	err := d.mount.Unmount()
	if err == nil {
		select {
		case <-d.mount.Done():
		case <-time.After(grace):
			d.log.Warn("files are still open in the session directory; their processes will see errors", "mountpoint", d.mountpoint)
		}
	}
	d.close()
	d.child.Ended()
	if err != nil {
		return fmt.Errorf("ending: %w", err)
	}
	return nil
}

// leave ends the daemon with the mount standing. What it leaves undone its successor finds, as after a crash; it is less
// work when what is under way is done.
func (d *daemon) leave() {
	d.mount.Leave(leaveTime)
	d.moving.end()
	time.Sleep(2 * loop.TickEvery) // for what was to be sent later
	d.monitor.close()
	d.admin.Close()
	if d.own != nil {
		d.bequeath()
	}
}

// bequeath writes the sessions of a mount without servers where the next daemon finds them.
func (d *daemon) bequeath() {
	w := bufio.NewWriterSize(d.heap, 1<<20)
	err := d.own.Save(w)
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		d.log.Error("the sessions of this host are lost with this daemon", "err", err)
		d.heap.Truncate(0)
	}
}

// inherit takes over what bequeath has written. After a daemon that died there is nothing.
func (d *daemon) inherit() {
	if _, err := d.heap.Seek(0, io.SeekStart); err != nil {
		d.log.Error("sessions of the former daemon cannot be read", "err", err)
		return
	}
	if err := d.own.Load(bufio.NewReaderSize(d.heap, 1<<20)); err != nil {
		d.log.Error("sessions of the former daemon are lost", "err", err)
	}
	d.heap.Truncate(0)
	d.heap.Seek(0, io.SeekStart)
	if d.generation > 1 && d.own.Empty() {
		d.log.Error("the former daemon died, and with it the sessions of this host: without cache servers they are in its memory alone")
	}
}

// leaveTime is how long requests may take that are under way when another daemon takes over.
const leaveTime = time.Second

func (d *daemon) close() {
	if d.monitor != nil {
		d.monitor.close()
	}
	d.moving.end()
	if d.admin != nil {
		d.admin.Close()
	}
	if d.locks != nil {
		d.locks.Close()
	}
	if d.store != nil {
		d.store.Close()
	}
	if d.loops != nil {
		d.loops.Close()
	}
}
