package backend

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"sessfs"
)

const (
	defaultItemMax = 1 << 20
	maxItemMax     = 128 << 20 // a server that claims more is not believed
	minItemMax     = 4 << 10
	classicItemMax = 16 << 20 // without meta commands: gomemcache allocates a value before it comes
	maxAnswerLines = 1000
)

// plainConn is a connection used by one goroutine, line by line: for probing, figures and listings.
type plainConn struct {
	nc net.Conn
	r  *bufio.Reader
}

func (s *server) plain(ctx context.Context) (*plainConn, error) {
	nc, err := s.dial(ctx)
	if err != nil {
		return nil, err
	}
	if d, ok := ctx.Deadline(); ok {
		nc.SetDeadline(d)
	}
	return &plainConn{nc: nc, r: bufio.NewReaderSize(nc, 64<<10)}, nil
}

func (p *plainConn) send(format string, args ...any) error {
	_, err := fmt.Fprintf(p.nc, format, args...)
	if err != nil && isTimeout(err) {
		return errTimeout
	}
	return plainError(err)
}

// line reads a line without its end, which is a bare LF in a metadump.
func (p *plainConn) line() (string, error) {
	b, err := p.r.ReadSlice('\n')
	switch {
	case err == nil && len(b) > maxLine:
		err = fmt.Errorf("%w: a line of %d bytes", errSurprise, len(b))
	case errors.Is(err, io.EOF):
		err = errClosed
	case errors.Is(err, bufio.ErrBufferFull):
		err = fmt.Errorf("%w: a line without end", errSurprise)
	case err != nil && isTimeout(err):
		err = errTimeout
	}
	return string(bytes.TrimRight(b, "\r\n")), plainError(err)
}

// stats reads the answer to a stats command.
func (p *plainConn) stats(what string) (map[string]string, error) {
	if err := p.send("stats%s\r\n", what); err != nil {
		return nil, err
	}
	m := make(map[string]string)
	for range maxAnswerLines {
		l, err := p.line()
		if err != nil {
			return nil, err
		}
		if l == "END" {
			return m, nil
		}
		if strings.HasPrefix(l, "ERROR") || strings.HasPrefix(l, "CLIENT_ERROR") || strings.HasPrefix(l, "SERVER_ERROR") {
			return m, nil // a server without these figures
		}
		f := strings.SplitN(l, " ", 3)
		if len(f) < 2 || f[0] != "STAT" {
			return nil, fmt.Errorf("%w: %.40q to stats", errSurprise, l)
		}
		if len(f) == 3 {
			m[shown(f[1], maxLine)] = shown(f[2], maxLine)
		}
	}
	return nil, fmt.Errorf("%w: stats without end", errSurprise)
}

// value gets a value of so many bytes at most; nil: there is none, or a longer one.
func (p *plainConn) value(key string, limit int) ([]byte, error) {
	if err := p.send("get %s\r\n", key); err != nil {
		return nil, err
	}
	l, err := p.line()
	if err != nil || l == "END" {
		return nil, err
	}
	f := strings.Fields(l)
	if len(f) != 4 || f[0] != "VALUE" || f[1] != key {
		return nil, fmt.Errorf("%w: %.40q to get", errSurprise, l)
	}
	n, err := strconv.ParseUint(f[3], 10, 31)
	if err != nil || n > maxItemMax {
		return nil, fmt.Errorf("%w: a value of %.20s bytes", errSurprise, f[3])
	}
	var value []byte
	if int(n) <= limit {
		value = make([]byte, n)
		_, err = io.ReadFull(p.r, value)
	} else {
		_, err = io.CopyN(io.Discard, p.r, int64(n))
	}
	if err != nil {
		return nil, plainError(err)
	}
	for _, want := range []string{"", "END"} {
		if l, err := p.line(); err != nil || l != want {
			return nil, cmp.Or(err, fmt.Errorf("%w: %.40q behind a value", errSurprise, l))
		}
	}
	return value, nil
}

// probe asks the server for its version and limits and tries its commands, on a connection that is thrown away: after a
// command that a server does not know, its payload is read as commands.
func (s *server) probe(ctx context.Context) (*info, error) {
	p, err := s.plain(ctx)
	if err != nil {
		return nil, err
	}
	defer p.nc.Close()
	s.trips.Add(1)
	if err := p.send("version\r\n"); err != nil {
		return nil, err
	}
	l, err := p.line()
	if err != nil {
		return nil, s.cl.guard.Load().explainFirst(err)
	}
	version, err := versionOf(l)
	if err != nil {
		return nil, err
	}
	settings, err := p.stats(" settings")
	if err != nil {
		return nil, err
	}
	in := &info{version: version, itemMax: defaultItemMax}
	general, err := p.stats("")
	if err != nil {
		return nil, err
	}
	in.pid = general["pid"]
	if up, err := strconv.ParseUint(general["uptime"], 10, 32); err == nil {
		in.started = time.Now().Add(-time.Duration(up) * time.Second)
	}
	if in.lists, err = p.value(s.cl.prefix+listsMark, maxListsSize+sealOverhead); err != nil {
		return nil, err
	}
	if n, err := strconv.Atoi(settings["item_size_max"]); err == nil {
		if n < minItemMax {
			return nil, fmt.Errorf("its item_size_max is %d; start it with -I 1m", n)
		}
		in.itemMax = min(n, maxItemMax)
	}
	key := s.cl.prefix + probeMark + rand.Text()
	meta := false
	if !s.cl.forceClassic {
		var odd bool
		if meta, odd, err = p.tryMeta(key); err != nil && !errors.Is(err, errClosed) {
			return nil, err
		}
		if !meta && (odd || err != nil) && s.hadMeta(version) {
			return nil, fmt.Errorf("%w: meta commands are not answered as they were before", errSurprise)
		}
	}
	if !meta {
		in.itemMax = min(in.itemMax, classicItemMax)
		in.classic = newClassic(s, in.itemMax)
		if err := in.classic.try(key+"c", time.Until(deadlineOf(ctx))); err != nil {
			in.classic.close()
			return nil, err
		}
	}
	return in, nil
}

func deadlineOf(ctx context.Context) time.Time {
	d, _ := ctx.Deadline()
	return d
}

// hadMeta tells whether the server had meta commands when it was connected last, with the same version: then an item that it
// evicted at once, an answer that was garbled or a connection that broke do not mean that it has none.
func (s *server) hadMeta(version string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last != nil && s.last.classic == nil && s.last.version == version
}

// tryMeta tells whether the meta commands work, by doing: some servers answer them and do something else; odd: this one does,
// it has not refused them.
func (p *plainConn) tryMeta(key string) (meta, odd bool, err error) {
	steps := []struct{ send, want string }{
		{"add " + key + " 7 30 2\r\nab\r\n", "STORED"},
		{"mg " + key + " v c f T30 O11\r\n", "VA 2 c"},
		{"", "ab"},
		{"md " + key + " CWRONG O12\r\n", "EX O12"},
		{"mg " + key + " f c O13\r\n", "HD f7 c"},
		{"md " + key + " CRIGHT O14\r\n", "HD O14"},
		{"mg " + key + " v c O15\r\n", "EN O15"},
		{"mn\r\n", "MN"},
	}
	cas := uint64(0)
	for _, st := range steps {
		send := strings.NewReplacer("CWRONG", "C"+strconv.FormatUint(cas+1, 10), "CRIGHT", "C"+strconv.FormatUint(cas, 10)).Replace(st.send)
		if send != "" {
			if err := p.send("%s", send); err != nil {
				return false, false, err
			}
		}
		l, err := p.line()
		if err != nil {
			return false, false, err
		}
		if !strings.HasPrefix(l, st.want) {
			return false, !strings.HasPrefix(l, "ERROR") && !strings.HasPrefix(l, "CLIENT_ERROR"), nil
		}
		if cas == 0 && strings.HasPrefix(l, "VA ") {
			f := strings.Fields(l)
			cas, err = strconv.ParseUint(strings.TrimPrefix(f[2], "c"), 10, 64)
			if err != nil || cas == 0 || len(f) != 5 || f[3] != "f7" || f[4] != "O11" {
				return false, true, nil
			}
		}
	}
	return true, false, nil
}

// noCas is the refusal of a server whose compare-and-swap does not work: updates would be lost without a word.
func noCas(what string) error {
	return fmt.Errorf("%w: %s, so two hosts would overwrite each other's sessions; use memcached", sessfs.ErrNotSupported, what)
}
