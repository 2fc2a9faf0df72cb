package lab

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"sessfs/internal/testkit"
	"sessfs/tests/faults/lab/history"
	"sessfs/tests/faults/lab/proxy"
)

// server is a memcached with the name that hosts know it by.
type server struct {
	name string
	mem  *testkit.Memcached
}

// host is a mount, and its way to each server.
type host struct {
	number  int // from 1 on
	mount   *testkit.Host
	proxies []*proxy.Proxy // in the order of Lab.servers
	clock   *clock         // of its daemon; nil until it was first stepped
}

func (l *Lab) build() {
	l.t.Helper()
	for i := range l.plan.Servers + l.plan.Spare {
		l.servers = append(l.servers, &server{fmt.Sprintf("s%d", i+1), testkit.StartMemcached(l.t, "-m", "256", "-t", "1")})
		if i < l.plan.Servers {
			l.list = append(l.list, i)
		}
	}
	l.report.keep = []string{"0s", "500ms"}[l.rnd.IntN(2)]
	if l.plan.Keep != "" {
		l.report.keep = l.plan.Keep
	}
	for i := range l.plan.Hosts {
		h := &host{number: i + 1}
		for k, s := range l.servers {
			var double proxy.Double
			if l.plan.Double != nil {
				double = l.plan.Double(h.number)
			}
			p, err := proxy.Listen(s.mem.Addr, l.plan.Seed+uint64(100*i+k), double)
			if err != nil {
				l.t.Fatal(err)
			}
			l.t.Cleanup(p.Close)
			h.proxies = append(h.proxies, p)
		}
		h.mount = testkit.NewHost(l.t, l.conf(h))
		// Under the mount there is nothing that PHP could use instead.
		if err := os.Chmod(h.mount.Dir, 0o700); err != nil {
			l.t.Fatal(err)
		}
		h.mount.Start()
		l.hosts = append(l.hosts, h)
	}
	l.mended("the start")
}

// conf is a host's configuration.
func (l *Lab) conf(h *host) testkit.Conf {
	var b strings.Builder
	b.WriteString("  servers:\n")
	for _, i := range l.list {
		fmt.Fprintf(&b, "    - {name: %s, address: %q}\n", l.servers[i].name, h.proxies[i].Addr)
	}
	fmt.Fprintf(&b, "  timeout: %v\n  retry_interval: 1s\n  replicas: %d\n", timeout, replicas)
	return testkit.Conf{
		More:  fmt.Sprintf("session: {lifetime: 12h}\nlock: {lease: %v, keep: %s}\n", lease, l.report.keep),
		Cache: b.String(),
	}
}

// status is what the laboratory looks at of `sessfs status --json`.
type status struct {
	Servers []struct {
		Name   string
		Up     bool
		ToMend int `json:"to_mend"`
		Young  bool
	}
	Files struct {
		OpenFiles    int `json:"open_files"`
		OpenSessions int `json:"open_sessions"`
	}
	Locking    struct{ Claims, Leases, Waiting int }
	Goroutines int
	Cache      struct{ Current, Changed int }
}

// status asks a daemon how it is, which says so with another exit code when a server is down.
func (h *host) status() (s status, err error) {
	out, code := h.mount.Sessfs("status", "--json")
	if err := json.NewDecoder(bytes.NewBufferString(out)).Decode(&s); err != nil {
		return s, fmt.Errorf("status: exit %d: %s", code, out)
	}
	return s, nil
}

// whole tells whether the host has all servers of the list and knows of nothing that is to be mended, or what it is.
func (l *Lab) whole(h *host) string {
	s, err := h.status()
	if err != nil {
		return err.Error()
	}
	there := make(map[string]bool)
	for _, v := range s.Servers {
		there[v.Name] = true
	}
	for _, i := range l.list {
		if name := l.servers[i].name; !there[name] {
			return fmt.Sprintf("host%d does not know %s", h.number, name)
		}
	}
	for _, v := range s.Servers {
		switch {
		case !v.Up:
			return fmt.Sprintf("host%d finds %s down", h.number, v.Name)
		case v.Young:
			return fmt.Sprintf("host%d finds %s too young", h.number, v.Name)
		case v.ToMend != 0:
			return fmt.Sprintf("host%d finds %d to mend on %s", h.number, v.ToMend, v.Name)
		}
	}
	return ""
}

// A server is asked again every second, is young for a lease and a second, and is mended in the background; where that
// fails, on a machine so busy that others do not answer either, it is tried again a minute later at most.
const mendTime = 4 * time.Minute

// mended waits until every host finds all servers whole.
func (l *Lab) mended(after string) bool {
	l.t.Helper()
	begin := time.Now()
	for {
		why := ""
		for _, h := range l.hosts {
			if why = l.whole(h); why != "" {
				break
			}
		}
		took := time.Since(begin)
		if why == "" {
			l.report.mended(after, took)
			return true
		}
		if took > mendTime {
			logs := l.logs()
			l.breach("mended", fmt.Sprintf("%v after %s: %s\nwhat they do stands in %s\n%s", took.Round(time.Second), after, why, l.stacks(), logs))
			return false
		}
		l.sleep(200 * time.Millisecond)
	}
}

// logs are the last lines of every daemon.
func (l *Lab) logs() string {
	var b strings.Builder
	for _, h := range l.hosts {
		log := h.mount.Log()
		fmt.Fprintf(&b, "host%d: …%s\n", h.number, log[max(0, len(log)-2000):])
	}
	return b.String()
}

// stacks has all daemons die of SIGQUIT, so that they tell what their goroutines do, and keeps that in a file.
func (l *Lab) stacks() string {
	file, err := os.CreateTemp("", "sessfs-lab-*.log")
	if err != nil {
		return err.Error()
	}
	defer file.Close()
	for _, h := range l.hosts {
		h.mount.Process().Expect(1)
		syscall.Kill(h.mount.Process().PID(), syscall.SIGQUIT)
	}
	time.Sleep(3 * time.Second)
	for _, h := range l.hosts {
		fmt.Fprintf(file, "host%d\n%s\n", h.number, h.mount.Log())
	}
	return file.Name()
}

// resources are what each daemon has while nothing happens.
type resources struct{ goroutines, descriptors int }

func (h *host) resources() (r resources, err error) {
	s, err := h.status()
	if err != nil {
		return r, err
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", h.mount.Process().PID()))
	return resources{s.Goroutines, len(fds)}, err
}

func (l *Lab) resources() (list []resources) {
	l.t.Helper()
	for _, h := range l.hosts {
		r, err := h.resources()
		if err != nil {
			l.t.Fatal(err)
		}
		list = append(list, r)
	}
	return list
}

const (
	spareDescriptors = 16 // connections that come and go, of the admin socket for one
	spareGoroutines  = 80 // and goroutines that are kept for the next requests
)

// left is what the daemons still have when all is done: they are given time to come back to rest.
func (l *Lab) left(before []resources) (list []history.Breach) {
	for i, h := range l.hosts {
		why := ""
		for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			if why = h.rest(before[i]); why == "" {
				break
			}
		}
		if s, err := h.status(); err == nil {
			c := s.Cache
			l.t.Logf("host%d, its last daemon, of large sessions in memory: %d answers that they are current, %d that they were changed", h.number, c.Current, c.Changed)
		}
		if why != "" {
			list = append(list, history.Breach{Checker: "leaks", Text: fmt.Sprintf("host%d: %s", h.number, why)})
		}
	}
	return list
}

func (h *host) rest(before resources) string {
	s, err := h.status()
	if err != nil {
		return err.Error()
	}
	r, err := h.resources()
	switch {
	case err != nil:
		return err.Error()
	case s.Files.OpenFiles != 0 || s.Files.OpenSessions != 0 || s.Locking.Claims != 0 || s.Locking.Leases != 0 || s.Locking.Waiting != 0:
		return fmt.Sprintf("something is open when all is closed: %+v, %+v", s.Files, s.Locking)
	case r.goroutines > before.goroutines+spareGoroutines || r.descriptors > before.descriptors+spareDescriptors:
		return fmt.Sprintf("%d goroutines and %d descriptors; at first %d and %d: %s", r.goroutines, r.descriptors, before.goroutines, before.descriptors, h.descriptors())
	}
	return ""
}

// descriptors tells what a daemon has open, how often.
func (h *host) descriptors() string {
	count := make(map[string]int)
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", h.mount.Process().PID()))
	for _, l := range links {
		to, _ := os.Readlink(l)
		kind, _, _ := strings.Cut(to, ":[")
		count[kind]++
	}
	return fmt.Sprint(count)
}
