package fusefs

import (
	"bytes"
	"errors"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"sessfs"
)

// Release ends an open file description. PHP does not wait for it, so nothing is waited for here: the lock goes back
// unless an image is left that nobody published, which a goroutine of its own sees to.
func (fs *FS) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	fs.mu.Lock()
	h := fs.handles[in.Fh]
	if h == nil {
		fs.mu.Unlock()
		return
	}
	delete(fs.handles, in.Fh)
	fs.open.closed(h)
	fs.nodes.closed(h.node, h)
	f, claim := h.file, h.claim
	f.mu.Lock()
	left := false
	for _, img := range f.images {
		left = left || img.by == h
	}
	if left {
		f.pending++
	}
	f.mu.Unlock()
	if !left {
		fs.memory.EndHandle(h.record)
		fs.unref(f)
		fs.mu.Unlock()
		if claim != nil {
			claim.Close()
		}
		return
	}
	h.record.SetReleased()
	fs.mu.Unlock()
	fs.work.Add(1)
	go func() {
		defer fs.work.Done()
		fs.publishLeft(h, f, claim)
	}()
}

// publishLeft sees to the images that h leaves behind, then ends its claim.
func (fs *FS) publishLeft(h *handle, f *file, claim sessfs.Claim) {
	for {
		f.mu.Lock()
		var img *image
		for _, x := range f.images {
			if x.by == h {
				img = x
			}
		}
		if img == nil {
			if f.pending--; f.pending == 0 && f.settled != nil {
				close(f.settled)
				f.settled = nil
			}
			f.mu.Unlock()
			break
		}
		publish := !f.detached && img.publishable()
		f.mu.Unlock()
		if publish {
			if err := fs.storeLeft(h, f, claim, img); err != nil {
				fs.lost(f.id, err)
			}
		}
		f.mu.Lock()
		f.drop(img)
		f.mu.Unlock()
	}
	if claim != nil {
		claim.Close()
	}
	fs.mu.Lock()
	fs.memory.EndHandle(h.record)
	fs.unref(f)
	fs.mu.Unlock()
}

// publishable decides what becomes of an image that was never stored (rule 3). PHP leaves one when it empties a
// session, and when the session's size is a multiple of maxWrite; a process that was killed leaves one in the middle
// of a change, and then the old session stays.
func (img *image) publishable() bool {
	if img.failed {
		return false
	}
	switch img.who.fate() {
	case fateFine:
		return true
	case fateKilled:
		return false
	default:
		return len(img.data) == 0
	}
}

// storeLeft retries for one lease, which the claim's lock renews meanwhile: nobody is there to hear of a failure.
func (fs *FS) storeLeft(h *handle, f *file, claim sessfs.Claim, img *image) error {
	f.storing.Lock()
	defer f.storing.Unlock()
	end := time.Now().Add(fs.settings.Load().Lease)
	unsure := false // an attempt that got no answer may have been done later
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 500*time.Millisecond) {
		if err := h.err(claim); err != nil {
			return err
		}
		f.mu.Lock()
		v := f.published()
		f.mu.Unlock()
		v.attr.Mtime, v.attr.Ctime = img.mtime, img.mtime
		v.attr.Mode &^= img.drop
		err := fs.tryCommit(f, claim, v.base, v.attr, img.data)
		if err == nil || unsure && conflict(err) && fs.isStored(f, img.data, img.mtime) {
			return nil
		}
		if !unavailable(err) || time.Now().After(end) {
			return err
		}
		unsure = true
		select {
		case <-time.After(pause):
		case <-fs.stop:
			return err
		}
	}
}

// isStored looks whether the servers have data since mtime: a change's time, in nanoseconds, is its own.
func (fs *FS) isStored(f *file, data []byte, mtime int64) bool {
	s, err := fs.store.Read(background, f.id)
	if err != nil || !s.Exists() || s.Attr.Mtime != mtime || !bytes.Equal(s.Data, data) {
		return false
	}
	f.mu.Lock()
	f.set(s)
	f.mu.Unlock()
	return true
}

// lost notes a change that PHP was told nothing of: in the log, in status, and at the next OPEN of the session.
func (fs *FS) lost(id sessfs.ID, err error) {
	fs.counters.lostStores.Add(1)
	fs.counters.lastLost.Store(time.Now().UnixNano())
	fs.log.Error("a session's last change could not be stored after close; its next open fails once", "session", id.Hash(), "err", err)
	fs.mu.Lock()
	if len(fs.unsaved) < maxUnsaved {
		fs.unsaved[id] = err
	}
	fs.mu.Unlock()
}

func unavailable(err error) bool { return errors.Is(err, sessfs.ErrUnavailable) }
func conflict(err error) bool    { return errors.Is(err, sessfs.ErrConflict) }
