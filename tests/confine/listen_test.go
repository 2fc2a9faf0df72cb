package confine

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sessfs/internal/testkit"
)

var socketLink = regexp.MustCompile(`^socket:\[(\d+)\]$`)

// listens are the sockets of a process at which somebody else could begin to speak: listening ones, and all datagrams.
func listens(t *testing.T, pid int) (list []string) {
	t.Helper()
	mine := make(map[string]bool)
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil || len(fds) == 0 {
		t.Fatalf("process %d has no descriptors: %v", pid, err)
	}
	for _, fd := range fds {
		link, _ := os.Readlink(fd)
		if m := socketLink.FindStringSubmatch(link); m != nil {
			mine[m[1]] = true
		}
	}
	for _, table := range []struct {
		name         string
		inode, state int    // fields
		open         string // of the state
	}{
		{"tcp", 9, 3, "0A"}, {"tcp6", 9, 3, "0A"}, {"udp", 9, 3, ""}, {"udp6", 9, 3, ""}, {"udplite", 9, 3, ""}, {"raw", 9, 3, ""}, {"raw6", 9, 3, ""},
		{"packet", 8, 0, ""}, {"unix", 6, 3, "00010000"},
	} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table.name))
		if err != nil {
			continue // this kernel has none
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) > table.inode && mine[f[table.inode]] && strings.Contains(f[table.state], table.open) {
				list = append(list, table.name+" "+f[len(f)-1])
			}
		}
	}
	slices.Sort(list)
	return list
}

// A mount listens at its two sockets, and nowhere on the network unless admin.metrics says so.
func TestListensNowhere(t *testing.T) {
	c := testkit.Conf{Servers: []*testkit.Memcached{testkit.StartMemcached(t), testkit.StartMemcached(t)}}
	h := testkit.Mount(t, c)
	testkit.Want(t, testkit.PHP(t, h, write, "l", "x"), "ok")
	socket := filepath.Join(filepath.Dir(h.Config), "admin.sock")
	keeper := h.Process().Process.PID()
	check := func(pid int, wanted ...string) {
		t.Helper()
		if got := listens(t, pid); !slices.Equal(got, wanted) {
			t.Errorf("process %d listens at %q, not %q", pid, got, wanted)
		}
	}
	check(h.Process().PID(), "unix "+socket)
	check(keeper, "unix "+socket+".keeper")
	testkit.ReplaceFile(t, h.Config, "%s", strings.Replace(string(readFile(t, h.Config)), "admin: {", fmt.Sprintf("admin: {metrics: \"127.0.0.1:%d\", ", testkit.FreePort(t)), 1))
	testkit.Until(t, 10*time.Second, "it listens", func() bool { return len(listens(t, h.Process().PID())) == 2 })
	if got := listens(t, h.Process().PID()); !strings.HasPrefix(got[0], "tcp ") {
		t.Errorf("it listens at %q", got)
	}
	h.Configure(c)
	testkit.Until(t, 10*time.Second, "it listens no more", func() bool { return len(listens(t, h.Process().PID())) == 1 })
}
