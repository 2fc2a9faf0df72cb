package backend

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
)

// item is what a server has under a key.
type item struct {
	found bool
	value []byte
	cas   uint64
	flags uint32
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

// command is what the reader must know of a command to take its answer.
type command struct {
	verb   string
	opaque uint64 // 0: the command has none
}

// segment is a part of what is written; after a cut one, a new Write begins. memcached before 1.6.39 sleeps when the end
// of a payload and the next command come in one TLS record.
type segment struct {
	b   []byte
	cut bool
}

// batch is some commands that are sent together on one connection, and their answers.
type batch struct {
	segments []segment
	commands []command
	repeat   bool // doing it twice does no harm

	replies []reply // guarded by the connection's mu until done
	written bool    // guarded by the connection's mu until done
	err     error   // guarded by the connection's mu until done
	done    chan struct{}
	after   func(*batch) // instead of done: nobody waits; must not block
}

var opaques atomic.Uint64

func newBatch() *batch { return &batch{done: make(chan struct{}, 1)} }

func (b *batch) line(verb string, opaque uint64, line []byte) {
	b.segments = append(b.segments, segment{b: line})
	b.commands = append(b.commands, command{verb, opaque})
}

// get asks for key with the given flags ("v c").
func (b *batch) get(key, flags string) {
	o := opaques.Add(1)
	line := make([]byte, 0, len(key)+len(flags)+32)
	line = append(line, "mg "...)
	line = append(line, key...)
	line = append(line, ' ')
	line = append(line, flags...)
	b.line("mg", o, appendOpaque(line, o))
}

// delete deletes key if its cas is still that.
func (b *batch) delete(key string, cas uint64) {
	o := opaques.Add(1)
	line := append(append(append([]byte("md "), key...), " C"...), strconv.FormatUint(cas, 10)...)
	b.line("md", o, appendOpaque(line, o))
}

// drop deletes key whatever it is: for keys that nobody uses twice.
func (b *batch) drop(key string) {
	o := opaques.Add(1)
	b.line("md", o, appendOpaque(append([]byte("md "), key...), o))
}

func (b *batch) noop() { b.line("mn", 0, []byte("mn\r\n")) }

func appendOpaque(line []byte, o uint64) []byte {
	return append(strconv.AppendUint(append(line, " O"...), o, 10), "\r\n"...)
}

// store is add, set or cas of a value in up to two parts. With cut nothing is written together with the value's end.
func (b *batch) store(verb, key string, flags uint32, exptime int64, cas uint64, head, body []byte, cut bool) {
	line := fmt.Appendf(make([]byte, 0, len(key)+64+len(head)), "%s %s %d %d %d", verb, key, flags, exptime, len(head)+len(body))
	if verb == "cas" {
		line = strconv.AppendUint(append(line, ' '), cas, 10)
	}
	line = append(append(line, "\r\n"...), head...)
	b.line(verb, 0, line)
	if len(body) > 0 {
		b.segments = append(b.segments, segment{b: body})
	}
	b.segments = append(b.segments, segment{b: []byte("\r\n"), cut: cut})
}

// reset makes b ready to be sent again.
func (b *batch) reset() { b.replies, b.written, b.err = nil, false, nil }

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
		return reply{code: codeRefused, words: fmt.Sprintf("%.100s", bytes.ToValidUTF8(rest, []byte("?")))}, -1, nil
	}
	switch c.verb {
	case "mg":
		switch string(word) {
		case "VA":
			var length []byte
			length, rest, _ = bytes.Cut(rest, []byte(" "))
			n, err := strconv.ParseUint(string(length), 10, 31)
			if err != nil {
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
	for _, f := range bytes.Fields(rest) {
		v, err := uint64(0), error(nil)
		switch f[0] {
		case 'c', 'f', 'O':
			v, err = strconv.ParseUint(string(f[1:]), 10, 64)
		}
		if err != nil {
			return surprise()
		}
		switch f[0] {
		case 'c':
			r.item.cas = v
		case 'f':
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
