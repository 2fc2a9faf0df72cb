package fusefs

import (
	"container/list"

	"sessfs"
)

// maxNodes bounds the table of nodes that nobody has open. The kernel forgets inodes only under memory pressure, and
// cookies are chosen by attackers; a node id that fell out is answered with ESTALE and looked up again.
const maxNodes = 131072

// node is what the kernel knows as one inode: the nth life of a name. Guarded by FS.mu.
type node struct {
	ino        uint64
	id         sessfs.ID
	n          uint32
	lookups    uint64               // how often the kernel was told, less what it forgot
	entryUntil int64                // Boottime until which the kernel may hold a valid entry; 0: it holds none
	retired    bool                 // the session was unlinked or destroyed while it was open: new openers get n+1
	handles    map[*handle]struct{} // open here
	answered   sessfs.Version       // of the attributes that the kernel may still reuse
	reusable   int64                // Boottime until which it may
	elem       *list.Element        // place in the table's order; nil while open
}

type nodeTable struct {
	names   *names
	byIno   map[uint64]*node
	current map[sessfs.ID]*node // the life that LOOKUP hands out
	idle    *list.List          // nodes without handles, the most recently used first
}

func (t *nodeTable) init(s *names) {
	t.names = s
	t.byIno = make(map[uint64]*node)
	t.current = make(map[sessfs.ID]*node)
	t.idle = list.New()
}

// get returns the node of an id that the kernel sent; nil: not known (any more).
func (t *nodeTable) get(ino uint64) *node {
	n := t.byIno[ino]
	if n != nil && n.elem != nil {
		t.idle.MoveToFront(n.elem)
	}
	return n
}

// of returns the node that LOOKUP and CREATE hand out for a name.
func (t *nodeTable) of(id sessfs.ID) *node {
	if n := t.current[id]; n != nil {
		if !n.retired {
			if n.elem != nil {
				t.idle.MoveToFront(n.elem)
			}
			return n
		}
		return t.add(id, n.n+1)
	}
	return t.add(id, 0)
}

func (t *nodeTable) add(id sessfs.ID, life uint32) *node {
	n := &node{id: id, n: life}
	for {
		n.ino = t.names.inode(id, n.n)
		if t.byIno[n.ino] == nil {
			break
		}
		n.n++ // a retired life still open, or two names in one hash
	}
	t.byIno[n.ino] = n
	t.current[id] = n
	n.elem = t.idle.PushFront(n)
	for t.idle.Len() > maxNodes {
		t.drop(t.idle.Back().Value.(*node))
	}
	return n
}

func (t *nodeTable) drop(n *node) {
	if n.elem != nil {
		t.idle.Remove(n.elem)
		n.elem = nil
	}
	delete(t.byIno, n.ino)
	if t.current[n.id] == n {
		delete(t.current, n.id)
	}
}

// opened pins n while h is open.
func (t *nodeTable) opened(n *node, h *handle) {
	if n.handles == nil {
		n.handles = make(map[*handle]struct{}, 1)
	}
	n.handles[h] = struct{}{}
	if n.elem != nil {
		t.idle.Remove(n.elem)
		n.elem = nil
	}
}

func (t *nodeTable) closed(n *node, h *handle) {
	delete(n.handles, h)
	if len(n.handles) > 0 || n.elem != nil {
		return
	}
	if n.retired {
		// The name may have the first life again once no kernel inode of it is open: a retired id must not come
		// back to life under an open file, and it can't now.
		t.drop(n)
		return
	}
	n.elem = t.idle.PushFront(n)
}

// forget is the kernel's FORGET: it dropped its inode.
func (t *nodeTable) forget(ino, lookups uint64) {
	n := t.byIno[ino]
	if n == nil {
		return
	}
	n.lookups -= min(lookups, n.lookups)
	if n.lookups == 0 && len(n.handles) == 0 {
		t.drop(n)
	}
}
