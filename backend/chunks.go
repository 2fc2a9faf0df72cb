package backend

import (
	"fmt"
	"time"

	"sessfs"
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

// putChunks stores data in chunks and waits until all are confirmed.
func (c *Cluster) putChunks(w wire, p place, r *record, data []byte, lifetime time.Duration, deadline time.Time) error {
	items := make([]keyValue, r.chunks())
	for i, key := range chunkKeys(c.prefix, r.version.Nonce, len(items)) {
		at := i * r.chunkSize
		items[i] = keyValue{key, data[at : at+r.chunkLen(i)]}
	}
	out, err := w.set(p.conn, items, exptime(lifetime+spare), deadline)
	if err != nil {
		return err
	}
	if out.code != codeStored {
		return c.refusal(p, out, len(data))
	}
	return nil
}

// session makes a snapshot of what stands under a session's key, with its chunks fetched.
func (c *Cluster) session(w wire, p place, it item, epoch uint64, deadline time.Time) (*sessfs.Session, error) {
	for {
		if !it.found {
			return &sessfs.Session{}, nil
		}
		r, err := p.decode(it)
		if err != nil {
			return nil, err
		}
		s := &sessfs.Session{State: r.state, Version: r.version, Attr: r.attr, Data: r.data,
			Ref: ref{epoch: epoch, cas: it.cas, nonce: r.version.Nonce, chunks: r.chunks()}}
		if r.state == sessfs.Live && r.data == nil {
			s.Data = []byte{}
		}
		if r.chunks() == 0 {
			return s, nil
		}
		data, why, err := c.fetchChunks(w, p, r, deadline)
		if err != nil {
			return nil, err
		}
		if why == "" {
			s.Data = data
			return s, nil
		}
		// The session may have been stored again since, which takes the old chunks away.
		items, now, err := w.get(p.conn, []string{p.data}, deadline)
		if err != nil {
			return nil, err
		}
		if items[0].found {
			if again, err := p.decode(items[0]); err == nil && again.version == r.version {
				return nil, p.damaged(why)
			}
		}
		it, epoch = items[0], now
	}
}

// fetchChunks puts the data of a manifest together; why it cannot is not an error of the server.
func (c *Cluster) fetchChunks(w wire, p place, r *record, deadline time.Time) (data []byte, why string, err error) {
	n := r.chunks()
	items, _, err := w.get(p.conn, chunkKeys(c.prefix, r.version.Nonce, n), deadline)
	if err != nil {
		return nil, "", err
	}
	for i, it := range items {
		if !it.found {
			return nil, fmt.Sprintf("a part is lost: %d of %d is not on the server any more", i+1, n), nil
		}
		if len(it.value) != r.chunkLen(i) {
			return nil, fmt.Sprintf("part %d of %d has %d bytes instead of %d", i+1, n, len(it.value), r.chunkLen(i)), nil
		}
	}
	data = make([]byte, 0, r.length)
	for _, it := range items {
		data = append(data, it.value...)
	}
	if dataSum(data) != r.sum {
		return nil, "the checksum of its data is wrong", nil
	}
	return data, "", nil
}

// decode takes the record of p's session apart.
func (p place) decode(it item) (*record, error) {
	r, err := decodeRecord(it.value)
	if err != nil {
		return nil, p.damaged(err.Error())
	}
	if r.id != p.id {
		return nil, p.damaged("foreign: it is another session's record")
	}
	return r, nil
}

func (p place) damaged(why string) error {
	return fmt.Errorf("the record of session %s on %s: %w: %s", p.id.Hash(), p.s.label, sessfs.ErrDamaged, why)
}

// dropChunks deletes the chunks of a record that is gone, at a time.
func (c *Cluster) dropChunks(p place, r ref, at time.Time) {
	if r.chunks == 0 {
		return
	}
	p.s.later(task{at: at, do: func(w wire, deadline time.Time) error {
		return w.drop(p.conn, chunkKeys(c.prefix, r.nonce, r.chunks), deadline)
	}})
}
