// Package confine tests what stands between a daemon and those who are not to have its sessions: the rights that it gives
// up, who may ask it, where it listens, and what it says.
package confine

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"sessfs/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const (
	start = testkit.PHPStart
	write = testkit.PHPWrite
	read  = testkit.PHPRead
)

// mount is testkit.Mount with one server and more YAML.
func mount(t *testing.T, more string) *testkit.Host {
	t.Helper()
	return testkit.Mount(t, testkit.Conf{Servers: []*testkit.Memcached{testkit.StartMemcached(t)}, More: more})
}

// kill ends the daemon with a signal by means of its own, and waits until another one serves.
func kill(t *testing.T, h *testkit.Host, how func(pid int)) {
	t.Helper()
	served := func() int { return strings.Count(h.Log(), "another daemon serves") }
	before := served()
	how(h.Process().PID())
	testkit.Until(t, 20*time.Second, "another daemon serves", func() bool { return served() > before })
}

var rights = regexp.MustCompile(`(?m)^(CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):\s*(\w+)`)

// threads are the rights of all threads of a process, each once.
func threads(t *testing.T, pid int) (list []string) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(tasks) == 0 {
		t.Fatalf("process %d has no threads: %v", pid, err)
	}
	seen := make(map[string]bool)
	for _, task := range tasks {
		b, err := os.ReadFile(task)
		if err != nil {
			continue // it has ended
		}
		var words []string
		for _, m := range rights.FindAllSubmatch(b, -1) {
			words = append(words, string(m[1])+"="+strings.TrimLeft(string(m[2]), "0"))
		}
		if s := strings.Join(words, " "); !seen[s] {
			seen[s] = true
			list = append(list, s)
		}
	}
	return list
}
