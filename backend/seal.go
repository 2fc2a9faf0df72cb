package backend

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
)

// What is sealed on the servers can neither be read nor altered nor put in another place by those who have no key: it is
// encrypted and authenticated with AES-256-GCM. An envelope is
//
//	0  magic "SSFX"     4  format 1     5  the key's mark (4)     9  salt (24)     33  ciphertext and tag (16)
//
// Each one has a key of its own, the HMAC-SHA256 of its salt under the secret that the configured key names, so GCM's
// nonce is always zero: two envelopes share a salt of 192 random bits never, and the number of them has no limit. The
// additional data is the kind and the place of what is in it: of a record the prefix and the hash of the session's id, so
// that all copies of a session are alike, whatever list they are on (see seal_names.go); of all else its key.
const (
	sealMagic    = "SSFX"
	sealFormat   = 1
	sealSalt     = 24
	sealHeader   = len(sealMagic) + 1 + 4 + sealSalt
	sealOverhead = sealHeader + 16
)

// The kinds of what is sealed.
const (
	recordKind   = "record"
	chunkKind    = "chunk"
	documentKind = "document"
)

// SealKey is a secret that seals sessions. The names secret, by which ids are hashed, is the same in all keys that are
// used together and one after the other: hosts must agree on where a session's lock is.
type SealKey struct {
	Name   string
	secret [32]byte
	names  [32]byte
	mark   [4]byte    // how it stands in an envelope
	macs   *sync.Pool // of hash.Hash, keyed by the secret
}

// SealKeySize is the length in bytes of a secret.
const SealKeySize = 32

// sealKeyWord begins the text of a key that has both secrets.
const sealKeyWord = "sessfs-seal-1:"

// NewSealKey makes the text of a new key. One that is made like another can take its place one day.
func NewSealKey(like *SealKey) string {
	both := make([]byte, 2*SealKeySize)
	rand.Read(both)
	if like != nil {
		copy(both[SealKeySize:], like.names[:])
	}
	return sealKeyWord + base64.StdEncoding.EncodeToString(both) + "\n"
}

// ParseSealKey reads the text of a key: what NewSealKey made, or 32 random bytes in base64 or hex, whose names secret is
// derived from them. The error tells nothing of the text.
func ParseSealKey(name string, text []byte) (*SealKey, error) {
	k := &SealKey{Name: name}
	word := string(bytes.TrimSpace(text))
	if rest, ok := strings.CutPrefix(word, sealKeyWord); ok {
		both, err := base64.StdEncoding.DecodeString(rest)
		if err != nil || len(both) != 2*SealKeySize {
			return nil, fmt.Errorf("it is cut or altered: %d characters behind %s, %d are expected", len(rest), sealKeyWord, base64.StdEncoding.EncodedLen(2*SealKeySize))
		}
		copy(k.secret[:], both)
		copy(k.names[:], both[SealKeySize:])
	} else {
		secret, err := decodeSecret(word)
		if err != nil {
			return nil, err
		}
		copy(k.secret[:], secret)
		copy(k.names[:], derive(k.secret[:], "sessfs names", SealKeySize))
	}
	copy(k.mark[:], derive(k.secret[:], "sessfs mark", len(k.mark)))
	k.macs = &sync.Pool{New: func() any { return hmac.New(sha256.New, k.secret[:]) }}
	return k, nil
}

func decodeSecret(word string) ([]byte, error) {
	var secret []byte
	if _, err := fmt.Sscanf(word, "%x", &secret); err == nil && len(word) == 2*SealKeySize && len(secret) == SealKeySize {
		return secret, nil
	}
	if secret, err := base64.StdEncoding.DecodeString(word); err == nil && len(secret) == SealKeySize {
		return secret, nil
	}
	return nil, errors.New("it is no key: make one with sessfs seal key, or write 32 random bytes in base64 (openssl rand -base64 32)")
}

// derive cannot fail: the lengths are ours.
func derive(secret []byte, label string, n int) []byte {
	b, err := hkdf.Key(sha256.New, secret, nil, label, n)
	if err != nil {
		panic(err)
	}
	return b
}

// Seal says how sessions are sealed.
type Seal struct {
	Keys        []*SealKey // the first one seals, all open
	AcceptPlain bool       // what is not sealed is read, too
	WritePlain  bool       // nothing is sealed yet: some hosts have no keys
}

// Check tells why the keys cannot be used together.
func (o *Seal) Check() error {
	if len(o.Keys) == 0 {
		return errors.New("no key is named")
	}
	for i, k := range o.Keys {
		for _, before := range o.Keys[:i] {
			switch {
			case before.Name == k.Name:
				return fmt.Errorf("two keys are named %q", k.Name)
			case before.mark == k.mark:
				return fmt.Errorf("the keys %q and %q are the same", before.Name, k.Name)
			case before.names != k.names:
				return fmt.Errorf("the keys %q and %q give sessions different names on the servers, so hosts could not agree on locks: make the new one with sessfs seal key --like FILE-OF-THE-OLD NEW-FILE", before.Name, k.Name)
			}
		}
	}
	return nil
}

// sealing is a Seal in use.
type sealing struct {
	Seal
	prefix string
	namers sync.Pool // of hash.Hash, keyed by the names secret
	seed   maphash.Seed
	known  [knownNames]atomic.Pointer[hashedKeys] // of names that were hashed lately, by their own hash
}

// knownNames is how many of them are kept: a request needs those of one session some ten times.
const knownNames = 256

// hashedKeys are a session's on the servers.
type hashedKeys struct{ name, record, lock, wait string }

func newSealing(o *Seal, prefix string) *sealing {
	names := o.Keys[0].names
	return &sealing{Seal: *o, prefix: prefix, seed: maphash.MakeSeed(), namers: sync.Pool{New: func() any { return hmac.New(sha256.New, names[:]) }}}
}

// hashes tells whether this host's own list has hashed names.
func (l *sealing) hashes() bool { return l != nil && !l.WritePlain }

// aead is the cipher of one envelope.
func (k *SealKey) aead(salt []byte) cipher.AEAD {
	mac := k.macs.Get().(hash.Hash)
	mac.Reset()
	mac.Write(salt)
	var sum [sha256.Size]byte
	own := mac.Sum(sum[:0])
	k.macs.Put(mac)
	block, err := aes.NewCipher(own)
	if err == nil {
		var a cipher.AEAD
		if a, err = cipher.NewGCM(block); err == nil {
			return a
		}
	}
	panic(err) // the key has 32 bytes
}

var zeroNonce [12]byte

// seal puts some bytes, one after the other, into an envelope.
func (l *sealing) seal(kind, at string, parts ...[]byte) []byte {
	n := sealOverhead
	for _, p := range parts {
		n += len(p)
	}
	b := envelope(n)[:sealHeader]
	copy(b, sealMagic)
	b[4] = sealFormat
	k := l.Keys[0]
	copy(b[5:], k.mark[:])
	rand.Read(b[sealHeader-sealSalt:])
	for _, p := range parts {
		b = append(b, p...)
	}
	return k.aead(b[sealHeader-sealSalt:sealHeader]).Seal(b[:sealHeader], zeroNonce[:], b[sealHeader:], bound(kind, at, b))
}

// envelopes are those whose bytes nobody needs any more, as *[]byte: fresh memory for one of 64 kB takes half as long as its
// cipher.
var envelopes sync.Pool

// envelope returns an empty one with room for n bytes.
func envelope(n int) []byte {
	if b, _ := envelopes.Get().(*[]byte); b != nil && cap(*b) >= n && cap(*b) <= 2*n {
		return (*b)[:0]
	}
	return make([]byte, 0, n)
}

// reuseAbove is how large an envelope is that is worth keeping, in bytes.
const reuseAbove = 16 << 10

// reuse takes back an envelope that seal has made, when all whom it was given to are done with it.
func reuse(b []byte) {
	if cap(b) >= reuseAbove {
		envelopes.Put(&b)
	}
}

// bound is the additional data of an envelope: its header is a part of it.
func bound(kind, at string, b []byte) []byte {
	list := make([]byte, 0, len(kind)+1+len(at)+1+5)
	list = append(append(append(append(list, kind...), 0), at...), 0)
	return append(list, b[:5]...)
}

// isSealed tells an envelope by how it begins.
func isSealed(b []byte) bool { return bytes.HasPrefix(b, []byte(sealMagic)) }

// The reasons for which an envelope is not opened, as they are counted.
type sealError struct{ reason, text string }

func (e *sealError) Error() string { return e.text }

var (
	errPlain    = &sealError{"plain", "it is not sealed, and seal.accept_plain is off"}
	errNoKeys   = &sealError{"no_keys", "it is sealed, and this host has no seal.keys"}
	errKey      = &sealError{"key", "it is sealed with a key that is none of seal.keys"}
	errAltered  = &sealError{"altered", "it was altered, or put in the place of something else: its seal is broken"}
	errEnvelope = &sealError{"altered", "cut: its seal is not whole"}
	errOlder    = &sealError{"rolled_back", "it is older than what this host has seen: an old value was put back, or servers lost the newer one"}
)

// open returns what is in an envelope, and with which key it was sealed; what is not sealed only where that is accepted,
// without a key. A nil sealing opens nothing.
func (l *sealing) open(kind, at string, b []byte) ([]byte, *SealKey, error) {
	switch sealed := isSealed(b); {
	case l == nil && sealed:
		return nil, nil, errNoKeys
	case l == nil, !sealed && l.AcceptPlain:
		return b, nil, nil
	case !sealed:
		return nil, nil, errPlain
	}
	if len(b) < sealOverhead || b[4] != sealFormat {
		return nil, nil, errEnvelope
	}
	for _, k := range l.Keys {
		if !bytes.Equal(k.mark[:], b[5:5+len(k.mark)]) {
			continue
		}
		plain, err := k.aead(b[sealHeader-sealSalt:sealHeader]).Open(nil, zeroNonce[:], b[sealHeader:], bound(kind, at, b))
		if err != nil {
			return nil, nil, errAltered
		}
		return plain, k, nil
	}
	return nil, nil, errKey
}

// overhead is how much longer a value gets by its envelope.
func (l *sealing) overhead() int {
	if l.hashes() {
		return sealOverhead
	}
	return 0
}
