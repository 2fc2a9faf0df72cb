package backend

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"unicode"
	"unicode/utf8"
)

// item is what a server has under a key.
type item struct {
	found bool
	value []byte
	cas   uint64
	flags uint32
	kept  *cached // what the host has of it, which is current: see cache
}

// code is the first word of an answer.
type code uint8

const (
	codeNone      code = iota
	codeValue          // VA, and HD to a get without value
	codeMiss           // EN
	codeDone           // HD to a delete
	codeExists         // EX, EXISTS
	codeNotFound       // NF, NOT_FOUND
	codeStored         // STORED
	codeNotStored      // NOT_STORED
	codeRefused        // SERVER_ERROR, with its words
	codeNoop           // MN
)

// reply is the answer to one command.
type reply struct {
	code  code
	item  item
	words string // of SERVER_ERROR
}

var errSurprise = errors.New("an answer that memcached does not give")

// parseReply takes the first line of an answer to c apart, without its CRLF. size is -1, or the length of the value that
// follows.
func parseReply(c command, line []byte) (r reply, size int, err error) {
	word, rest, _ := bytes.Cut(line, []byte(" "))
	size = -1
	surprise := func() (reply, int, error) {
		return reply{}, -1, fmt.Errorf("%w: %.40q to %s", errSurprise, line, c.verb)
	}
	if string(word) == "SERVER_ERROR" {
		return reply{code: codeRefused, words: shown(string(rest), 100)}, -1, nil
	}
	switch c.verb {
	case "mg":
		switch string(word) {
		case "VA":
			var length []byte
			length, rest, _ = bytes.Cut(rest, []byte(" "))
			n, ok := decimal(length)
			if !ok || n > math.MaxInt32 {
				return surprise()
			}
			r.code, r.item.found, size = codeValue, true, int(n)
		case "HD":
			r.code, r.item.found = codeValue, true
		case "EN":
			r.code = codeMiss
		default:
			return surprise()
		}
	case "md":
		switch string(word) {
		case "HD":
			r.code = codeDone
		case "EX":
			r.code = codeExists
		case "NF":
			r.code = codeNotFound
		default:
			return surprise()
		}
	case "mn":
		if string(line) != "MN" {
			return surprise()
		}
		return reply{code: codeNoop}, -1, nil
	default:
		switch string(line) {
		case "STORED":
			r.code = codeStored
		case "NOT_STORED":
			r.code = codeNotStored
		case "EXISTS":
			r.code = codeExists
		case "NOT_FOUND":
			r.code = codeNotFound
		default:
			return surprise()
		}
		return r, -1, nil
	}
	opaque := uint64(0)
	for len(rest) > 0 {
		var f []byte
		f, rest, _ = bytes.Cut(rest, []byte(" "))
		if len(f) == 0 {
			continue
		}
		if f[0] != 'c' && f[0] != 'f' && f[0] != 'O' {
			continue
		}
		v, ok := decimal(f[1:])
		if !ok {
			return surprise()
		}
		switch f[0] {
		case 'c':
			if v == 0 { // no item has that; as a condition it may mean none
				return surprise()
			}
			r.item.cas = v
		case 'f':
			if v > math.MaxUint32 {
				return surprise()
			}
			r.item.flags = uint32(v)
		case 'O':
			opaque = v
		}
	}
	if opaque != c.opaque {
		return reply{}, -1, fmt.Errorf("%w: the answer to another command (%d instead of %d)", errSurprise, opaque, c.opaque)
	}
	return r, size, nil
}

// shown is a server's text as it may stand in a log and on a terminal, of so many bytes at most.
func shown(text string, most int) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(text[:min(len(text), most)], "?"))
}

// decimal reads a decimal number without a sign.
func decimal(b []byte) (n uint64, ok bool) {
	for _, c := range b {
		if c < '0' || c > '9' || n > (math.MaxUint64-9)/10 {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n, len(b) > 0
}
