package move

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"sessfs/internal/testkit"
)

// TestMany: 100,000 files within a minute, killed in the middle and done again.
func TestMany(t *testing.T) {
	t.Parallel()
	n := 4000
	if os.Getenv("SESSFS_SCALE") == "full" {
		n = 100_000
	}
	m := testkit.StartMemcached(t, "-m", "1024")
	h := testkit.NewHost(t, testkit.Conf{Servers: []*testkit.Memcached{m}, More: "lock: {lease: 3s}", Cache: "  timeout: 1400ms\n"})
	old := sessionDir(t)
	data := "n|i:1;x|s:1000:\"" + strings.Repeat("x", 1000) + "\";"
	for i := range n {
		oldFile(t, fmt.Sprintf("%s/sess_%032d", old, i), data, 1000+i%50, 0o600, time.Duration(i%600+20)*time.Second)
	}
	begun := time.Now()
	moved(t, h, 0, "import", old).want(t, map[string]int{"imported": n})
	took := time.Since(begun)
	t.Logf("%d files of 1 kB were imported in %v", n, took)
	if n == 100_000 && took > time.Minute {
		t.Errorf("%d files took %v", n, took)
	}
	begun = time.Now()
	moved(t, h, 0, "import", old).want(t, map[string]int{"unchanged": n})
	t.Logf("nothing to do: %v", time.Since(begun))
	m.Stop()
	m.Start()
	p := testkit.Start(t, h.Binary, "import", old, "--config", h.Config)
	killed(t, p, func() bool { return itemsOf(m) > n/4 })
	there := len(names(t, m))
	if there >= n {
		t.Fatalf("killed when all was done")
	}
	moved(t, h, 0, "import", old).want(t, map[string]int{"imported": n - there, "unchanged": there})
	for _, i := range []int{1, n/2 + 1, n - 1} {
		age := i%600 + 20
		if left := ttl(t, m, fmt.Sprintf("sess_%032d", i)); left > lifetime-age || left < lifetime-age-300 {
			t.Errorf("a session of %d s ago has %d s left", age, left)
		}
	}
	// What the journal of both knows.
	for i := 0; i < n; i += 100 {
		os.Remove(fmt.Sprintf("%s/sess_%032d", old, i))
	}
	moved(t, h, 0, "import", old).want(t, map[string]int{"unchanged": n - n/100, "removed": n / 100})
	begun = time.Now()
	out := sessionDir(t)
	moved(t, h, 0, "export", out).want(t, map[string]int{"exported": n - n/100})
	t.Logf("%d sessions were exported in %v", n, time.Since(begun))
}
