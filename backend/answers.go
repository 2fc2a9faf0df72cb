package backend

import (
	"bytes"
	"errors"
	"fmt"
	"net"
)

const (
	maxLine   = 2048     // bytes of the longest answer line
	readAhead = 32 << 10 // bytes that are read at once, but into a long value
)

// answers cuts what a server sends into lines and values. It allocates for values only, and beyond the first megabyte
// of one only as its bytes arrive: the length is the server's word.
type answers struct {
	limit      int // bytes of the largest value that is taken from the server
	buf        []byte
	start, end int // what of buf is not taken yet

	value []byte // not nil: a value is being read
	have  int    // bytes of it that are there
	size  int    // its length
	reply reply  // whose value it is
}

// room is where the next bytes are to be read to.
func (a *answers) room() []byte {
	if a.value != nil && a.start == a.end && a.size-a.have > readAhead {
		a.grow()
		return a.value[a.have:]
	}
	if a.buf == nil {
		a.buf = make([]byte, readAhead)
	}
	if a.start == a.end {
		a.start, a.end = 0, 0
	} else if len(a.buf)-a.end < maxLine {
		a.end = copy(a.buf, a.buf[a.start:a.end])
		a.start = 0
	}
	return a.buf[a.end:]
}

// grow makes room in value for bytes that are to come.
func (a *answers) grow() {
	const step = 1 << 20
	if a.have < len(a.value) {
		return
	}
	next := make([]byte, min(a.size, len(a.value)+max(step, len(a.value))))
	copy(next, a.value)
	a.value = next
}

// take notes that n bytes were read into room.
func (a *answers) take(n int) {
	if a.value != nil && a.start == a.end && a.size-a.have > readAhead {
		a.have += n
		return
	}
	a.end += n
}

// next returns the next line without its end, or, after expect, says that the value is complete (the line is nil then).
// The line is valid until the next call of room. Not ok: more must be read.
func (a *answers) next() (line []byte, ok bool, err error) {
	if a.value != nil {
		for a.have < a.size && a.start < a.end {
			a.grow()
			n := copy(a.value[a.have:], a.buf[a.start:a.end])
			a.start, a.have = a.start+n, a.have+n
		}
		if a.have < a.size || a.end-a.start < 2 {
			return nil, false, nil
		}
		if string(a.buf[a.start:a.start+2]) != "\r\n" {
			return nil, false, fmt.Errorf("%w: a value without end", errSurprise)
		}
		a.start += 2
		return nil, true, nil
	}
	i := bytes.IndexByte(a.buf[a.start:a.end], '\n')
	if i > maxLine || i < 0 && a.end-a.start > maxLine {
		return nil, false, fmt.Errorf("%w: a line without end", errSurprise)
	}
	if i < 0 {
		return nil, false, nil
	}
	line = a.buf[a.start : a.start+i]
	a.start += i + 1
	if i == 0 || line[i-1] != '\r' {
		return nil, false, fmt.Errorf("%w: %.40q", errSurprise, line)
	}
	return line[:i-1], true, nil
}

// expect begins the value of an answer.
func (a *answers) expect(r reply, size int) error {
	if size > a.limit {
		return fmt.Errorf("%w: a value of %d bytes, it takes %d at most", errSurprise, size, a.limit)
	}
	a.reply, a.size, a.have = r, size, 0
	a.value = make([]byte, min(size, 1<<20))
	return nil
}

// complete ends a value and returns its answer.
func (a *answers) complete() reply {
	r := a.reply
	r.item.value = a.value
	a.reply, a.value = reply{}, nil
	return r
}

// plainError leaves the addresses out of a network error, which change with every connection.
func plainError(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}
