package fusefs

import (
	"strings"
	"testing"

	"sessfs"
)

// matches is Matches by its definition, byte by byte.
func matches(pattern, name string) bool {
	possible := make([]bool, len(name)+1) // that the pattern so far is so much of the name
	possible[0] = true
	for i := range len(pattern) {
		next := make([]bool, len(name)+1)
		for j := range next {
			switch {
			case pattern[i] == '*':
				next[j] = possible[j] || j > 0 && next[j-1]
			case j > 0:
				next[j] = possible[j-1] && name[j-1] == pattern[i]
			}
		}
		possible = next
	}
	return possible[len(name)]
}

// FuzzSessionName: only what can be a file's name is a session's, as its pattern says; it stands in one directory, which has
// one node id, and none of a file's.
func FuzzSessionName(f *testing.F) {
	for _, s := range [][2]string{{"sess_*", "sess_abc"}, {"sess_*", "sess_"}, {"*", ".."}, {"*", "a/b"}, {"*", "a\x00"}, {"a*b*c", "abbc"}, {"**", ""}, {"plain", "plain"},
		{"*", strings.Repeat("x", 256)}, {"a*a", "a"}, {"sess_*", "sess_../x"}, {"*a*", "\xff\xfea"}} {
		f.Add(s[0], s[1], uint8(1))
	}
	f.Fuzz(func(t *testing.T, pattern, name string, depth uint8) {
		if len(pattern) > 255 || len(name) > 1000 {
			return
		}
		sub, ok := SessionName([]string{"other_*x", pattern}, name)
		want := name != "" && len(name) <= 255 && !strings.ContainsAny(name, "/\x00") && name != "." && name != ".." &&
			(matches(pattern, name) || matches("other_*x", name))
		if ok != want {
			t.Fatalf("%q with pattern %q: %v", name, pattern, ok)
		}
		if !ok {
			if sub != "" {
				t.Fatalf("%q is the id of what is no session", sub)
			}
			return
		}
		if !strings.HasSuffix(name, sub) {
			t.Fatalf("%q is no part of %q", sub, name)
		}
		n := newNames([]string{"other_*x", pattern}, int(depth%8), []byte("key"))
		for l := range 8 {
			if l > len(sub) || !levelsOf(sub[:l]) {
				continue
			}
			levels, isDir := n.dirPath(dirNode(sub[:l]))
			if isDir != (l <= n.depth) || isDir && levels != sub[:l] {
				t.Fatalf("the directory %q is %q, %v", sub[:l], levels, isDir)
			}
			if n.inDir(sub[:l], name) != (l == n.depth) {
				t.Fatalf("%q in %q with depth %d", name, sub[:l], n.depth)
			}
		}
		if ino := n.inode(sessfs.ID(name), 0); ino <= 1 || ino&dirBit != 0 {
			t.Fatalf("the node id %d of %q", ino, name)
		}
	})
}

// levelsOf reports whether s are the names of directories.
func levelsOf(s string) bool {
	for i := range len(s) {
		if !Level(s[i : i+1]) {
			return false
		}
	}
	return true
}
