package backend

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"sessfs"
)

// A record is what stands under a session's key: a header of headerSize bytes, the id, the servers that it was sent to (4
// bytes each, see mark32), and the data or nothing. All numbers are big-endian.
//
//	 0  magic "SSFS"        4  format 1         5  state            6  length of the id (2)
//	 8  counter (8)        16  nonce (8)       24  uid (4)         28  gid (4)
//	32  mode (4)           36  chunk size (4; 0: the data stands in the record)
//	40  atime (8)          48  mtime (8)       56  ctime (8)       64  length of the data (8)
//	72  CRC-32C of the data, wherever it stands (4)
//	76  number of servers       77  zero (3)
//	80  CRC-32C of the header before this, the id and the servers (4)
const (
	recordMagic  = "SSFS"
	recordFormat = 2
	headerSize   = 84

	stateLive      = 1
	stateTombstone = 2

	maxData   = 1 << 30 // bytes of one session, whatever a record says
	maxChunks = 1 << 17
	maxWhere  = 255
	minChunk  = 256 // bytes; a smaller chunk size is not ours
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// record is a decoded header, with the data where it stands in the record.
type record struct {
	id        sessfs.ID
	state     sessfs.State
	version   sessfs.Version
	attr      sessfs.Attr
	length    int // bytes of data
	chunkSize int // 0: inline
	sum       uint32
	where     []uint32 // the servers it was sent to
	data      []byte   // nil in manifests and tombstones
}

// prefix is what stands before the data.
func (r *record) prefix() int { return headerSize + len(r.id) + 4*len(r.where) }

// chunks is how many chunk items hold the data.
func (r *record) chunks() int {
	if r.chunkSize == 0 {
		return 0
	}
	return (r.length + r.chunkSize - 1) / r.chunkSize
}

// chunkLen is the length of chunk i.
func (r *record) chunkLen(i int) int { return min(r.chunkSize, r.length-i*r.chunkSize) }

// encode returns the header with the id; the data follows it on the wire where it is inline.
func (r *record) encode() []byte {
	b := make([]byte, r.prefix())
	copy(b, recordMagic)
	b[4], b[5] = recordFormat, stateLive
	if r.state == sessfs.Destroyed {
		b[5] = stateTombstone
	}
	be := binary.BigEndian
	be.PutUint16(b[6:], uint16(len(r.id)))
	be.PutUint64(b[8:], r.version.Counter)
	be.PutUint64(b[16:], r.version.Nonce)
	be.PutUint32(b[24:], r.attr.UID)
	be.PutUint32(b[28:], r.attr.GID)
	be.PutUint32(b[32:], r.attr.Mode)
	be.PutUint32(b[36:], uint32(r.chunkSize))
	be.PutUint64(b[40:], uint64(r.attr.Atime))
	be.PutUint64(b[48:], uint64(r.attr.Mtime))
	be.PutUint64(b[56:], uint64(r.attr.Ctime))
	be.PutUint64(b[64:], uint64(r.length))
	be.PutUint32(b[72:], r.sum)
	b[76] = byte(len(r.where))
	at := headerSize + copy(b[headerSize:], r.id)
	for _, w := range r.where {
		be.PutUint32(b[at:], w)
		at += 4
	}
	be.PutUint32(b[80:], headerSum(b))
	return b
}

// headerSum covers all before the data.
func headerSum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:80], castagnoli), castagnoli, b[headerSize:prefixOf(b)])
}

// prefixOf is what a header says about the length of what stands before the data.
func prefixOf(b []byte) int {
	return headerSize + int(binary.BigEndian.Uint16(b[6:])) + 4*int(b[76])
}

func dataSum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// decodeRecord takes a value apart. The error says why it is not a record; it names no id. The record's data is a
// part of b, and is checked against its checksum unless a seal has vouched for it.
func decodeRecord(b []byte, check bool) (*record, error) {
	be := binary.BigEndian
	switch {
	case len(b) < headerSize:
		return nil, fmt.Errorf("cut: %d bytes, a header has %d", len(b), headerSize)
	case string(b[:4]) != recordMagic:
		return nil, errors.New("foreign: it does not begin like a session record")
	case b[4] != recordFormat:
		return nil, fmt.Errorf("its format is %d, this program knows %d", b[4], recordFormat)
	}
	idEnd, end := headerSize+int(be.Uint16(b[6:])), prefixOf(b)
	if len(b) < end {
		return nil, fmt.Errorf("cut: %d bytes, header and id have %d", len(b), end)
	}
	if headerSum(b) != be.Uint32(b[80:]) {
		return nil, errors.New("the checksum of its header is wrong")
	}
	length, chunk := be.Uint64(b[64:]), be.Uint32(b[36:])
	if length > maxData || chunk > maxData || (chunk != 0 && (chunk < minChunk || length/uint64(chunk) >= maxChunks)) {
		return nil, fmt.Errorf("impossible sizes: %d bytes in chunks of %d", length, chunk)
	}
	r := &record{id: sessfs.ID(b[headerSize:idEnd]), state: sessfs.Live,
		version: sessfs.Version{Counter: be.Uint64(b[8:]), Nonce: be.Uint64(b[16:])},
		length:  int(length), chunkSize: int(chunk), sum: be.Uint32(b[72:])}
	if !r.id.Valid() {
		return nil, errors.New("its id cannot be a file's name")
	}
	for at := idEnd; at < end; at += 4 {
		r.where = append(r.where, be.Uint32(b[at:]))
	}
	rest := b[end:]
	switch b[5] {
	case stateTombstone:
		r.state = sessfs.Destroyed
		r.attr.Ctime = int64(be.Uint64(b[56:]))
		if len(rest) != 0 || length != 0 || chunk != 0 {
			return nil, errors.New("a tombstone with data")
		}
		return r, nil
	case stateLive:
	default:
		return nil, fmt.Errorf("unknown state %d", b[5])
	}
	r.attr = sessfs.Attr{UID: be.Uint32(b[24:]), GID: be.Uint32(b[28:]), Mode: be.Uint32(b[32:]) & 0o7777,
		Atime: int64(be.Uint64(b[40:])), Mtime: int64(be.Uint64(b[48:])), Ctime: int64(be.Uint64(b[56:]))}
	if chunk != 0 {
		if len(rest) != 0 {
			return nil, fmt.Errorf("%d bytes behind a manifest", len(rest))
		}
		return r, nil
	}
	if len(rest) != r.length {
		return nil, fmt.Errorf("cut: %d bytes of data, the header says %d", len(rest), r.length)
	}
	if check && dataSum(rest) != r.sum {
		return nil, errors.New("the checksum of its data is wrong")
	}
	r.data = rest
	return r, nil
}
