package backend

import (
	"fmt"
	"time"
)

// itemOverhead is what an item takes of item_size_max beside key and value, with room to spare: 50 to 60 bytes here,
// more with larger pages.
const itemOverhead = 512

// room is how many bytes of value an item of the server can hold under a key.
func (in *info) room(keyLen int) int { return in.itemMax - itemOverhead - keyLen }

// chunkRoom is the chunk size for a server: the longest chunk key counts.
func (c *Cluster) chunkRoom(in *info) int { return in.room(len(chunkKey(c.prefix, 0, maxChunks))) }

// spare is how much longer chunks live than their manifest, which is stored after them.
const spare = time.Minute

// partsSeen is with which cas the chunks of a record were seen on a server.
type partsSeen struct {
	s     *server
	epoch uint64
	cas   []uint64 // nil: not known
}

// putChunks stores data in chunks on a server and waits until all are confirmed.
func (c *Cluster) putChunks(s *server, p place, r *record, data []byte, lifetime time.Duration, deadline time.Time) (partsSeen, error) {
	at := partsSeen{s: s}
	w, err := s.wire(deadline)
	if err != nil {
		return at, err
	}
	l := c.seal.Load()
	items := make([]keyValue, r.chunks())
	for i, key := range chunkKeys(c.prefix, r.version.Nonce, len(items)) {
		from := i * r.chunkSize
		value := data[from : from+r.chunkLen(i)]
		if l.hashes() {
			value = l.seal(chunkKind, key, value)
		}
		items[i] = keyValue{key, value}
	}
	out, err := w.set(p.conn, items, exptime(lifetime+spare), deadline)
	if err != nil {
		return at, err
	}
	if out.code != codeStored {
		return at, c.refusal(p.id, s, out, len(data))
	}
	at.epoch, at.cas = out.epoch, out.parts
	return at, nil
}

// fetchChunks puts the data of a manifest together; why it cannot is not an error of the server.
func (c *Cluster) fetchChunks(s *server, conn int, r *record, deadline time.Time) (data []byte, at partsSeen, why string, err error) {
	at.s = s
	w, err := s.wire(deadline)
	if err != nil {
		return nil, at, "", err
	}
	l, keys := c.seal.Load(), chunkKeys(c.prefix, r.version.Nonce, r.chunks())
	items, epoch, err := w.getWithin(conn, keys, 2*r.length+len(keys)*sealOverhead, deadline)
	if err != nil {
		return nil, at, "", err
	}
	at.epoch = epoch
	for i := range items {
		at.cas = append(at.cas, items[i].cas)
		if !items[i].found {
			continue
		}
		if items[i].value, _, err = l.open(chunkKind, keys[i], items[i].value); err != nil {
			c.brokenSeal(r.id, s, err)
			return nil, at, fmt.Sprintf("part %d of %d: %v", i+1, len(keys), err), nil
		}
	}
	data, why = r.assemble(items)
	return data, at, why, nil
}

// assemble puts the data of a manifest together from its chunks, or tells why it cannot.
func (r *record) assemble(items []item) (data []byte, why string) {
	for i, it := range items {
		if !it.found {
			return nil, fmt.Sprintf("a part is lost: %d of %d is not on the server any more", i+1, len(items))
		}
		if len(it.value) != r.chunkLen(i) {
			return nil, fmt.Sprintf("part %d of %d has %d bytes instead of %d", i+1, len(items), len(it.value), r.chunkLen(i))
		}
	}
	data = make([]byte, 0, r.length)
	for _, it := range items {
		data = append(data, it.value...)
	}
	if dataSum(data) != r.sum {
		return nil, "the checksum of its data is wrong"
	}
	return data, ""
}

// dropChunks deletes the chunks of a record that is gone from a server, at a time.
func (c *Cluster) dropChunks(s *server, p place, r ref, at time.Time) {
	if r.chunks == 0 {
		return
	}
	s.later(task{at: at, do: func(w wire, deadline time.Time) error {
		return w.drop(p.conn, chunkKeys(c.prefix, r.nonce, r.chunks), deadline)
	}})
}
