package testkit

import (
	"os"
	"path/filepath"
	"testing"
)

// Gate is a point in PHP code where it waits for the test: no sleep is long enough on a busy machine.
type Gate struct {
	t    testing.TB
	path string
}

// NewGate makes a closed gate.
func NewGate(t testing.TB) *Gate {
	t.Helper()
	return &Gate{t, filepath.Join(Dir(t), "open")}
}

// PHP is the statement that waits.
func (g *Gate) PHP() string { return `while (!file_exists('` + g.path + `')) usleep(2000); ` }

// Open lets the code go on.
func (g *Gate) Open() {
	g.t.Helper()
	if err := os.WriteFile(g.path, nil, 0o644); err != nil {
		g.t.Fatal(err)
	}
}
