package history

import (
	"bufio"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
)

// Parse reads what a worker has noted. A line is
//
//	S TIME SEQ KIND SESSION         session_start, or a read without a lock, is about to begin
//	s TIME SEQ OK TOKEN PARENT N TORN WHY   it has returned
//	E TIME SEQ KIND SESSION TOKEN PARENT N SIZE   session_write_close, session_destroy or unlink is about to begin
//	e TIME SEQ OK WHY               it has returned
//
// with fields escaped as in URLs, and "-" for an empty one. The last line of a worker that was killed may be cut; a
// request of it that has not ended is marked with that time.
func Parse(in io.Reader, host, worker int, killed int64) ([]*Request, error) {
	var list []*Request
	var last *Request
	r := bufio.NewReader(in)
	for n := 1; ; n++ {
		line, err := r.ReadString('\n')
		if err == io.EOF {
			if line != "" && killed == 0 {
				return nil, fmt.Errorf("line %d is cut: %q", n, line)
			}
			break
		}
		if err != nil {
			return nil, err
		}
		next, err := note(last, strings.Fields(line))
		if err != nil {
			return nil, fmt.Errorf("line %d, %q: %w", n, line, err)
		}
		if next != last {
			next.Host, next.Worker = host, worker
			list = append(list, next)
			last = next
		}
	}
	if last != nil && !last.over() {
		last.Killed = killed
	}
	return list, nil
}

// over tells whether no more is to come.
func (r *Request) over() bool {
	switch r.Kind {
	case Read, Peek:
		return r.Start.End != 0
	case Unlink:
		return r.End.End != 0
	}
	return r.End.End != 0 || r.Start.End != 0 && !r.Start.OK
}

// note adds a line to the request r, or begins the next one.
func note(r *Request, f []string) (*Request, error) {
	p := fields{list: f}
	event, at, seq := p.text(), p.number(), int(p.number())
	switch event {
	case "S":
		r = &Request{Seq: seq, Start: Span{Begin: at}, Kind: Kind(p.text()), Session: p.text()}
	case "E":
		kind, session := Kind(p.text()), p.text()
		if kind == Unlink {
			r = &Request{Seq: seq, Kind: kind, Session: session}
		}
		wrote := Value{Token: p.text(), Parent: p.text(), N: int(p.number())}
		size := int(p.number())
		if r == nil || r.Seq != seq || r.Kind != kind || r.Session != session || r.End.Begin != 0 {
			return nil, fmt.Errorf("it does not follow on what was before")
		}
		r.End.Begin, r.Wrote, r.Size = at, wrote, size
	case "s":
		if r == nil || r.Seq != seq || r.Start.Begin == 0 || r.Start.End != 0 {
			return nil, fmt.Errorf("it does not follow on what was before")
		}
		r.Start.End, r.Start.OK = at, p.flag()
		r.Got = Value{Token: p.text(), Parent: p.text(), N: int(p.number()), Torn: p.flag()}
		r.Start.Why = p.text()
	case "e":
		if r == nil || r.Seq != seq || r.End.Begin == 0 || r.End.End != 0 {
			return nil, fmt.Errorf("it does not follow on what was before")
		}
		r.End.End, r.End.OK, r.End.Why = at, p.flag(), p.text()
	default:
		return nil, fmt.Errorf("unknown event")
	}
	return r, p.err
}

type fields struct {
	list []string
	err  error
}

func (p *fields) text() string {
	if len(p.list) == 0 {
		p.err = fmt.Errorf("a field is missing")
		return ""
	}
	f := p.list[0]
	p.list = p.list[1:]
	if f == "-" {
		return ""
	}
	s, err := url.PathUnescape(f)
	if err != nil {
		p.err = err
	}
	return s
}

func (p *fields) number() int64 {
	n, err := strconv.ParseInt(p.text(), 10, 64)
	if err != nil && p.err == nil {
		p.err = err
	}
	return n
}

func (p *fields) flag() bool { return p.number() != 0 }
