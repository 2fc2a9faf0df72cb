package sessfs_test

import (
	"os/exec"
	"strings"
	"testing"
)

// TestImports holds the layers apart: package sessfs imports the standard library only, and fusefs, backend and
// locking never import each other.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", "{{.ImportPath}}: {{join .Deps \" \"}}", "./...").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	forbidden := map[string][]string{
		"sessfs":                 {"sessfs/", "github.com/", "golang.org/", "gopkg.in/"},
		"sessfs/fusefs":          {"sessfs/backend", "sessfs/locking", "sessfs/config"},
		"sessfs/backend":         {"sessfs/fusefs", "sessfs/locking", "sessfs/config"},
		"sessfs/backend/memory":  {"sessfs/fusefs", "sessfs/locking", "sessfs/config"},
		"sessfs/locking":         {"sessfs/fusefs", "sessfs/backend", "sessfs/config"},
		"sessfs/internal/manual": {"sessfs/", "github.com/"},
		"sessfs/internal/move":   {"sessfs/fusefs", "sessfs/backend", "sessfs/locking", "sessfs/config"},
		"sessfs/internal/doctor": {"sessfs/locking", "sessfs/internal/admin", "sessfs/internal/keeper"},
		"sessfs/internal/model":  {"sessfs/fusefs", "sessfs/backend", "sessfs/locking"},
		"sessfs/internal/hist":   {"sessfs", "github.com/"},
		"sessfs/internal/loop":   {"sessfs/fusefs", "sessfs/backend", "sessfs/locking", "sessfs/config"},
	}
	// Figures are taken from the layers, which know nothing of who shows them.
	for _, layer := range []string{"sessfs/fusefs", "sessfs/backend", "sessfs/backend/memory", "sessfs/locking", "sessfs/config"} {
		forbidden[layer] = append(forbidden[layer], "github.com/prometheus/", "net/http", "sessfs/internal/admin", "sessfs/internal/metrics", "sessfs/internal/web")
	}
	for _, shown := range []string{"sessfs/internal/metrics", "sessfs/internal/web"} {
		forbidden[shown] = []string{"sessfs/config", "sessfs/internal/admin"}
	}
	for line := range strings.Lines(string(out)) {
		pkg, deps, _ := strings.Cut(strings.TrimSpace(line), ": ")
		for _, dep := range strings.Fields(deps) {
			for _, bad := range forbidden[pkg] {
				if strings.HasPrefix(dep, bad) {
					t.Errorf("%s imports %s, which it must not", pkg, dep)
				}
			}
		}
	}
}
