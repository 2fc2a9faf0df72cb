package backend

import (
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sessfs"
	"sessfs/backend/backendtest"
	"sessfs/internal/testkit"
)

func TestMain(m *testing.M) {
	flag.Set("test.parallel", "4") // those that run beside others mostly wait: for the end of leases, of sessions, of timeouts
	goleak.VerifyTestMain(m)
}

// memcached is a real server on a unix socket, which it keeps over stop and start.
type memcached struct {
	t      testing.TB
	socket string
	args   []string
	cmd    *exec.Cmd
}

func startMemcached(t testing.TB, args ...string) *memcached {
	t.Helper()
	dir, err := os.MkdirTemp("", "backend")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	m := &memcached{t: t, socket: filepath.Join(dir, "s"), args: args}
	t.Cleanup(m.stop)
	m.start()
	return m
}

func (m *memcached) start() {
	m.t.Helper()
	m.cmd = exec.Command("memcached", append([]string{"-u", "root", "-U", "0", "-t", "1", "-s", m.socket}, m.args...)...)
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	until(m.t, "memcached answers", func() bool {
		c, err := net.Dial("unix", m.socket)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// freeze stops its threads, which go on for a moment after the signal.
func (m *memcached) freeze() {
	m.t.Helper()
	m.cmd.Process.Signal(syscall.SIGSTOP)
	until(m.t, "memcached is stopped", func() bool { return testkit.Stopped(m.cmd.Process.Pid) })
}

func (m *memcached) thaw() { m.cmd.Process.Signal(syscall.SIGCONT) }

// stop kills it: it is started again empty.
func (m *memcached) stop() {
	if m.cmd != nil {
		m.cmd.Process.Kill()
		m.cmd.Wait()
		m.cmd = nil
		os.Remove(m.socket)
	}
}

// raw sends text and returns the first answer.
func (m *memcached) raw(format string, args ...any) string {
	m.t.Helper()
	c, err := net.Dial("unix", m.socket)
	if err != nil {
		m.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	fmt.Fprintf(c, format, args...)
	b := make([]byte, 64<<10)
	n, err := c.Read(b)
	if err != nil {
		m.t.Fatal(err)
	}
	return string(b[:n])
}

func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in 15 s: %s", what)
		}
	}
}

func testOptions(servers ...string) Options {
	o := Options{Timeout: time.Second, RetryInterval: time.Second, Prefix: "sessfs:", Lifetime: time.Minute,
		Lease: backendtest.Lease, MaxSize: backendtest.MaxSize, Memory: 16 << 20}
	for i, s := range servers {
		network := "unix"
		if s[0] != '/' {
			network = "tcp"
		}
		o.Servers = append(o.Servers, Server{Name: fmt.Sprintf("c%d", i+1), Network: network, Address: s})
	}
	return o
}

func open(t testing.TB, o Options) *Cluster {
	t.Helper()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.cache.above.Store(1)
	return c
}

func TestConformanceMeta(t *testing.T) {
	backendtest.Run(t, func(t *testing.T, lifetime time.Duration) sessfs.Backend {
		o := testOptions(startMemcached(t, "-m", "256").socket, startMemcached(t, "-m", "256").socket)
		o.Timeout, o.Lifetime = 5*time.Second, lifetime
		return open(t, o)
	})
}

// The same contract holds with copies, on as many servers as there are and on some of them.
func TestConformanceCopies(t *testing.T) {
	for _, servers := range []int{2, 3, 4} {
		t.Run(fmt.Sprint(servers), func(t *testing.T) {
			t.Parallel()
			backendtest.Run(t, func(t *testing.T, lifetime time.Duration) sessfs.Backend {
				return open(t, copiesOptions(t, servers, lifetime))
			})
		})
	}
}

func copiesOptions(t testing.TB, servers int, lifetime time.Duration) Options {
	var sockets []string
	for range servers {
		sockets = append(sockets, startMemcached(t, "-m", "256").socket)
	}
	o := testOptions(sockets...)
	o.Timeout, o.Lifetime, o.Replicas = 5*time.Second, lifetime, 2
	return o
}

func TestConformanceClassicCopies(t *testing.T) {
	backendtest.Run(t, func(t *testing.T, lifetime time.Duration) sessfs.Backend {
		o := copiesOptions(t, 2, lifetime)
		o.ForceClassic = true
		return open(t, o)
	})
}

func TestConformanceClassic(t *testing.T) {
	backendtest.Run(t, func(t *testing.T, lifetime time.Duration) sessfs.Backend {
		o := testOptions(startMemcached(t, "-m", "256").socket)
		o.Timeout, o.Lifetime, o.ForceClassic = 5*time.Second, lifetime, true
		return open(t, o)
	})
}
