package backend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sessfs"
)

// hostile is one way in which a server misbehaves.
type hostile struct {
	response func([]byte) ([]byte, bool)
	misdeed  misdeed
	works    bool     // where it does not matter for what was asked, the right answer may come
	fails    []string // what fails all the same
	only     string   // meta or classic
}

var (
	opaqueWord = regexp.MustCompile(`O\d+`)
	casWord    = regexp.MustCompile(`(?m)( c|^VALUE \S+ \d+ \d+ )\d+`)
	flagsWord  = regexp.MustCompile(`(?m)( f|^VALUE \S+ )\d+`)
	lengthWord = regexp.MustCompile(`(?m)^(VA |VALUE \S+ \d+ )(\d+)`)
	endWord    = regexp.MustCompile(`(?m)^END\r\n`)
	keyWord    = regexp.MustCompile(`(?m)^VALUE \S+`)
)

// changes returns a hook that puts with in the place of what.
func changes(what *regexp.Regexp, with string) func([]byte) ([]byte, bool) {
	return func(b []byte) ([]byte, bool) { return what.ReplaceAll(b, []byte(with)), true }
}

// lengthened makes lengths longer by so many bytes than the values are.
func lengthened(by int) func([]byte) ([]byte, bool) {
	return func(b []byte) ([]byte, bool) {
		return lengthWord.ReplaceAllFunc(b, func(m []byte) []byte {
			at := bytes.LastIndexByte(m, ' ') + 1
			var n int
			fmt.Sscan(string(m[at:]), &n)
			return fmt.Append(m[:at:at], n+by)
		}), true
	}
}

// lastFirst turns the order of lines around.
func lastFirst(b []byte) ([]byte, bool) {
	lines := bytes.SplitAfter(b, []byte("\r\n"))
	var turned []byte
	for i := len(lines) - 1; i >= 0; i-- {
		turned = append(turned, lines[i]...)
	}
	return turned, true
}

var misdeeds = map[string]hostile{
	"garbage":            {response: says("\x00\xff\r\n\r\n")},
	"NUL bytes":          {response: says(strings.Repeat("\x00", 5000))},
	"binary protocol":    {response: says("\x81\x00\x00\x00\x00\x00\x00\x81\x00\x00\x00\x09\x00\x00\x00\x00Auth failure")},
	"error":              {response: says("ERROR\r\n")},
	"client error":       {response: says("CLIENT_ERROR bad data chunk\r\n")},
	"enormous length":    {response: says("VA 2147483647 c1 O1\r\n")},
	"negative length":    {response: says("VA -1 c1 O1\r\n")},
	"overflow":           {response: says("VA 99999999999999999999999 c1 O1\r\n")},
	"classic length":     {response: says("VALUE sessfs:sess_a 0 4294967295 1\r\n")},
	"classic, by a tab":  {response: says("VALUE sessfs:sess_a\t7 0 4294967295 1\r\n")},
	"no line end":        {response: says(strings.Repeat("x", 100_000))},
	"lines without end":  {misdeed: misdeed{flood: strings.Repeat("STAT x y\r\n", 1000)}, works: true},
	"values without end": {misdeed: misdeed{flood: strings.Repeat("VALUE sessfs:sess_a 0 1 1\r\nx\r\n", 1000)}, response: says("VALUE sessfs:sess_a 0 1 1\r\nx\r\n")},
	"an HTTP server":     {response: says("HTTP/1.1 400 Bad Request\r\n\r\n")},
	"a greeting":         {misdeed: misdeed{greeting: "220 mail ESMTP\r\n"}},
	// Two bytes: of several answers that come together not even the first is whole.
	"cut":            {response: func(b []byte) ([]byte, bool) { return b[:min(2, len(b))], false }},
	"closed":         {response: func(b []byte) ([]byte, bool) { return nil, false }},
	"silence":        {response: func(b []byte) ([]byte, bool) { return nil, true }},
	"half and wait":  {response: func(b []byte) ([]byte, bool) { return b[:min(2, len(b))], true }},
	"byte by byte":   {misdeed: misdeed{drip: true}, works: true},
	"other answers":  {response: changes(opaqueWord, "O1"), works: true, only: "meta"}, // it is found unfit for these, and the classic ones work
	"last first":     {response: lastFirst, works: true},                               // one line alone stays what it is
	"one too many":   {response: func(b []byte) ([]byte, bool) { return append([]byte("EN O1\r\n"), b...), true }},
	"longer values":  {response: lengthened(1), works: true},
	"shorter values": {response: lengthened(-1), works: true},
	"cas 0":          {response: changes(casWord, "${1}0"), works: true, fails: []string{"Read", "TryLock"}},
	"long flags":     {response: changes(flagsWord, "${1}4294967296"), works: true, fails: []string{"Commit"}},
	"without END":    {response: changes(endWord, ""), works: true},
	"another's key":  {response: changes(keyWord, "VALUE sessfs:sess_other"), works: true, only: "classic"},
}

func TestHostileServer(t *testing.T) {
	for name, h := range misdeeds {
		for _, mode := range []string{"meta", "classic"} {
			if h.only == "" || h.only == mode {
				t.Run(name+"/"+mode, func(t *testing.T) {
					t.Parallel()
					meet(t, h, mode == "classic")
				})
			}
		}
	}
}

// meet has everything asked of a server that misbehaves with that. Each question is an error within the timeout, or has the
// right answer; it costs a connection or two, and what was stored is there when the server behaves again.
func meet(t *testing.T, h hostile, classic bool) {
	m := startMemcached(t)
	p := startProxy(t, m)
	o := testOptions(p.addr)
	o.Timeout, o.RetryInterval, o.ForceClassic = 5*time.Second, 30*time.Millisecond, classic
	c := open(t, o)
	s := mustCommit(t, c, sid, &sessfs.Session{}, "x", nil)
	mustCommit(t, c, "sess_other", &sessfs.Session{}, "theirs", nil)
	l, _ := mustLock(t, c, "sess_locked")
	o.Timeout = 500 * time.Millisecond
	c.Reconfigure(Settings{Timeout: o.Timeout, RetryInterval: o.RetryInterval, Lifetime: o.Lifetime, Lease: o.Lease, MaxSize: o.MaxSize})
	right := func(s *sessfs.Session) error {
		if s == nil || string(s.Data) != "x" && string(s.Data) != "y" {
			return fmt.Errorf("read %+v", s)
		}
		return nil
	}
	for what, f := range map[string]func() error{
		"Read": func() error {
			s, err := c.Read(ctx, sid)
			if err == nil {
				return right(s)
			}
			return err
		},
		"TryLock": func() error {
			l, s, err := c.TryLock(ctx, sid, holder)
			if l != nil {
				defer c.Unlock(l)
			}
			if err == nil {
				return right(s)
			}
			return err
		},
		"Locked":  func() error { _, err := c.Locked(ctx, sid); return err },
		"Mark":    func() error { return c.Mark(ctx, sid, l.Token) },
		"Marked":  func() error { c.Marked(ctx, []*sessfs.Lease{l}); return sessfs.ErrUnavailable },
		"Renew":   func() error { return c.Renew(ctx, l) },
		"Commit":  func() error { _, err := c.Commit(ctx, sid, s, s.Attr, []byte("y"), nil); return err },
		"Destroy": func() error { _, _, err := c.Destroy(ctx, "sess_b"); return err },
		"Break":   func() error { _, err := c.Break(ctx, sid); return err },
		"List": func() error {
			return c.List(ctx, func(e sessfs.Entry) error {
				if e.ID != sid && e.ID != "sess_other" {
					t.Errorf("%q is listed", e.ID)
				}
				return nil
			})
		},
		"Check":   func() error { return c.Check(ctx) },
		"Servers": func() error { c.Servers(ctx); return sessfs.ErrUnavailable },
	} {
		p.hook(nil, nil)
		p.breakAll()
		var last error
		until(t, "it works again", func() bool { _, last = c.Read(ctx, sid); return last == nil })
		before := p.connections()
		p.does(h.response, h.misdeed)
		start := time.Now()
		err := f()
		took, connections := time.Since(start), p.connections()-before
		fine := h.works && !slices.Contains(h.fails, what)
		if !(fine && (err == nil || errors.Is(err, sessfs.ErrConflict))) && !errors.Is(err, sessfs.ErrUnavailable) && !errors.Is(err, sessfs.ErrNotSupported) {
			t.Errorf("%s: %v", what, err)
		}
		if took > o.Timeout+time.Second {
			t.Errorf("%s took %v", what, took)
		}
		if connections > 5 {
			t.Errorf("%s made %d connections", what, connections)
		}
	}
	p.hook(nil, nil)
	p.breakAll()
	var got *sessfs.Session
	until(t, "it works again", func() (ok bool) { v, err := c.Read(ctx, sid); got = v; return err == nil })
	if err := right(got); err != nil {
		t.Error(err)
	}
}

// However much a server says, a listing ends with an error, and the memory for it has a limit.
func TestHostileListing(t *testing.T) {
	const sessions, most = 72, 400 << 20
	line := "key=sessfs%3Asess_" + strings.Repeat("x", 200) + " exp=-1 la=1 cas=2 fetch=no cls=1 size=99\n"
	dumpSize := regexp.MustCompile(`size=\d+`)
	for name, h := range map[string]hostile{
		"a dump without end":      {misdeed: misdeed{flood: strings.Repeat(line, 1000)}},
		"keys of a megabyte":      {response: says("key=" + strings.Repeat("x", 1<<20) + "\n")},
		"figures of a megabyte":   {response: says("STAT curr_items " + strings.Repeat("1", 1<<20) + "\r\nEND\r\n")},
		"figures without end":     {misdeed: misdeed{flood: strings.Repeat("STAT x y\r\n", 1000)}, response: says("STAT x y\r\n")},
		"a dump of other lines":   {response: changes(regexp.MustCompile(`(?m)^key=.*\n`), "OK\r\n")},
		"larger than it has said": {response: changes(dumpSize, "size=1")},
	} {
		for _, classic := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/classic=%v", name, classic), func(t *testing.T) {
				m := startMemcached(t, "-m", "256")
				p := startProxy(t, m)
				o := testOptions(p.addr)
				o.Timeout, o.ForceClassic = 5*time.Second, classic
				c := open(t, o)
				for i := range sessions {
					mustCommit(t, c, sessfs.ID(fmt.Sprintf("sess_%d", i)), &sessfs.Session{}, strings.Repeat("x", 1_000_000), nil)
				}
				p.does(h.response, h.misdeed)
				before := allocated()
				within, end := context.WithTimeout(ctx, time.Minute)
				defer end()
				err := c.List(within, func(sessfs.Entry) error { return nil })
				if !errors.Is(err, sessfs.ErrUnavailable) || within.Err() != nil {
					t.Errorf("the listing ends with %v", err)
				}
				if took := allocated() - before; took > most {
					t.Errorf("it took %d bytes", took)
				}
			})
		}
	}
}
