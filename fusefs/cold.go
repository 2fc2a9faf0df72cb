package fusefs

import (
	"time"

	"sessfs"
)

// coldNodes are nodes that nobody has used for a while, packed: a hundred thousand of them are some twelve megabytes in
// two maps without pointers, which cost the garbage collector nothing. They come in two generations. What is put or used
// goes to the younger; when that is full the elder is dropped and the younger becomes the elder. So at least half of
// max are kept, in the order of their use, without a list.
type coldNodes struct {
	max        int // nodes
	maxBytes   int // of long names, in a generation
	young, old generation
}

// generation is one of the two maps.
type generation struct {
	nodes map[uint64]coldNode
	long  map[uint64]sessfs.ID // names that do not fit into a coldNode
	bytes int                  // of those
	peak  int                  // the most nodes it has had: a map does not shrink by itself
}

// coldName is the length of PHP's longest usual name: sess_ and 32 characters.
const coldName = 37

type coldNode struct {
	lookups    uint32
	entryUntil uint32 // in seconds; 0: none
	life       uint16
	length     uint8 // of the name, 0: in long; and coldReused
	name       [coldName]byte
}

// coldReused is the node's reused.
const coldReused = 1 << 7

// coldShrink: a map that has had no more nodes than this is never made anew.
const coldShrink = 1024

func (c *coldNodes) init(max, maxBytes int) { c.max, c.maxBytes = max, maxBytes }

func (c *coldNodes) len() int { return len(c.young.nodes) + len(c.old.nodes) }

// put packs a node. What does not fit is dropped, which is harmless.
func (c *coldNodes) put(n *node) {
	if n.n > 1<<16-1 {
		return
	}
	if g := &c.young; len(g.nodes) >= c.max/2 || g.bytes >= c.maxBytes {
		c.old, c.young = c.young, generation{}
	}
	g := &c.young
	if g.nodes == nil {
		g.nodes = make(map[uint64]coldNode)
	}
	x := coldNode{lookups: uint32(min(n.lookups, 1<<32-1)), entryUntil: uint32(n.entryUntil / int64(time.Second)), life: uint16(n.n)}
	if len(n.id) <= coldName {
		x.length = uint8(copy(x.name[:], n.id))
	} else {
		if g.long == nil {
			g.long = make(map[uint64]sessfs.ID)
		}
		g.long[n.ino] = n.id
		g.bytes += len(n.id)
	}
	if n.reused {
		x.length |= coldReused
	}
	g.nodes[n.ino] = x
	g.peak = max(g.peak, len(g.nodes))
}

// take unpacks a node and takes it out; nil: not known.
func (c *coldNodes) take(ino uint64) *node {
	g, x, ok := c.find(ino)
	if !ok {
		return nil
	}
	n := &node{ino: ino, n: uint32(x.life), lookups: uint64(x.lookups), entryUntil: int64(x.entryUntil) * int64(time.Second),
		reused: x.length&coldReused != 0, answered: unknownVersion}
	length := x.length &^ coldReused
	if n.id = sessfs.ID(x.name[:length]); length == 0 {
		n.id = g.long[ino]
	}
	g.remove(ino)
	return n
}

// forget is the kernel's FORGET.
func (c *coldNodes) forget(ino, lookups uint64) {
	g, x, ok := c.find(ino)
	if !ok {
		return
	}
	if lookups < uint64(x.lookups) {
		x.lookups -= uint32(lookups)
		g.nodes[ino] = x
		return
	}
	g.remove(ino)
	if g.peak > coldShrink && len(g.nodes) < g.peak/4 {
		g.shrink()
	}
}

func (c *coldNodes) find(ino uint64) (*generation, coldNode, bool) {
	for _, g := range []*generation{&c.young, &c.old} {
		if x, ok := g.nodes[ino]; ok {
			return g, x, true
		}
	}
	return nil, coldNode{}, false
}

func (g *generation) remove(ino uint64) {
	delete(g.nodes, ino)
	if id, ok := g.long[ino]; ok {
		g.bytes -= len(id)
		delete(g.long, ino)
	}
}

// shrink makes the map anew, after most of it was forgotten.
func (g *generation) shrink() {
	next := generation{nodes: make(map[uint64]coldNode, len(g.nodes)), bytes: g.bytes, peak: len(g.nodes)}
	for ino, x := range g.nodes {
		next.nodes[ino] = x
	}
	if len(g.long) > 0 {
		next.long = make(map[uint64]sessfs.ID, len(g.long))
		for ino, id := range g.long {
			next.long[ino] = id
		}
	}
	*g = next
}
