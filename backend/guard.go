package backend

import (
	"bytes"
	"fmt"
	"strconv"
)

// lengthGuard follows the answers that gomemcache reads and stops at a value longer than the server's items can be:
// gomemcache allocates whatever length it is told, up to 4 GiB.
type lengthGuard struct {
	limit int
	line  []byte // an unfinished line, or what matters of it
	skip  int    // bytes of a value still to come
}

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
		f := bytes.Fields(g.line)
		g.line = g.line[:0]
		if len(f) < 4 || string(f[0]) != "VALUE" {
			continue
		}
		n, err := strconv.ParseUint(string(f[3]), 10, 63)
		if err != nil || n > uint64(g.limit) {
			return fmt.Errorf("%w: a value of %.20s bytes, it takes %d at most", errSurprise, f[3], g.limit)
		}
		g.skip = int(n) + 2
	}
	return nil
}
