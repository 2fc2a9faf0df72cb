package scale

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sessfs"
	"sessfs/backend"
	"sessfs/config"
	"sessfs/internal/testkit"
)

// fill stores so many sessions on a server, faster than any mount could.
func fill(t *testing.T, server *testkit.Memcached, sessions int) {
	t.Helper()
	c, err := backend.New(backend.Options{Servers: []backend.Server{{Address: server.Addr}}, Prefix: config.Default().Cache.Prefix,
		Timeout: 20 * time.Second, Lifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, end := context.WithCancel(context.Background())
	defer end()
	var next atomic.Int64
	var all sync.WaitGroup
	for range 512 {
		all.Go(func() {
			data := []byte(strings.Repeat("x", 100))
			for i := next.Add(1); i <= int64(sessions) && ctx.Err() == nil; i = next.Add(1) {
				attr := sessfs.Attr{Mode: 0o600, Mtime: i, Ctime: time.Now().UnixNano()}
				if _, err := c.Commit(ctx, sessfs.ID(fmt.Sprintf("sess_%032d", i)), &sessfs.Session{}, attr, data, nil); err != nil {
					t.Errorf("storing a session: %v", err)
					end()
				}
			}
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// lineCounter counts the lines written to it that have a session in them.
type lineCounter struct {
	part []byte
	n    int
}

func (c *lineCounter) Write(p []byte) (int, error) {
	for line := range bytes.Lines(p) {
		if c.part = append(c.part, line...); c.part[len(c.part)-1] != '\n' {
			break
		}
		if bytes.Contains(c.part, []byte("sess_")) {
			c.n++
		}
		c.part = c.part[:0]
	}
	return len(p), nil
}

// beside makes requests of ordinary sessions until its standard input ends, and prints how many, and the longest.
const beside = `stream_set_blocking(STDIN, false); $n = $longest = 0;
	while (!feof(STDIN)) {
		fread(STDIN, 1); $t = hrtime(true);
		session_id("beside" . $n % 10); session_start() or exit("no session"); $_SESSION['n'] = $n; session_write_close() or exit("not written");
		$longest = max($longest, (hrtime(true) - $t) / 1e6); $n++; usleep(1000); }
	printf('%d %.1f', $n, $longest);`

// A listing of all sessions, by `sessfs ls` or through the mount, needs little memory in the daemon, and requests go on
// meanwhile.
func TestListingOfManySessions(t *testing.T) {
	server := testkit.StartMemcached(t, "-m", "2048")
	h := testkit.Mount(t, conf(server))
	sessions := size(50000, 1000000)
	start := time.Now()
	fill(t, server, sessions)
	t.Logf("%d sessions stored in %v", sessions, time.Since(start))
	before := usageOf(t, h)
	t.Log("before:", before)
	for name, cmd := range map[string]*exec.Cmd{
		"sessfs ls": exec.Command(testkit.Binary(t), "ls", "--config", h.Config),
		"readdir":   exec.Command("find", h.Dir, "-maxdepth", "1", "-name", "sess_*", "-type", "f"),
	} {
		t.Run(name, func(t *testing.T) {
			newPeak(t, h)
			var found lineCounter
			cmd.Stdout = &found
			others := testkit.PHPCommand(h, nil, beside)
			in, err := others.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			php := testkit.StartCmd(t, others)
			start := time.Now()
			list := testkit.StartCmd(t, cmd)
			if err := list.Wait(t, 10*time.Minute); err != nil {
				t.Fatalf("%v: %s", err, list.Output())
			}
			took := time.Since(start)
			in.Close()
			php.Wait(t, time.Minute)
			var n int
			var longest float64
			if _, err := fmt.Sscanf(php.Output(), "%d %f", &n, &longest); err != nil || n == 0 {
				t.Errorf("the process beside printed %s", php.Output())
			}
			now := usageOf(t, h)
			t.Logf("%d of %d sessions listed in %v; %d requests meanwhile, the longest %.1f ms", found.n, sessions, took, n, longest)
			t.Log("after:", now)
			if found.n < sessions || found.n > sessions+10 {
				t.Errorf("%d sessions are listed, want %d and up to 10 of the process beside", found.n, sessions)
			}
			if now.peak > before.rss+maxListing() {
				t.Errorf("%d bytes were resident during the listing, %d before", now.peak, before.rss)
			}
			idle(t, h, before)
		})
	}
	if f := status(t, h); f.Files.Nodes > sessions/100 {
		t.Errorf("%d nodes are kept of what was only listed", f.Files.Nodes)
	}
}
