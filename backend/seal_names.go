package backend

import (
	"encoding/hex"
	"hash"
	"hash/maphash"
	"strings"
)

// Where sessions are sealed, ids do not stand in keys: in the place of a name comes "~" and the HMAC of it. Whoever uses
// the servers names sessions as ever; the keys are changed where commands are made for a server. During the introduction
// both kinds of names are in use. A list of servers with hashed names is another list than the same servers without (see
// lists.go), with a server of its own for each, and operations go to both as they do after every change of the list.
const (
	hashedMark = "~"
	hashedSize = 16 // bytes of the HMAC
	hashedLen  = len(hashedMark) + 2*hashedSize
)

// keys are a session's, by its name.
func (l *sealing) keys(name string) *hashedKeys {
	slot := &l.known[maphash.String(l.seed, name)%knownNames]
	if k := slot.Load(); k != nil && k.name == name {
		return k
	}
	h := l.namers.Get().(hash.Hash)
	defer l.namers.Put(h)
	h.Reset()
	h.Write([]byte(name))
	var sum [32]byte
	var text [hashedLen]byte
	copy(text[:], hashedMark)
	hex.Encode(text[len(hashedMark):], h.Sum(sum[:0])[:hashedSize])
	hashed := string(text[:])
	k := &hashedKeys{name: name, record: l.prefix + hashed, lock: l.prefix + lockMark + hashed, wait: l.prefix + waitMark + hashed}
	slot.Store(k)
	return k
}

// recordAt is the place of a record in the sense of its envelope, by its key on a server.
func (l *sealing) recordAt(key string) string {
	if l == nil {
		return ""
	}
	name := strings.TrimPrefix(key, l.prefix)
	if strings.HasPrefix(name, hashedMark) {
		return key
	}
	return l.keys(name).record
}

// key is how the server has what others call that.
func (s *server) key(key string) string {
	if s.hasher == nil {
		return key
	}
	prefix := s.cl.prefix
	name, ok := strings.CutPrefix(key, prefix)
	if !ok || name == "" {
		return key // no session's
	}
	switch name[:1] {
	case lockMark:
		if name = name[1:]; !strings.HasPrefix(name, hashedMark) {
			return s.hasher.keys(name).lock
		}
	case waitMark:
		if name = name[1:]; !strings.HasPrefix(name, hashedMark) {
			return s.hasher.keys(name).wait
		}
	case chunkMark, documentMark, hostsKey[:1], hashedMark:
	default:
		return s.hasher.keys(name).record
	}
	return key
}

// isRecordKey tells the key of a record on the server from others, by what follows the prefix.
func (s *server) isRecordKey(key string) bool {
	name, ok := strings.CutPrefix(key, s.cl.prefix)
	if s.hasher != nil {
		return ok && len(name) == hashedLen && strings.HasPrefix(name, hashedMark)
	}
	return ok && name != "" && (plain(name) || strings.HasPrefix(name, hashMark))
}
