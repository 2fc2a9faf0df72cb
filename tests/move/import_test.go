package move

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sessfs"
	"sessfs/internal/testkit"
)

// TestImport: owner, mode, times and the time that is left come along, and PHP reads what it has written.
func TestImport(t *testing.T) {
	m := testkit.StartMemcached(t)
	h := testkit.NewHost(t, testkit.Conf{Servers: []*testkit.Memcached{m}})
	old := sessionDir(t)
	phpIn(t, h, old, increment("made-by-php"))
	oldFile(t, old+"/sess_made-by-php", "n|i:41;", 33, 0o600, 100*time.Second)
	oldFile(t, old+"/sess_other", "a|i:1;", 1234, 0o640, 1000*time.Second)
	oldFile(t, old+"/sess_empty", "", 0, 0o600, 10*time.Second)
	oldFile(t, old+"/sess_large", "x|s:3000000:\""+strings.Repeat("x", 3_000_000)+"\";", 33, 0o600, 200*time.Second)
	oldFile(t, old+"/sess_expired", "a|i:1;", 33, 0o600, (lifetime+10)*time.Second)

	dry := moved(t, h, 0, "import", "--dry-run", old)
	dry.want(t, map[string]int{"imported": 4, "expired": 1})
	if n := names(t, m); len(n) != 0 {
		t.Fatalf("a dry run has stored %q", n)
	}
	if left, _ := filepath.Glob(filepath.Dir(h.Config) + "/import-*"); len(left) != 0 {
		t.Errorf("a dry run has left %q", left)
	}
	moved(t, h, 0, "import", old).want(t, map[string]int{"imported": 4, "expired": 1})
	for name, age := range map[string]int{"sess_made-by-php": 100, "sess_other": 1000, "sess_empty": 10, "sess_large": 200} {
		if left := ttl(t, m, name); left < lifetime-age-30 || left > lifetime-age+1 {
			t.Errorf("%s, of %d seconds ago, has %d seconds left", name, age, left)
		}
	}
	before := make(map[string]string)
	for _, name := range []string{"sess_made-by-php", "sess_other", "sess_empty", "sess_large"} {
		before[name] = stat(t, old+"/"+name)
	}
	h.Start()
	for name, want := range before {
		if got := stat(t, h.Path(name)); got != want {
			t.Errorf("%s: %s is %s", name, want, got)
		}
	}
	if got := testkit.PHPAs(t, h, 33, nil, increment("made-by-php")); got != "42" {
		t.Errorf("PHP counts on to %q", got)
	}
	if got := testkit.PHP(t, h, `session_id("large"); session_start(); echo strlen($_SESSION["x"]);`); got != "3000000" {
		t.Errorf("PHP reads %q bytes", got)
	}
	if out, code := h.Sessfs("import", h.Dir); code != 2 || !strings.Contains(out, "mount --bind") {
		t.Errorf("importing from the mount: exit %d: %s", code, out)
	}
}

// TestAgain: another import takes what has changed; what was changed on the servers, or destroyed on either side, stays so.
func TestAgain(t *testing.T) {
	m := testkit.StartMemcached(t)
	h := testkit.Mount(t, testkit.Conf{Servers: []*testkit.Memcached{m}})
	old := sessionDir(t)
	for _, name := range []string{"same", "changed", "used", "out-there", "out-here", "both", "moved"} {
		oldFile(t, old+"/sess_"+name, "n|i:1;", 0, 0o600, 20*time.Second)
	}
	moved(t, h, 0, "import", old).want(t, map[string]int{"imported": 7})
	moved(t, h, 0, "import", old).want(t, map[string]int{"unchanged": 7})

	phpIn(t, h, old, increment("changed"))
	phpIn(t, h, old, increment("both"))
	testkit.PHP(t, h, increment("both")+increment("used")) // later than the file's
	phpIn(t, h, old, `session_id("out-there"); session_start(); session_destroy();`)
	testkit.PHP(t, h, `session_id("out-here"); session_start(); session_destroy();`)
	testkit.PHP(t, h, increment("moved"))
	phpIn(t, h, old, `session_id("moved"); session_start(); session_destroy();`)
	phpIn(t, h, old, increment("new"))
	dry := moved(t, h, 0, "import", "-n", old)
	want := map[string]int{"imported": 2, "unchanged": 1, "newer": 2, "destroyed": 1, "removed": 1}
	dry.want(t, want)
	if got := testkit.PHP(t, h, increment("out-there")); got != "2" {
		t.Errorf("after a dry run the session has %q", got)
	}
	// It was used here now: it lives.
	want["removed"] = 0
	moved(t, h, 0, "import", old).want(t, want)
	for name, n := range map[string]string{"same": "2", "changed": "3", "used": "3", "both": "3", "new": "2", "out-here": "1", "out-there": "3", "moved": "3"} {
		if got := testkit.PHP(t, h, increment(name)); got != n {
			t.Errorf("%s counts on to %q, want %s", name, got, n)
		}
	}
	// Destroyed while nothing else has happened to it.
	oldFile(t, old+"/sess_late", "n|i:1;", 0, 0o600, 20*time.Second)
	moved(t, h, 0, "import", old)
	phpIn(t, h, old, `session_id("late"); session_start(); session_destroy();`)
	if r := moved(t, h, 0, "import", old); r.Counts["removed"] != 1 {
		t.Errorf("a session that PHP has destroyed: %+v", r)
	}
	if got := testkit.PHP(t, h, increment("late")); got != "1" {
		t.Errorf("a session that PHP has destroyed is back: it counts on to %q", got)
	}
}

// TestHostile: the directory may be written by everybody.
func TestHostile(t *testing.T) {
	t.Parallel()
	m := testkit.StartMemcached(t)
	h := testkit.NewHost(t, testkit.Conf{Servers: []*testkit.Memcached{m}, More: "session: {max_size: 1MiB}"})
	old := sessionDir(t)
	oldFile(t, old+"/sess_good", "n|i:1;", 33, 0o600, time.Minute)
	oldFile(t, old+"/other-name", "n|i:1;", 33, 0o600, time.Minute)
	oldFile(t, old+"/.sessfs-export-0123456789ab", "n|i:1;", 33, 0o600, time.Minute)
	oldFile(t, old+"/sess_twice", "n|i:1;", 33, 0o600, time.Minute)
	oldFile(t, old+"/sess_future", "n|i:1;", 33, 0o600, -time.Hour)
	oldFile(t, old+"/sess_\n\x1b]0;x\a"+strings.Repeat("y", 200), "n|i:7;", 33, 0o755|os.ModeSetuid, time.Minute)
	for _, err := range []error{
		os.Symlink("/etc/shadow", old+"/sess_link"),
		os.Symlink("/nonexistent", old+"/sess_broken"),
		os.Link(old+"/sess_twice", filepath.Dir(old)+"/elsewhere"),
		syscall.Mkfifo(old+"/sess_fifo", 0o666),
		syscall.Mknod(old+"/sess_null", syscall.S_IFCHR|0o666, 0x103),
		os.Mkdir(old+"/sess_dir", 0o777),
		os.Mkdir(old+"/a", 0o777),
		os.WriteFile(old+"/sess_huge", nil, 0o600), os.Truncate(old+"/sess_huge", 1<<40),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	r := moved(t, h, 0, "import", old)
	r.want(t, map[string]int{"imported": 3, "refused": 9, "too_large": 1})
	why := make(map[string]string)
	for _, n := range r.Notes {
		why[n.Hash] = n.Why
		if strings.Contains(n.Why, "sess_") {
			t.Errorf("a name is shown: %s", n.Why)
		}
	}
	for name, want := range map[string]string{"sess_link": "a symbolic link", "sess_broken": "a symbolic link", "sess_twice": "hard links", "sess_fifo": "a fifo",
		"sess_null": "a device", "sess_dir": "a directory", "other-name": "none of `files`", "a": "none of `files`", "sess_huge": "max_size"} {
		if got := why[sessfs.ID(name).Hash()]; !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if n := names(t, m); len(n) != 2 || !slices.Contains(n, "sess_good") {
		t.Errorf("on the server are %q", n)
	}
	h.Start()
	if got := testkit.MustRun(t, "sh", "-c", "stat -c %a "+h.Dir+"/*yyy"); got != "755\n" {
		t.Errorf("mode %s of a file that was set-uid", got)
	}
	// A time that is yet to come is none: what PHP stores later counts.
	testkit.PHP(t, h, increment("future"))
	if r := moved(t, h, 0, "import", old); r.Counts["newer"] != 1 {
		t.Errorf("a file of the future: %+v", r)
	}
	// The summary for people names nobody either.
	if out, code := h.Sessfs("import", old); code != 0 || strings.Contains(out, "sess_") || !strings.Contains(out, "refused: a symbolic link") {
		t.Errorf("exit %d: %s", code, out)
	}
}

func itemsOf(m *testkit.Memcached) int {
	stats := m.Command("stats")
	_, after, _ := strings.Cut(stats, "curr_items ")
	line, _, _ := strings.Cut(after, "\r\n")
	return seconds(line)
}

// TestInUse: a file that PHP has open is imported when it is closed, and its session is locked until then.
func TestInUse(t *testing.T) {
	t.Parallel()
	m := testkit.StartMemcached(t)
	h := testkit.Mount(t, testkit.Conf{Servers: []*testkit.Memcached{m}})
	old := sessionDir(t)
	for _, name := range []string{"fresh", "known"} {
		oldFile(t, old+"/sess_"+name, "n|i:1;", 0, 0o600, 20*time.Second)
	}
	os.Rename(old+"/sess_fresh", filepath.Dir(old)+"/fresh")
	moved(t, h, 0, "import", old).want(t, map[string]int{"imported": 1})
	os.Rename(filepath.Dir(old)+"/fresh", old+"/sess_fresh")
	gate := testkit.NewGate(t)
	var open []*testkit.Process
	for _, name := range []string{"fresh", "known"} {
		open = append(open, testkit.StartPHP(t, h, []string{"session.save_path=" + old},
			`session_id("`+name+`"); session_start(); echo "open\n"; `+gate.PHP()+`$_SESSION["n"]++; session_write_close();`))
	}
	testkit.Until(t, 20*time.Second, "PHP has the files open", func() bool {
		return strings.Contains(open[0].Output(), "open") && strings.Contains(open[1].Output(), "open")
	})
	moved(t, h, 0, "import", "--dry-run", old).want(t, map[string]int{"imported": 1, "unchanged": 1})
	r := moved(t, h, 1, "import", "--patience", "300ms", old)
	r.want(t, map[string]int{"imported": 0, "busy": 2})
	p := testkit.Start(t, h.Binary, "import", old, "--config", h.Config, "--json")
	for _, name := range []string{"fresh", "known"} {
		testkit.Until(t, 20*time.Second, "its session is locked", func() bool { return strings.HasPrefix(m.Command("mg sessfs:@sess_%s", name), "HD") })
	}
	waiting := testkit.StartPHP(t, h, nil, increment("fresh")+` echo " ";`+increment("known"))
	time.Sleep(100 * time.Millisecond)
	if out := waiting.Output(); out != "" {
		t.Fatalf("a session was given out whose file is open: %s", out)
	}
	gate.Open()
	if err := p.Wait(t, 20*time.Second); err != nil || !strings.Contains(p.Output(), `"imported": 2`) {
		t.Errorf("%v: %s", err, p.Output())
	}
	waiting.Wait(t, 20*time.Second)
	if got := waiting.Output(); got != "3 3" {
		t.Errorf("PHP counts on to %q, want 3 3", got)
	}
}

// TestRefusals: what cannot begin says why.
func TestRefusals(t *testing.T) {
	t.Parallel()
	m := testkit.StartMemcached(t)
	old := sessionDir(t)
	h := testkit.NewHost(t, testkit.Conf{Servers: []*testkit.Memcached{m}, Cache: "  timeout: 500ms\n"})
	for _, c := range []struct {
		args []string
		code int
		text string
	}{
		{[]string{"import", old + "/none"}, 2, "no such file"},
		{[]string{"import", h.Config}, 2, "not a directory"},
		{[]string{"import", "--depth", "8", old}, 2, "--depth 8"},
		{[]string{"import"}, 2, "accepts 1 arg"},
		{[]string{"export", old + "/none"}, 2, "no such file"},
	} {
		if out, code := h.Sessfs(c.args...); code != c.code || !strings.Contains(out, c.text) {
			t.Errorf("%v: exit %d: %s", c.args, code, out)
		}
	}
	m.Stop()
	oldFile(t, old+"/sess_a", "n|i:1;", 0, 0o600, time.Minute)
	if out, code := h.Sessfs("import", old); code != 4 || !strings.Contains(out, m.Addr) {
		t.Errorf("a server that is down: exit %d: %s", code, out)
	}
	if out, code := h.Sessfs("mount", "--import", old); code == 0 || h.Mounted() {
		t.Errorf("mounted although nothing could be imported: exit %d: %s", code, out)
	}
	embedded := testkit.NewHost(t, testkit.Conf{})
	for _, verb := range []string{"import", "export"} {
		if out, code := embedded.Sessfs(verb, old); code != 3 || !strings.Contains(out, "cache.servers") {
			t.Errorf("%s without servers: exit %d: %s", verb, code, out)
		}
	}
}
