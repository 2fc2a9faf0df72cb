// Package move tests sessfs import, sessfs export and mount --import: with files as PHP makes them, real servers and
// mounts. `make test` imports some thousand files, `make scale` 100,000 (SESSFS_SCALE=full).
package move

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sessfs/internal/testkit"
)

func TestMain(m *testing.M) {
	testkit.NoRace = os.Getenv("SESSFS_SCALE") == "full"
	testkit.Main(m)
}

const lifetime = 1440 // seconds, the default

// report is the summary that `--json` prints.
type report struct {
	Counts map[string]int
	Bytes  int64
	Notes  []struct{ Outcome, Hash, Why string }
}

// moved runs an import or export, which must end with that exit code.
func moved(t *testing.T, h *testkit.Host, code int, args ...string) report {
	t.Helper()
	out, got := h.Sessfs(append(args, "--json")...)
	if got != code {
		t.Fatalf("%v: exit %d, want %d\n%s", args, got, code, out)
	}
	var r report
	begin, end := strings.IndexByte(out, '{'), strings.LastIndexByte(out, '}')
	if begin < 0 {
		t.Fatalf("%v: no summary: %s", args, out)
	}
	if err := json.Unmarshal([]byte(out[begin:end+1]), &r); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return r
}

// want compares counts; outcomes that are not named must be 0.
func (r report) want(t *testing.T, want map[string]int) {
	t.Helper()
	for o, n := range want {
		if r.Counts[o] != n {
			t.Errorf("%s: %d, want %d; %+v", o, r.Counts[o], n, r)
		}
	}
	for o, n := range r.Counts {
		if _, ok := want[o]; !ok && n != 0 {
			t.Errorf("%s: %d, want none; %+v", o, n, r)
		}
	}
}

// oldFile makes a file as PHP has left it so long ago.
func oldFile(t *testing.T, path, data string, uid int, mode os.FileMode, age time.Duration) {
	t.Helper()
	if err := os.WriteFile(path, []byte(data), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, uid, uid); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(-age)
	if err := os.Chtimes(path, at.Add(-time.Second), at); err != nil {
		t.Fatal(err)
	}
}

// phpIn runs PHP code with sessions in a directory.
func phpIn(t *testing.T, h *testkit.Host, dir, code string) string {
	t.Helper()
	return testkit.PHPWith(t, h, []string{"session.save_path=" + dir}, code)
}

// increment is PHP code that adds one to a session's counter and prints it.
func increment(id string) string {
	return `session_id("` + id + `"); session_start(); $_SESSION["n"] = ($_SESSION["n"] ?? 0) + 1; session_write_close(); echo $_SESSION["n"];`
}

// names are the sessions on a server.
func names(t *testing.T, m *testkit.Memcached) (list []string) {
	t.Helper()
	for _, f := range recordKey.FindAllStringSubmatch(m.Dump(), -1) {
		list = append(list, f[1])
	}
	return list
}

var recordKey = regexp.MustCompile(`(?m)^key=sessfs%3A(sess_\S+) `)

// ttl is how many seconds a session has left on a server.
func ttl(t *testing.T, m *testkit.Memcached, name string) int {
	t.Helper()
	answer := m.Command("mg sessfs:%s t", name)
	var n int
	if _, err := fmt.Sscanf(answer, "HD t%d", &n); err != nil {
		t.Fatalf("%s: %q", name, answer)
	}
	return n
}

// stat is what a child process sees of a file: owner, group, mode, size, time of change in nanoseconds.
func stat(t *testing.T, path string) string {
	t.Helper()
	return testkit.MustRun(t, "stat", "-c", "%u %g %a %s %.Y", path)
}

func sessionDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(testkit.Dir(t), "old")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o1733|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	return dir
}

func seconds(s string) int {
	n, _ := strconv.Atoi(strings.TrimSpace(s))
	return n
}

// killed waits until cond, and ends the process with SIGKILL.
func killed(t *testing.T, p *testkit.Process, cond func() bool) {
	t.Helper()
	testkit.Until(t, 20*time.Second, "the process is in the middle of its work", func() bool {
		select {
		case <-p.Done():
			t.Fatalf("it was too quick:\n%s", p.Output())
		default:
		}
		return cond()
	})
	p.Signal(syscall.SIGKILL)
	<-p.Done()
}
