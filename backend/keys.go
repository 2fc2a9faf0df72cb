package backend

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"

	"sessfs"
)

// Keys on the servers, all under the configured prefix. Ids never contain what follows the prefix in the derived ones:
//
//	<prefix><id>               the record; <prefix>#<SHA-256 of the id in hex> where the id cannot stand in a key
//	<prefix>@<id or #hash>     the lock
//	<prefix>?<id or #hash>     the mark of those who want the lock: the token of the lease that they wait for
//	<prefix>+<nonce>.<index>   a chunk of the record with that nonce
//	<prefix>!probe.<random>    what a server is tried with
//
// Where sessions are sealed, another name stands in the place of the id or its hash: see seal_names.go.
const (
	hashMark  = "#"
	lockMark  = "@"
	waitMark  = "?"
	chunkMark = "+"
	probeMark = documentMark + "probe."

	documentMark = "!" // begins what is no session's
)

const (
	maxKey    = 250 // bytes; memcached's limit
	maxPrefix = 128 // leaves room for "@#" and a hash
)

// checkPrefix tells why a prefix cannot begin a key.
func checkPrefix(p string) error {
	if len(p) > maxPrefix {
		return fmt.Errorf("the key prefix has %d bytes; at most %d are possible", len(p), maxPrefix)
	}
	for i := range len(p) {
		if p[i] <= ' ' || p[i] >= 0x7f {
			return fmt.Errorf("the key prefix %q has a byte that memcached refuses in keys; use printable ASCII without spaces", p)
		}
	}
	return nil
}

// nameOf is the part of id's keys that comes from id. It is hostile input: whatever could end a command is hashed.
func nameOf(prefix string, id sessfs.ID) string {
	if id != "" && len(prefix)+len(lockMark)+len(id) <= maxKey && plain(string(id)) {
		return string(id)
	}
	sum := sha256.Sum256([]byte(id))
	return hashMark + hex.EncodeToString(sum[:])
}

func plain(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == ',', c == '-':
		default:
			return false
		}
	}
	return true
}

func chunkKey(prefix string, nonce uint64, i int) string {
	return fmt.Sprintf("%s%s%016x.%s", prefix, chunkMark, nonce, strconv.Itoa(i))
}

func chunkKeys(prefix string, nonce uint64, n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = chunkKey(prefix, nonce, i)
	}
	return keys
}
