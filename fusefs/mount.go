package fusefs

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"sessfs"
	"sessfs/internal/loop"
)

// Type is the filesystem's type in /proc/mounts.
const Type = "fuse.sessfs"

// Server is a mount.
type Server struct {
	fs   *FS
	dev  *device
	dir  string
	own  *loop.Group // that Mount started, because none was given
	done chan struct{}

	unmount func(flags int) error
}

// Mount mounts the sessions of store at o.Mountpoint. When it returns, requests are being answered. The error says
// what to do about it; it needs root.
func Mount(store sessfs.Store, o Options) (*Server, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Depth < 0 || o.Depth > 7 {
		return nil, fmt.Errorf("depth %d: 0 to 7 levels of directories are possible", o.Depth)
	}
	if o.Timeout == 0 {
		o.Timeout = 1e9
	}
	g := o.Loops
	if g == nil {
		var err error
		if g, err = loop.New(1); err != nil {
			return nil, err
		}
	}
	s, err := mount(store, o, g)
	if err != nil && o.Loops == nil {
		g.Close()
	}
	return s, err
}

// OpenDevice opens /dev/fuse, for Options.Device.
func OpenDevice() (int, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("opening /dev/fuse: %w (is the fuse module loaded: modprobe fuse? In a container: --device /dev/fuse)", err)
	}
	return fd, nil
}

func mount(store sessfs.Store, o Options, g *loop.Group) (*Server, error) {
	var err error
	if o.Device == 0 {
		if o.Device, err = OpenDevice(); err != nil {
			return nil, err
		}
	}
	if err := unix.SetNonblock(o.Device, true); err != nil {
		return nil, fmt.Errorf("/dev/fuse: %w", err)
	}
	successor := len(o.Memory.Init()) > 0
	fs := newFS(store, o)
	dev := newDevice(o.Device, fs, mountOptions(o.Log))
	fs.device = dev
	s := &Server{fs: fs, dev: dev, dir: o.Mountpoint, unmount: o.Unmount, done: make(chan struct{})}
	if s.unmount == nil {
		s.unmount = func(flags int) error { return unix.Unmount(o.Mountpoint, flags) }
	}
	if o.Loops == nil {
		s.own = g
	}
	if successor {
		err = s.takeOver(g)
	} else {
		err = s.attach(o, g)
	}
	if err != nil {
		unix.Close(o.Device)
		return nil, err
	}
	go fs.janitor()
	go s.end()
	return s, nil
}

// MountDevice mounts o.Device at o.Mountpoint. Whatever is asked of the mount waits until a Server serves it.
func MountDevice(o Options) error {
	data := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,max_read=%d", o.Device, 1<<20)
	if o.Data != "" {
		data += "," + o.Data
	}
	source := o.Source
	if source == "" {
		source = "sessfs"
	}
	if err := unix.Mount(source, o.Mountpoint, Type, o.Flags, data); err != nil {
		return fmt.Errorf("mounting at %s: %w%s", o.Mountpoint, err, mountHint(err))
	}
	return nil
}

// attach mounts, and begins to serve.
func (s *Server) attach(o Options, g *loop.Group) (err error) {
	if o.Mount != nil {
		err = o.Mount()
	} else {
		err = MountDevice(o)
	}
	if err != nil {
		return err
	}
	if o.Before != nil { // what is asked waits in the kernel
		err = o.Before()
	}
	if err == nil {
		err = s.dev.begin()
	}
	if err == nil {
		err = s.dev.serve(g)
	}
	if err != nil {
		s.unmount(unix.MNT_DETACH)
		return fmt.Errorf("mounting at %s: %w", o.Mountpoint, err)
	}
	return nil
}

// takeOver goes on where a former daemon of the mount has ended. The kernel's requests wait meanwhile.
func (s *Server) takeOver(g *loop.Group) error {
	left := s.fs.memory.Requests().Left()
	if err := s.dev.begin(); err != nil {
		return fmt.Errorf("taking over the mount at %s: %w", s.dir, err)
	}
	if err := s.fs.resume(left); err != nil {
		return err
	}
	s.dev.resume(left)
	s.fs.released()
	if err := s.dev.serve(g); err != nil {
		return fmt.Errorf("taking over the mount at %s: %w", s.dir, err)
	}
	return nil
}

func mountHint(err error) string {
	switch {
	case errors.Is(err, unix.EPERM):
		return " (mounting needs root, and in a container CAP_SYS_ADMIN)"
	case errors.Is(err, unix.ENOENT):
		return " (make the directory first)"
	case errors.Is(err, unix.ENOTCONN):
		return " (an old mount is there whose daemon is gone: umount -l it)"
	case errors.Is(err, unix.ENODEV):
		return " (the kernel has no FUSE: modprobe fuse)"
	}
	return ""
}

// mountOptions are what is negotiated with the kernel at INIT.
func mountOptions(log *slog.Logger) *fuse.MountOptions {
	return &fuse.MountOptions{
		Name:   "sessfs",
		FsName: "sessfs",
		// flock comes to us, fcntl locks stay with the kernel.
		EnableLocks:          true,
		DisabledCapabilities: fuse.CAP_POSIX_LOCKS | fuse.CAP_READDIRPLUS | fuse.CAP_NO_OPEN_SUPPORT | fuse.CAP_NO_OPENDIR_SUPPORT | fuse.CAP_PASSTHROUGH,
		ExtraCapabilities:    fuse.CAP_ATOMIC_O_TRUNC,
		DisableReadDirPlus:   true,
		DisableXAttrs:        true,
		MaxWrite:             maxWrite,
		MaxBackground:        1024, // RELEASE is a background request: unlocks must not queue behind each other
		Logger:               slog.NewLogLogger(log.Handler(), slog.LevelError),
	}
}

// end waits for the mount to go, then ends everything.
func (s *Server) end() {
	s.dev.readers.Wait()
	if !s.dev.gone.Load() {
		return // see Leave
	}
	close(s.fs.stop)
	if s.dev.failed.Load() { // nobody reads any more: what waits for an answer must not wait for ever
		s.unmount(unix.MNT_FORCE | unix.MNT_DETACH)
	}
	s.fs.releaseAll() // ends the waits for locks, whose requests the kernel has given up
	s.dev.workers.close()
	s.fs.work.Wait()
	s.fs.releaseAll()
	s.fs.witnesses.close()
	unix.Close(s.dev.fd)
	if s.own != nil {
		s.own.Close()
	}
	close(s.done)
}

// releaseAll gives back the locks of handles that never got a RELEASE: the mount was detached by force.
func (fs *FS) releaseAll() {
	fs.mu.Lock()
	var claims []sessfs.Claim
	for _, h := range fs.handles {
		if h.claim != nil {
			claims = append(claims, h.claim)
		}
	}
	clear(fs.handles)
	fs.mu.Unlock()
	closeClaims(claims)
}

// Unmount takes the mount away. Where files are still open it is only detached (umount -l): those that have it open go
// on, and Wait returns when the last of them has closed.
func (s *Server) Unmount() error {
	err := s.unmount(0)
	if errors.Is(err, unix.EBUSY) {
		err = s.unmount(unix.MNT_DETACH)
	}
	if errors.Is(err, unix.EINVAL) { // not mounted any more
		err = nil
	}
	if err != nil {
		return fmt.Errorf("unmounting %s: %w", s.dir, err)
	}
	return nil
}

// Wait returns when the mount is gone and everything of it has ended.
func (s *Server) Wait() { <-s.done }

// Done is closed when the mount is gone and everything of it has ended.
func (s *Server) Done() <-chan struct{} { return s.done }

// Reconfigure changes what may change while mounted.
func (s *Server) Reconfigure(n Settings) {
	if n.Timeout == 0 {
		n.Timeout = 1e9
	}
	s.fs.settings.Store(&n)
}

// Crowd tells how often requests were looked for and found, and how often there was more than one: whether several
// processes wait for this daemon at a time.
func (s *Server) Crowd() (found, several uint64) {
	return s.fs.counters.polls.Load(), s.fs.counters.crowded.Load()
}

// Leave ends the reading of requests, with the mount standing, and waits until those are answered that were read, but for
// waits for locks; no longer than limit. Nothing else is done with the Server after that: the process is to end.
func (s *Server) Leave(limit time.Duration) {
	s.dev.leaving.Store(true)
	for end := time.Now().Add(limit); s.dev.direct.any() && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
}

// Stats returns the mount's figures.
func (s *Server) Stats() Stats { return s.fs.stats() }
