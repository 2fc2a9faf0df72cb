package fusefs

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"strings"
	"sync"

	"sessfs"
)

// dirBit marks node ids of the virtual directories of depth > 0: they carry their own path, a byte a level, below a
// byte with the number of levels. The root is fuse.FUSE_ROOT_ID.
const dirBit = 1 << 63

// names knows which names may stand in the directory, where, and with which node id.
type names struct {
	patterns []string
	depth    int
	key      []byte
	hashes   sync.Pool
}

func newNames(patterns []string, depth int, key []byte) names {
	return names{patterns: patterns, depth: depth, key: key, hashes: sync.Pool{New: func() any { return sha256.New() }}}
}

// match returns the part of name that the virtual directories are made of (PHP: the id after "sess_"), and whether
// the name is one that may stand here.
func (s *names) match(name string) (sub string, ok bool) { return SessionName(s.patterns, name) }

// SessionName tells whether a session's file may have that name, by the patterns of the configuration, and which part of it
// the virtual directories are made of.
func SessionName(patterns []string, name string) (sub string, ok bool) {
	if !sessfs.ID(name).Valid() {
		return "", false
	}
	for _, p := range patterns {
		if !Matches(p, name) {
			continue
		}
		if i := strings.IndexByte(p, '*'); i >= 0 {
			return name[i:], true
		}
		return name, true
	}
	return "", false
}

// Matches compares name with a pattern in which '*' is any run of bytes, and nothing else is special.
func Matches(pattern, name string) bool {
	parts := strings.Split(pattern, "*")
	first, last := parts[0], parts[len(parts)-1]
	if len(parts) == 1 {
		return name == pattern
	}
	if len(name) < len(first)+len(last) || !strings.HasPrefix(name, first) || !strings.HasSuffix(name, last) {
		return false
	}
	name = name[len(first) : len(name)-len(last)]
	for _, part := range parts[1 : len(parts)-1] {
		i := strings.Index(name, part)
		if i < 0 {
			return false
		}
		name = name[i+len(part):]
	}
	return true
}

// inode is the node id of the nth life of a name (rule 7). Keyed, so that nobody can choose names that meet in one id.
func (s *names) inode(id sessfs.ID, n uint32) uint64 {
	h := s.hashes.Get().(hash.Hash)
	defer s.hashes.Put(h)
	h.Reset()
	var sum [sha256.Size]byte
	var num [4]byte
	binary.LittleEndian.PutUint32(num[:], n)
	h.Write(s.key)
	h.Write(num[:])
	h.Write([]byte(id))
	v := binary.LittleEndian.Uint64(h.Sum(sum[:0])) &^ dirBit
	if v <= 1 {
		v += 2 // 0 is no node, 1 the root
	}
	return v
}

// dirPath returns the levels of a virtual directory; ok is false for a node id that is not a directory's.
func (s *names) dirPath(node uint64) (levels string, ok bool) {
	if node == 1 {
		return "", true
	}
	if node&dirBit == 0 {
		return "", false
	}
	n := int(node >> 56 & 0x7f)
	if n < 1 || n > s.depth {
		return "", false
	}
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(node >> (8 * i))
	}
	return string(b), true
}

func dirNode(levels string) uint64 {
	if levels == "" {
		return 1
	}
	node := uint64(dirBit) | uint64(len(levels))<<56
	for i := 0; i < len(levels); i++ {
		node |= uint64(levels[i]) << (8 * i)
	}
	return node
}

// Level reports whether name is one level of the directories of depth > 0: one character of a session id.
func Level(name string) bool {
	if len(name) != 1 {
		return false
	}
	c := name[0]
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == ',' || c == '-'
}

// inDir reports whether a session of that name stands in the directory: the files are all at the deepest level, below
// the first characters of their id.
func (s *names) inDir(levels, name string) bool {
	sub, ok := s.match(name)
	return ok && len(levels) == s.depth && len(sub) >= s.depth && sub[:s.depth] == levels
}
