// Package packaging installs, runs, upgrades and removes the packages that `make package` builds, each test in a
// Debian of its own: this machine's, with all changes in memory.
package packaging

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"sessfs/internal/testkit"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "confine" {
		confined(os.Args[2:])
	}
	testkit.AtExit(func() { os.RemoveAll(built.dir) })
	testkit.Main(m)
}

// The packages are of two versions that follow each other.
const (
	older = "1.0.0"
	newer = "1.1.0"
)

var built struct {
	sync.Once
	dir string
	err error
}

// build makes the packages once for the test process, and returns the directory that has one for each version. Beside
// them lies this test's own program: it confines others (confine_test.go).
func build(t *testing.T) string {
	t.Helper()
	built.Do(func() {
		if built.dir, built.err = os.MkdirTemp("/tmp", "sessfs-packages-"); built.err != nil {
			return
		}
		os.Chmod(built.dir, 0o755)
		for _, version := range []string{older, newer} {
			cmd := exec.Command("make", "-s", "-C", "../..", "package", "B="+filepath.Join(built.dir, version), "VERSION=v"+version)
			cmd.Env = append(os.Environ(), "MAKEFLAGS=", "MAKELEVEL=")
			if out, err := cmd.CombinedOutput(); err != nil {
				built.err = fmt.Errorf("make package: %w\n%s", err, out)
				return
			}
		}
		self, err := os.Executable()
		if err == nil {
			err = exec.Command("cp", self, filepath.Join(built.dir, "confine")).Run()
		}
		built.err = err
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.dir
}

// deb and rpm are the files of a version.
func deb(t *testing.T, version string) string { return one(t, version, "sessfs_*.deb") }
func rpm(t *testing.T, version string) string { return one(t, version, "sessfs-*.rpm") }

func one(t *testing.T, version, pattern string) string {
	t.Helper()
	found, _ := filepath.Glob(filepath.Join(build(t), version, pattern))
	if len(found) != 1 || !strings.Contains(found[0], version) {
		t.Fatalf("make package has built %v for %s of version %s", found, pattern, version)
	}
	return found[0]
}
