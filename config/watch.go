package config

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	settle = 100 * time.Millisecond // editors write, rename and chmod in one go
	absent = time.Second            // a file that is replaced may be missing or empty for a moment
)

// Watcher hands out a snapshot for each change of a configuration file.
type Watcher struct {
	path   string
	notify *fsnotify.Watcher
	fn     func(*Config, error)
	reload chan struct{}
	cancel context.CancelFunc
	done   chan struct{}

	// Of the goroutine alone.
	seen  signature // of the file, when it was last looked at
	last  content   // that was handed out, or stood there at the beginning
	since time.Time // the file is missing or empty since then; zero: it is not
}

// content is what a reading of the file gave.
type content struct {
	data []byte
	err  string
}

func (c content) equal(d content) bool { return c.err == d.err && bytes.Equal(c.data, d.data) }

// signature changes with every change of a file.
type signature struct {
	dev, ino     uint64
	size         int64
	mtime, ctime syscall.Timespec
}

func sign(path string) (s signature) {
	var st syscall.Stat_t
	if syscall.Stat(path, &st) == nil {
		s = signature{uint64(st.Dev), st.Ino, st.Size, st.Mtim, st.Ctim}
	}
	return s
}

// Watch calls fn, from one goroutine, with each new content of the file, or with what is wrong with it; the caller
// then keeps what it has. What stands there when the watch begins is not handed out. Close ends the watch, and so does
// ctx; fn must not call Close.
//
// The directories are watched, the file's and the one that links lead to, because editors and configuration managers
// put a new file in the place of the old one. A look every second finds what they miss: a directory that was itself
// replaced, a link in the middle, a file system without notifications.
func Watch(ctx context.Context, path string, fn func(*Config, error)) (*Watcher, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	seen := sign(path) // before the content: a change in between is seen again
	data, err := read(path)
	if err != nil {
		return nil, fmt.Errorf("watching: %w", err)
	}
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watching the configuration: %w (fs.inotify.max_user_instances)", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &Watcher{path: path, notify: notify, fn: fn, reload: make(chan struct{}, 1), cancel: cancel, done: make(chan struct{}),
		seen: seen, last: content{data: data}}
	w.follow()
	go w.run(ctx)
	return w, nil
}

// Reload reads the file now and hands it out, changed or not.
func (w *Watcher) Reload() {
	select {
	case w.reload <- struct{}{}:
	default: // one is on its way
	}
}

// Close ends the watch; fn is not called after it.
func (w *Watcher) Close() {
	w.cancel()
	<-w.done
}

// follow watches the directories as they are now. One that cannot be watched is left to the look every second.
func (w *Watcher) follow() {
	dirs := []string{filepath.Dir(w.path)}
	if real, err := filepath.EvalSymlinks(w.path); err == nil {
		dirs = append(dirs, filepath.Dir(real))
	}
	for _, old := range w.notify.WatchList() {
		if !slices.Contains(dirs, old) {
			w.notify.Remove(old)
		}
	}
	for _, dir := range dirs {
		w.notify.Add(dir) // a second time does nothing, unless the directory is another one now
	}
}

func (w *Watcher) run(ctx context.Context) {
	defer close(w.done)
	defer w.notify.Close()
	defer w.cancel()
	due := time.NewTimer(time.Hour)
	due.Stop()
	look := time.NewTicker(time.Second)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.reload:
			due.Stop()
			w.handOut(true)
			continue
		case <-due.C:
			if again := w.handOut(false); again > 0 {
				due.Reset(again)
			}
			continue
		case <-look.C:
			w.follow()
		case <-w.notify.Events:
		case <-w.notify.Errors: // events were lost
		}
		// Not every event in the directory is about this file. Reading waits until it has been left alone for a while.
		if now := sign(w.path); now != w.seen {
			w.seen = now
			due.Reset(settle)
		}
	}
}

// handOut gives fn what the file says, if that is new or always is set. While the file is missing or empty it
// returns how long to wait for it to come back.
func (w *Watcher) handOut(always bool) (again time.Duration) {
	w.seen = sign(w.path)
	data, err := read(w.path)
	if err != nil || len(data) == 0 {
		if w.since.IsZero() {
			w.since = time.Now()
		}
		if left := absent - time.Since(w.since); left > 0 && !always {
			return left
		}
	} else {
		w.since = time.Time{}
	}
	now := content{data: data}
	if err != nil {
		now.err = err.Error()
	}
	if !always && now.equal(w.last) {
		return 0
	}
	w.last = now
	w.follow()
	if err != nil {
		w.fn(nil, err)
		return 0
	}
	w.fn(Parse(w.path, data))
	return 0
}
