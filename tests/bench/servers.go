package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sessfs/internal/testkit/proc"
)

// lab is where a run keeps its files: everything that is mounted or written lies under dir.
type lab struct {
	dir   string // on the disk
	tmpfs string
	disk  string
	fs    string                          // the kind of filesystem dir lies on
	count int                             // of the things made, for their names
	delay map[time.Duration]time.Duration // of the proxy's one direction, for a round trip
}

// newLab makes the directories; disk is where one is wanted that is not in memory.
func newLab(disk string, s *scope) (*lab, error) {
	dir, err := os.MkdirTemp(disk, "sessfs-bench-")
	if err != nil {
		return nil, err
	}
	s.add(func() error { return os.RemoveAll(dir) })
	l := &lab{dir: dir, tmpfs: filepath.Join(dir, "tmpfs"), disk: filepath.Join(dir, "disk"), delay: make(map[time.Duration]time.Duration)}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return nil, err
	}
	switch fs.Type {
	case unix.TMPFS_MAGIC:
		return nil, fmt.Errorf("%s is in memory, and files on the disk are to be measured there: name another directory with -disk", disk)
	case unix.EXT4_SUPER_MAGIC:
		l.fs = "ext4"
	case unix.XFS_SUPER_MAGIC:
		l.fs = "xfs"
	case unix.BTRFS_SUPER_MAGIC:
		l.fs = "btrfs"
	case unix.OVERLAYFS_SUPER_MAGIC:
		l.fs = "overlayfs"
	default:
		l.fs = fmt.Sprintf("type %#x", fs.Type)
	}
	for _, d := range []string{l.tmpfs, l.disk} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return nil, err
		}
	}
	if err := unix.Mount("tmpfs", l.tmpfs, "tmpfs", 0, "size=1g,mode=0700"); err != nil {
		return nil, fmt.Errorf("mounting a tmpfs: %w", err)
	}
	s.add(func() error { return unix.Unmount(l.tmpfs, unix.MNT_DETACH) })
	return l, nil
}

// make makes a new directory under parent.
func (l *lab) make(parent, name string) (string, error) {
	l.count++
	dir := filepath.Join(parent, fmt.Sprintf("%s-%d", name, l.count))
	return dir, os.Mkdir(dir, 0o700)
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// server is a cache server.
type server struct {
	*process
	addr string // its own
	via  string // what clients are to use: a delaying proxy where there is one
}

// startServer starts a program that listens on a free port, args naming it with %d.
func startServer(ctx context.Context, s *scope, name string, args ...string) (*server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	for i, a := range args {
		args[i] = strings.ReplaceAll(a, "%d", strconv.Itoa(port))
	}
	p, err := startProcess(exec.Command(name, args...))
	if err != nil {
		return nil, err
	}
	s.add(func() error { return p.stop(syscall.SIGTERM) })
	srv := &server{process: p, addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
	srv.via = srv.addr
	return srv, p.until(ctx, 10*time.Second, "it listened", func() bool {
		c, err := net.Dial("tcp", srv.addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// Memory enough that nothing is evicted, in every scenario.
func startMemcached(ctx context.Context, s *scope, more ...string) (*server, error) {
	return startServer(ctx, s, "memcached", append([]string{"-u", "root", "-U", "0", "-l", "127.0.0.1", "-p", "%d", "-m", "1024"}, more...)...)
}

// Without a dump to the disk, which none of the others makes.
func startRedis(ctx context.Context, s *scope, dir string) (*server, error) {
	return startServer(ctx, s, "redis-server", "--port", "%d", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", dir)
}

// host is a sessfs daemon with its mount.
type host struct {
	*process
	dir, config, binary string
}

// pid is the daemon's: the process that was started is its keeper.
func (h *host) pid() int { return proc.Child(h.process.pid()) }

// startHost mounts sessfs; more is further YAML at the top level.
func startHost(ctx context.Context, s *scope, l *lab, binary, more string, copies int, servers ...*server) (*host, error) {
	base, err := l.make(l.dir, "host")
	if err != nil {
		return nil, err
	}
	h := &host{dir: filepath.Join(base, "sessions"), config: filepath.Join(base, "config.yaml"), binary: binary}
	if err := os.Mkdir(h.dir, 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(h.config, []byte(configuration(base, h.dir, more, copies, servers)), 0o644); err != nil {
		return nil, err
	}
	if h.process, err = startProcess(exec.Command(binary, "mount", "--foreground", "--require-servers", "--config", h.config)); err != nil {
		return nil, err
	}
	s.add(func() error {
		err := h.stop(syscall.SIGTERM)
		if mounted(h.dir) {
			unix.Unmount(h.dir, unix.MNT_DETACH)
			err = fmt.Errorf("sessfs left %s mounted: %s", h.dir, h.log.String())
		}
		return err
	})
	return h, h.until(ctx, 30*time.Second, "it was mounted", func() bool { return mounted(h.dir) })
}

func configuration(base, mountpoint, more string, copies int, servers []*server) string {
	var b strings.Builder
	fmt.Fprintf(&b, "mountpoint: %s\nadmin: {socket: %s}\n%s\n", mountpoint, filepath.Join(base, "admin.sock"), more)
	if len(servers) > 0 {
		fmt.Fprintf(&b, "cache:\n  replicas: %d\n  servers:\n", copies)
		for i, srv := range servers {
			fmt.Fprintf(&b, "    - {name: cache%d, address: %q}\n", i+1, srv.via)
		}
	}
	return b.String()
}

func mounted(dir string) bool {
	b, _ := os.ReadFile("/proc/self/mounts")
	return strings.Contains(string(b), " "+dir+" fuse.sessfs ")
}
