package doctor

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"

	securejoin "github.com/cyphar/filepath-securejoin"
)

// tree is the files below a directory: "/", or the root of a container or of another system.
type tree struct{ root string }

// maxFile is the size in bytes of the largest file of settings that is read.
const maxFile = 1 << 20

// real is where a path of the tree is in ours: links in it are followed as they are meant there.
func (t tree) real(path string) string {
	if t.root == "/" {
		return path
	}
	p, err := securejoin.SecureJoin(t.root, path)
	if err != nil {
		return filepath.Join(t.root, path)
	}
	return p
}

// read returns a file's text, "" where there is none that can be read.
func (t tree) read(path string) string {
	real := t.real(path)
	info, err := os.Stat(real)
	if err != nil || info.Size() > maxFile || !info.Mode().IsRegular() {
		return ""
	}
	b, err := os.ReadFile(real)
	if err != nil {
		return ""
	}
	return string(b)
}

func (t tree) exists(path string) bool {
	_, err := os.Lstat(t.real(path))
	return err == nil
}

// show is how a path of the tree is named to the administrator.
func (t tree) show(path string) string {
	if t.root == "/" {
		return path
	}
	return filepath.Join(t.root, path)
}

// glob returns the paths of the tree that match, in order. Only the last element, and elements without links before it,
// may have wildcards.
func (t tree) glob(pattern string) []string {
	if t.root == "/" {
		found, _ := filepath.Glob(pattern)
		return found
	}
	found := []string{"/"}
	for _, element := range strings.Split(strings.Trim(filepath.Clean(pattern), "/"), "/") {
		var next []string
		for _, dir := range found {
			if !strings.ContainsAny(element, "*?[") {
				if p := filepath.Join(dir, element); t.exists(p) {
					next = append(next, p)
				}
				continue
			}
			names, _ := os.ReadDir(t.real(dir))
			for _, n := range names {
				if ok, _ := filepath.Match(element, n.Name()); ok && (n.Name()[0] != '.' || element[0] == '.') {
					next = append(next, filepath.Join(dir, n.Name()))
				}
			}
		}
		found = next
	}
	slices.SortFunc(found, cmp.Compare[string])
	return found
}
