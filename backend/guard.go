package backend

import (
	"bytes"
	"fmt"
	"strconv"
)

// lengthGuard follows the answers that gomemcache reads and stops at a value longer than the server's items can be:
// gomemcache allocates whatever length it is told, up to 4 GiB. So it stops, too, at a line that begins like a value's and
// is none to the letter, which the two might read differently; and at what comes behind an answer, which gomemcache would
// take for the next one's.
type lengthGuard struct {
	limit  int
	line   []byte // an unfinished line, or what matters of it
	skip   int    // bytes of a value still to come
	asking bool   // a question has not its whole answer yet
	values int    // in the answer
	got    int    // bytes in them
}

// asked notes that a question was sent.
func (g *lengthGuard) asked() { g.asking, g.values, g.got = true, 0, 0 }

const guardLine = 512 // bytes of a line that matter: a key, three numbers

func (g *lengthGuard) see(b []byte) error {
	for len(b) > 0 {
		if g.skip > 0 {
			n := min(g.skip, len(b))
			g.skip -= n
			b = b[n:]
			continue
		}
		end := bytes.IndexByte(b, '\n')
		part := b
		if end >= 0 {
			part = b[:end+1]
		}
		b = b[len(part):]
		g.line = append(g.line, part[:min(len(part), guardLine-len(g.line))]...)
		if end < 0 {
			return nil
		}
		n, isValue, err := g.length(g.line)
		g.line = g.line[:0]
		if err != nil {
			return err
		}
		if !g.asking {
			return fmt.Errorf("%w: more than was asked for", errSurprise)
		}
		g.asking = isValue
		if isValue {
			g.skip = n + 2
			g.values, g.got = g.values+1, g.got+n
			if g.values > maxChunks || g.got > 2*classicRoom+g.limit {
				return fmt.Errorf("%w: %d values of %d bytes in an answer", errSurprise, g.values, g.got)
			}
		}
	}
	return nil
}

// length is that of the value that follows "VALUE key flags length [cas]".
func (g *lengthGuard) length(line []byte) (n int, isValue bool, err error) {
	if !bytes.HasPrefix(line, []byte("VALUE")) {
		return 0, false, nil
	}
	text, ended := bytes.CutSuffix(line, []byte("\r\n"))
	f := bytes.Split(text, []byte(" "))
	if !ended || len(f) < 4 || len(f) > 5 || len(f[0]) != len("VALUE") {
		return 0, false, fmt.Errorf("%w: %.40q", errSurprise, line)
	}
	long, err := strconv.ParseUint(string(f[3]), 10, 63)
	if err != nil || long > uint64(g.limit) {
		return 0, false, fmt.Errorf("%w: a value of %.20q bytes, it takes %d at most", errSurprise, f[3], g.limit)
	}
	return int(long), true, nil
}
