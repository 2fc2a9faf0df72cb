package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"sessfs/config"
	"sessfs/internal/confine"
	"sessfs/internal/handover"
	"sessfs/internal/keeper"
)

// loops is the number of event loops of a daemon on a machine with so many processors: see docs/performance.md.
func loops(processors int) int {
	if processors < 4 {
		return 1
	}
	return 2
}

// serve is the daemon. The keeper has started it, for a mount that is to be made or that is there.
func serve(ctx context.Context, r mountRequest) error {
	// What the daemon does is waking others up. Each of its event loops keeps a P, and with no more Ps than loops its
	// goroutines are switched without a system call; see package loop.
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(loops(runtime.NumCPU()))
	}
	if err := confine.NoCore(); err != nil {
		return err
	}
	child, err := keeper.Attach()
	if err != nil {
		return err
	}
	defer child.Close()
	device := keeper.FirstFile
	unix.CloseOnExec(device)
	memory, err := handover.Attach(keeper.FirstFile + 1)
	if err != nil {
		return err
	}
	unix.CloseOnExec(keeper.FirstFile + 2)
	d := &daemon{device: device, memory: memory, child: child, importFrom: r.importFrom, heap: os.NewFile(keeper.FirstFile+2, "sessions")}
	if d.file, err = givenFile(r.file); err != nil {
		return err
	}
	before, err := restore(memory)
	if err != nil {
		return err
	}
	if before != nil {
		// What the former daemon worked with is gone on with; run reads the file once more, and takes over what may change.
		d.conf, d.mountpoint, d.key = &before.Config, before.Mountpoint, before.Key
	} else {
		if d.conf, err = loadConfig(r.file, r.asked); err != nil {
			return err
		}
		if d.mountpoint, err = r.where(d.conf); err != nil {
			return err
		}
	}
	var sink, background io.Writer = os.Stderr, nil
	if r.background {
		if background, err = backgroundSink(); err != nil {
			return fmt.Errorf("opening a log: %w", err)
		}
		sink = startingLines{os.Stderr, background}
	}
	d.logs = newLogger(sink, d.conf.Log.Level, d.conf.Log.Format)
	d.log = slog.New(d.logs)
	confineDaemon(d.log)
	d.socket = socketOf(d.conf, d.file, d.mountpoint)
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)
	if err := d.start(ctx, r.requireServers && before == nil); err != nil {
		return err
	}
	if r.background {
		d.logs.sink = background
		d.logs.set(d.conf.Log.Level, d.conf.Log.Format)
	}
	aside, end := context.WithCancel(ctx)
	defer end()
	defer keepRoom()()
	go trimMemory(aside, d.memory.Requests())
	go watchCrowd(aside, d.mount.Crowd)
	child.Serving()
	return d.run(ctx, reload)
}

// kept is what a daemon leaves for its successor beside what is in the tables of the shared memory.
type kept struct {
	Mountpoint string
	Key        []byte // of the node ids
	Config     config.Config
}

// save keeps what the daemon works with.
func (d *daemon) save() {
	b, err := json.Marshal(kept{d.mountpoint, d.key, *d.conf})
	if err == nil {
		err = d.memory.Save(b)
	}
	if err != nil {
		d.log.Error("the configuration could not be kept for another daemon, which could not take this mount over", "err", err)
	}
}

// restore returns what a former daemon of the mount has kept; nil: there was none.
func restore(m *handover.Memory) (*kept, error) {
	if len(m.Init()) == 0 {
		return nil, nil
	}
	k := &kept{Config: *config.Default()}
	if err := json.Unmarshal(m.Saved(), k); err != nil {
		return nil, fmt.Errorf("what the former daemon has kept cannot be read: %w", err)
	}
	return k, nil
}
