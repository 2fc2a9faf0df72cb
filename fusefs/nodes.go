package fusefs

import (
	"slices"

	"sessfs"
	"sessfs/internal/handover"
)

// maxNodes bounds the nodes that nobody has open. The kernel forgets inodes only under memory pressure, and cookies are
// chosen by attackers; a node id that fell out is answered with ESTALE and looked up again. They are some
// 16 MiB when the table is full.
//
// The maxWarm of them that were used last are nodes as they are used here; the others are cold: packed, in memory that
// the garbage collector does not look into.
const (
	maxNodes     = 131072
	maxWarm      = 4096
	maxNodeBytes = 4 << 20 // of names longer than PHP's, twice
)

// node is what the kernel knows as one inode: the nth life of a name. Guarded by FS.mu.
type node struct {
	ino        uint64
	id         sessfs.ID
	n          uint32
	retired    bool           // the session was unlinked or destroyed while it was open: new openers get n+1
	lookups    uint64         // how often the kernel was told, less what it forgot
	entryUntil int64          // Boottime until which the kernel may hold a valid entry; 0: it holds none
	handles    []*handle      // open here
	reused     bool           // the kernel may have attributes that it reuses, and was not told to forget them
	answered   sessfs.Version // their session's; unknownVersion: not known any more
	truncator  uint32         // the thread whose truncation was answered after the last answer that was for reuse; 0: none
	place      link[*node]    // in the table's order; in none while open
}

// unknownVersion is no session's: no counter is 0 where there is a nonce.
var unknownVersion = sessfs.Version{Nonce: 1}

type nodeTable struct {
	names   *names
	memory  *handover.Memory
	byIno   map[uint64]*node
	current map[sessfs.ID]*node // the life that LOOKUP hands out, of those in byIno
	idle    ring[*node]         // nodes in byIno without handles
	cold    coldNodes
}

func (t *nodeTable) init(s *names, m *handover.Memory) {
	t.names, t.memory = s, m
	t.byIno = make(map[uint64]*node)
	t.current = make(map[sessfs.ID]*node)
	t.idle.begin()
	t.cold.init(maxNodes-maxWarm, maxNodeBytes)
}

// get returns the node of an id that the kernel sent; nil: not known (any more).
func (t *nodeTable) get(ino uint64) *node {
	n := t.byIno[ino]
	if n == nil {
		if n = t.cold.take(ino); n == nil {
			n = t.remember(ino)
		}
		if n != nil {
			t.insert(n)
		}
	} else if n.place.in() {
		t.idle.front(&n.place)
	}
	return n
}

// remember returns a node that a former daemon of this mount has handed out.
func (t *nodeTable) remember(ino uint64) *node {
	id, life, ok := t.memory.Node(ino)
	if !ok || t.names.inode(id, life) != ino {
		return nil
	}
	return &node{ino: ino, id: id, n: life, reused: true, answered: unknownVersion}
}

// again returns the node that stands for n now. FS.mu was given up since n was got, and it may have gone cold or been
// dropped meanwhile.
func (t *nodeTable) again(n *node) *node {
	if now := t.get(n.ino); now != nil {
		return now
	}
	if !n.retired {
		t.insert(n)
	}
	return n
}

// of returns the node that LOOKUP and CREATE hand out for a name.
func (t *nodeTable) of(id sessfs.ID) *node {
	life := uint32(0)
	if n := t.current[id]; n != nil {
		if !n.retired {
			return t.get(n.ino)
		}
		life = n.n + 1
	}
	for ; ; life++ { // past retired lives that are open still, and names that meet in one hash
		ino := t.names.inode(id, life)
		n := t.get(ino)
		if n == nil {
			n = &node{ino: ino, id: id, n: life}
			t.insert(n)
		}
		if n.id == id && !n.retired {
			t.current[id] = n
			return n
		}
	}
}

// known returns the node that of would, if there is one already.
func (t *nodeTable) known(id sessfs.ID) *node {
	if n := t.current[id]; n != nil {
		return n
	}
	if n := t.get(t.names.inode(id, 0)); n != nil && n.id == id && !n.retired {
		return n
	}
	return nil
}

func (t *nodeTable) insert(n *node) {
	n.place.of = n
	t.byIno[n.ino] = n
	t.memory.PutNode(n.ino, n.id, n.n)
	if t.current[n.id] == nil {
		t.current[n.id] = n
	}
	t.rest(n)
}

// rest puts a node without handles in its place, and lets those go cold that were used least recently.
func (t *nodeTable) rest(n *node) {
	t.idle.front(&n.place)
	for t.idle.n > maxWarm {
		last := t.idle.last().of
		t.drop(last)
		t.cold.put(last)
	}
}

func (t *nodeTable) drop(n *node) {
	t.idle.remove(&n.place)
	delete(t.byIno, n.ino)
	if t.current[n.id] == n {
		delete(t.current, n.id)
	}
}

// retire notes that the life of a node is over, which is open still.
func (t *nodeTable) retire(n *node) {
	n.retired = true
	t.memory.RemoveNode(n.ino)
	for _, h := range n.handles {
		h.record.SetRetired()
	}
}

// opened pins n while h is open.
func (t *nodeTable) opened(n *node, h *handle) {
	n.handles = append(n.handles, h)
	t.idle.remove(&n.place)
}

func (t *nodeTable) closed(n *node, h *handle) {
	if i := slices.Index(n.handles, h); i >= 0 {
		n.handles = slices.Delete(n.handles, i, i+1)
	}
	if len(n.handles) > 0 || t.byIno[n.ino] != n {
		return
	}
	n.handles = nil
	if n.retired {
		// The name may have the first life again once no kernel inode of it is open: a retired id must not come
		// back to life under an open file, and it can't now.
		t.drop(n)
		return
	}
	t.rest(n)
}

// forget is the kernel's FORGET: it dropped its inode.
func (t *nodeTable) forget(ino, lookups uint64) {
	n := t.byIno[ino]
	if n == nil {
		t.cold.forget(ino, lookups)
		return
	}
	n.lookups -= min(lookups, n.lookups)
	if n.lookups == 0 && len(n.handles) == 0 {
		t.drop(n)
	}
}

// len is the number of nodes.
func (t *nodeTable) len() int { return len(t.byIno) + t.cold.len() }
