package config

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

type snapshot struct {
	c   *Config
	err error
}

// watched starts a watch on a file and returns its path and what the watcher hands out.
func watched(t *testing.T, path string) (*Watcher, <-chan snapshot) {
	t.Helper()
	got := make(chan snapshot, 16)
	w, err := Watch(context.Background(), path, func(c *Config, err error) { got <- snapshot{c, err} })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w, got
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, got <-chan snapshot, depth int) {
	t.Helper()
	for {
		select {
		case s := <-got:
			if s.err != nil {
				t.Fatal(s.err)
			}
			if s.c.Depth == depth {
				return
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("no snapshot with depth %d", depth)
		}
	}
}

func TestWatchSurvivesEveryWayToSave(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	write(t, path, "depth: 0")
	_, got := watched(t, path)

	write(t, path, "depth: 1") // in place
	expect(t, got, 1)

	for depth, text := range map[int]string{2: "depth: 2", 3: "depth: 3"} { // vim, sed -i: a new file in its place
		write(t, path+"~", text)
		if err := os.Rename(path+"~", path); err != nil {
			t.Fatal(err)
		}
		expect(t, got, depth)
	}

	if err := os.Remove(path); err != nil { // removed, then written
		t.Fatal(err)
	}
	time.Sleep(3 * settle)
	write(t, path, "depth: 4")
	expect(t, got, 4)
}

func TestWatchFollowsLinks(t *testing.T) {
	dir := t.TempDir()
	for _, v := range []string{"v1", "v2", "v3"} {
		if err := os.Mkdir(filepath.Join(dir, v), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, v, "config.yaml"), "depth: "+v[1:])
	}
	data, path := filepath.Join(dir, "..data"), filepath.Join(dir, "config.yaml")
	if err := os.Symlink("v1", data); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("..data/config.yaml", path); err != nil {
		t.Fatal(err)
	}
	_, got := watched(t, path)
	for _, v := range []string{"v2", "v3"} {
		if err := os.Symlink(v, data+"~"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(data+"~", data); err != nil {
			t.Fatal(err)
		}
		expect(t, got, int(v[1]-'0'))
	}
	write(t, filepath.Join(dir, "v3", "config.yaml"), "depth: 5")
	expect(t, got, 5)
}

func TestWatchBadThenGood(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	write(t, path, "depth: 0")
	w, got := watched(t, path)
	write(t, path, "depth: many")
	select {
	case s := <-got:
		if _, ok := s.err.(Errors); !ok || s.c != nil {
			t.Fatalf("got %+v", s)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("no error")
	}
	write(t, path, "depth: 6")
	expect(t, got, 6)
	w.Reload() // unchanged, but asked for
	expect(t, got, 6)
}
