package handover

import "sessfs"

// nodeRow is what a node id stood for. It is a cache as in a processor, with one place for each id; what is read from it
// is checked, since the id is a hash of name and life, so that a row may be half written.
type nodeRow struct {
	ino  uint64
	life uint32
	n    uint8
	name [51]byte
}

// PutNode notes the life of a name that a node id stands for. Names that are longer than PHP's are not noted.
func (m *Memory) PutNode(ino uint64, id sessfs.ID, life uint32) {
	if m == nil {
		return
	}
	r := &m.nodes[ino%maxNodes]
	if len(id) > len(r.name) || r.ino == ino {
		return
	}
	r.ino, r.life = ino, life
	r.n = uint8(copy(r.name[:], id))
}

// Node tells what a node id stood for. The caller checks it.
func (m *Memory) Node(ino uint64) (id sessfs.ID, life uint32, ok bool) {
	if m == nil {
		return "", 0, false
	}
	r := &m.nodes[ino%maxNodes]
	if r.ino != ino || int(r.n) > len(r.name) || !sessfs.ID(r.name[:r.n]).Valid() {
		return "", 0, false
	}
	return sessfs.ID(r.name[:r.n]), r.life, true
}

// RemoveNode forgets a node id whose life is over.
func (m *Memory) RemoveNode(ino uint64) {
	if m == nil {
		return
	}
	if r := &m.nodes[ino%maxNodes]; r.ino == ino {
		r.ino = 0
	}
}
