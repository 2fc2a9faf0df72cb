package backend

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
)

// node is a server as the choice sees it: the address does not count, so a server may move.
type node struct {
	name   string
	weight int
}

// choose returns the index of the node that key lives on: the one with the highest score -weight/ln(h), where h in
// (0, 1) is a hash of name and key. A node that comes or goes moves only the keys that it gets or had.
func choose(nodes []node, key string) int {
	if len(nodes) == 1 {
		return 0
	}
	best, at := math.Inf(-1), 0
	for i, n := range nodes {
		if s := score(n, key); s > best {
			best, at = s, i
		}
	}
	return at
}

func score(n node, key string) float64 {
	h := sha256.New()
	var length [8]byte
	binary.BigEndian.PutUint64(length[:], uint64(len(n.name)))
	h.Write(length[:]) // so that no two pairs of name and key run into one text
	h.Write([]byte(n.name))
	h.Write([]byte(key))
	var sum [sha256.Size]byte
	h.Sum(sum[:0])
	// 53 bits are what a float64 holds exactly; the half keeps it off 0 and 1.
	x := (float64(binary.BigEndian.Uint64(sum[:8])>>11) + 0.5) / (1 << 53)
	return -float64(n.weight) / math.Log(x)
}
