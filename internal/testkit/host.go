package testkit

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Host is one web host: a daemon of its own with its mount.
type Host struct {
	Dir    string // the mount point
	Config string // the configuration file
	Binary string // of the daemon; NewHost sets that of all tests
	t      testing.TB
	proc   *Daemon
}

// Conf is the configuration of a Host; empty fields are left out of the file.
type Conf struct {
	Servers []*Memcached // none: embedded
	More    string       // further YAML at the top level
	Cache   string       // further YAML inside cache:, each line indented by two
}

// Mount starts a daemon and waits until its mount answers.
func Mount(t testing.TB, c Conf) *Host {
	t.Helper()
	h := NewHost(t, c)
	h.Start()
	return h
}

// NewHost prepares a mount point and a configuration.
func NewHost(t testing.TB, c Conf) *Host {
	t.Helper()
	base := Dir(t)
	h := &Host{t: t, Dir: filepath.Join(base, "sessions"), Config: filepath.Join(base, "config.yaml"), Binary: Binary(t)}
	if err := os.Mkdir(h.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	h.Configure(c)
	remember(h.Dir)
	t.Cleanup(func() {
		if h.proc != nil {
			h.Stop()
		}
	})
	return h
}

// Configure writes the configuration file.
func (h *Host) Configure(c Conf) {
	h.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "mountpoint: %s\nadmin: {socket: %s}\n", h.Dir, filepath.Join(filepath.Dir(h.Config), "admin.sock"))
	b.WriteString(c.More)
	if len(c.Servers) > 0 || c.Cache != "" {
		b.WriteString("\ncache:\n")
		if len(c.Servers) > 0 {
			b.WriteString("  servers:\n")
			for _, s := range c.Servers {
				fmt.Fprintf(&b, "    - {address: %q}\n", s.Addr)
			}
		}
		if b.WriteString(c.Cache); c.Cache == "" && !strings.Contains(c.More, "lease:") {
			b.WriteString("  timeout: 4s\n") // a busy machine must not look like a dead server
		}
		if len(c.Servers) > 0 && c.Servers[0].Safe != nil && !strings.Contains(c.Cache, "tls:") {
			b.WriteString("\n" + c.Servers[0].Safe.YAML())
		}
	}
	ReplaceFile(h.t, h.Config, "%s", b.String())
}

var started atomic.Int32

// Start starts the daemon and waits until the mount answers.
func (h *Host) Start(args ...string) {
	h.t.Helper()
	args = append([]string{"mount", "--foreground", "--config", h.Config}, args...)
	cmd := exec.Command(h.Binary, args...)
	// Of two hosts one has an event loop and the other two, as on machines with few and with many processors.
	cmd.Env = append(os.Environ(), fmt.Sprintf("GOMAXPROCS=%d", 1+started.Add(1)%2))
	h.proc = &Daemon{Process: start(h.t, cmd)} // ended by NewHost's cleanup
	Until(h.t, 30*time.Second, "the mount at "+h.Dir+" answers; its log:\n"+h.Log(), func() bool {
		select {
		case <-h.proc.Done():
			h.t.Fatalf("the daemon ended: %v\n%s", h.proc.err, h.Log())
		default:
		}
		return h.Mounted()
	})
}

// Mounted tells whether the mount is in the kernel's table.
func (h *Host) Mounted() bool {
	b, _ := os.ReadFile("/proc/self/mounts")
	return strings.Contains(string(b), " "+h.Dir+" fuse.sessfs ")
}

// Process is the daemon.
func (h *Host) Process() *Daemon { return h.proc }

// Log is what the daemon has logged.
func (h *Host) Log() string {
	if h.proc == nil {
		return ""
	}
	return h.proc.Output()
}

// Stop ends the daemon with SIGTERM; it must end cleanly, unmount, and have met no data race.
func (h *Host) Stop() {
	h.t.Helper()
	err := h.proc.Stop()
	if err != nil {
		h.t.Errorf("the daemon of %s: %v\n%s", h.Dir, err, h.Log())
	}
	if deaths := strings.Count(h.Log(), "msg=\"the daemon died"); deaths > h.proc.kills {
		h.t.Errorf("the daemon of %s died %d times, and was killed %d times:\n%s", h.Dir, deaths, h.proc.kills, h.Log())
	}
	if strings.Contains(h.Log(), "DATA RACE") || strings.Contains(h.Log(), "panic:") {
		h.t.Errorf("the daemon of %s:\n%s", h.Dir, h.Log())
	}
	if h.Mounted() {
		h.t.Errorf("%s is still mounted after the daemon's end\n%s", h.Dir, h.Log())
		h.Detach()
	}
	h.proc = nil
}

// Crash kills the daemon and takes its dead mount away.
func (h *Host) Crash() {
	h.proc.Kill()
	h.Detach()
	h.proc = nil
}

// Detach takes the mount away by force.
func (h *Host) Detach() { syscall.Unmount(h.Dir, syscall.MNT_DETACH) }

// Sessfs runs a command of the sessfs binary, with this host's configuration where the command takes one.
func (h *Host) Sessfs(args ...string) (string, int) {
	h.t.Helper()
	return Run(h.t, h.Binary, append(args, "--config", h.Config)...)
}

// Status reads `sessfs status --json` into figures, a pointer to a struct with the part of it that matters.
func (h *Host) Status(figures any) {
	h.t.Helper()
	out, code := h.Sessfs("status", "--json")
	if code != 0 {
		h.t.Fatalf("status: exit %d: %s", code, out)
	}
	if err := json.Unmarshal([]byte(out), figures); err != nil {
		h.t.Fatalf("status: %v: %s", err, out)
	}
}

// Path is a file in the mount.
func (h *Host) Path(name string) string { return filepath.Join(h.Dir, name) }
