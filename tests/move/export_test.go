package move

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sessfs/internal/testkit"
)

// tree is what a directory of sessions has: each file with its attributes and content.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			files[filepath.Base(path)] = stat(t, path) + string(data)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func same(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d files, want %d", what, len(got), len(want))
	}
	for name, w := range want {
		if g := got[name]; g != w {
			t.Errorf("%s: %s is %.80q, want %.80q", what, name, g, w)
		}
	}
}

// TestRoundTrip: what was imported is exported as it was, to another depth too, and can be imported again.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	m := testkit.StartMemcached(t)
	h := testkit.NewHost(t, testkit.Conf{Servers: []*testkit.Memcached{m}})
	old := sessionDir(t)
	for i := range 50 {
		oldFile(t, fmt.Sprintf("%s/sess_%c%c%d", old, 'a'+i%7, 'A'+i%5, i), strings.Repeat("x", i*i*i), 30+i%3, 0o600|os.FileMode(i%4<<3), time.Duration(i)*time.Second+time.Minute)
	}
	want := tree(t, old)
	moved(t, h, 0, "import", old).want(t, map[string]int{"imported": 50})
	flat, deep := sessionDir(t), sessionDir(t)
	moved(t, h, 0, "export", "--dry-run", flat).want(t, map[string]int{"exported": 50})
	same(t, "a dry run", tree(t, flat), nil)
	moved(t, h, 0, "export", flat).want(t, map[string]int{"exported": 50})
	same(t, "exported", tree(t, flat), want)
	moved(t, h, 0, "export", "--depth", "2", deep).want(t, map[string]int{"exported": 50})
	same(t, "exported with depth 2", tree(t, deep), want)
	if got := strings.TrimSpace(testkit.MustRun(t, "stat", "-c", "%a %u", deep+"/a/A")); got != "1733 0" {
		t.Errorf("a directory of a level is %s", got)
	}
	// PHP finds them there.
	if got := testkit.PHPWith(t, h, []string{`session.save_path="2;` + deep + `"`}, increment("aA0")); got != "1" {
		t.Errorf("PHP says %q", got)
	}
	os.Remove(deep + "/a/A/sess_aA0")
	m.Stop()
	m.Start()
	moved(t, h, 0, "import", deep).want(t, map[string]int{"imported": 0, "refused": 7}) // the wrong depth
	os.Symlink(old, deep+"/z")
	moved(t, h, 0, "import", "--depth", "2", deep).want(t, map[string]int{"imported": 49, "refused": 1})
	last := sessionDir(t)
	moved(t, h, 0, "export", last).want(t, map[string]int{"exported": 49})
	delete(want, "sess_aA0")
	same(t, "exported once more", tree(t, last), want)
}

// TestExportBeside: only files that are older are replaced, and nothing is followed or left half.
func TestExportBeside(t *testing.T) {
	m := testkit.StartMemcached(t)
	h := testkit.NewHost(t, testkit.Conf{Servers: []*testkit.Memcached{m}})
	old, out := sessionDir(t), sessionDir(t)
	for _, name := range []string{"older", "newer", "link", "dir", "busy", "absent"} {
		oldFile(t, old+"/sess_"+name, "n|i:5;", 33, 0o600, time.Minute)
	}
	moved(t, h, 0, "import", old)
	oldFile(t, out+"/sess_older", "n|i:1;", 0, 0o644, 2*time.Minute)
	oldFile(t, out+"/sess_newer", "n|i:9;", 0, 0o600, 0)
	oldFile(t, out+"/sess_busy", "n|i:1;", 0, 0o600, 2*time.Minute)
	oldFile(t, out+"/.sessfs-export-left", "n|i:1;", 0, 0o600, 2*time.Minute)
	target := filepath.Dir(out) + "/target"
	if err := os.WriteFile(target, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	os.Symlink(target, out+"/sess_link")
	os.Mkdir(out+"/sess_dir", 0o700)
	gate := testkit.NewGate(t)
	holder := testkit.StartPHP(t, h, nil, `$f = fopen("`+out+`/sess_busy", "r+"); flock($f, LOCK_EX); echo "held"; `+gate.PHP())
	testkit.Until(t, 20*time.Second, "the file is locked", func() bool { return holder.Output() == "held" })
	moved(t, h, 1, "export", "--patience", "100ms", out).want(t, map[string]int{"exported": 2, "newer": 1, "refused": 2, "busy": 1})
	gate.Open()
	holder.Wait(t, 20*time.Second)
	moved(t, h, 0, "export", out).want(t, map[string]int{"exported": 1, "newer": 1, "refused": 2, "unchanged": 2})
	for name, want := range map[string]string{out + "/sess_older": "n|i:5;", out + "/sess_newer": "n|i:9;", out + "/sess_busy": "n|i:5;", target: "kept"} {
		if got, err := os.ReadFile(name); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, want)
		}
	}
	if got, want := stat(t, out+"/sess_older"), stat(t, old+"/sess_older"); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if left, _ := filepath.Glob(out + "/.sessfs-export-*"); len(left) != 1 {
		t.Errorf("left are %q", left)
	}
}
