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

// rank appends the indexes of the k nodes with the highest scores for key to order, the highest first. A score is
// -weight/ln(h), where h in (0, 1) is a hash of name and key: a node that comes or goes moves only the keys that it gets
// or had.
func rank(order []int, nodes []node, key string, k int) []int {
	if len(nodes) == 1 {
		return append(order, 0)
	}
	var buf [8]float64
	scores := buf[:0]
	first := len(order)
	for i, n := range nodes {
		s := score(n, key)
		at := len(scores)
		for at > 0 && s > scores[at-1] {
			at--
		}
		if at == k {
			continue
		}
		if len(scores) < k {
			scores, order = append(scores, 0), append(order, 0)
		}
		copy(scores[at+1:], scores[at:])
		copy(order[first+at+1:], order[first+at:])
		scores[at], order[first+at] = s, i
	}
	return order
}

func score(n node, key string) float64 {
	var buf [512]byte
	b := binary.BigEndian.AppendUint64(buf[:0], uint64(len(n.name))) // so that no two pairs of name and key run into one text
	b = append(append(b, n.name...), key...)
	sum := sha256.Sum256(b)
	// 53 bits are what a float64 holds exactly; the half keeps it off 0 and 1.
	x := (float64(binary.BigEndian.Uint64(sum[:8])>>11) + 0.5) / (1 << 53)
	return -float64(n.weight) / math.Log(x)
}
