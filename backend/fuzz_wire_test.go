package backend

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"reflect"
	"runtime/metrics"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/bradfitz/gomemcache/memcache"
)

// saidConn is a connection to a server that says what it says, whatever it is asked.
type saidConn struct {
	net.Conn
	r     io.Reader
	piece int // bytes of a Read at most
}

func said(b []byte, piece uint16) *saidConn {
	return &saidConn{r: bytes.NewReader(b), piece: max(1, int(piece))}
}

func (s *saidConn) Read(b []byte) (int, error)  { return s.r.Read(b[:min(len(b), s.piece)]) }
func (s *saidConn) Write(b []byte) (int, error) { return len(b), nil }
func (s *saidConn) Close() error                { return nil }
func (s *saidConn) SetDeadline(time.Time) error { return nil }

// allocated is how many bytes the process has allocated so far.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// questions are what a pipelined connection may have asked.
func questions() []*batch {
	b := func(c ...command) *batch { return &batch{commands: c, done: make(chan struct{}, 1)} }
	return []*batch{
		b(command{verb: "mg", opaque: 1}, command{verb: "mg", opaque: 2}),
		b(command{verb: "add"}, command{verb: "mg", opaque: 3}, command{verb: "mg", opaque: 4}),
		b(command{verb: "cas"}, command{verb: "mg", opaque: 5}),
		b(command{verb: "md", opaque: 6}),
		b(command{verb: "mn"}),
		b(command{verb: "set"}, command{verb: "set"}),
		b(command{verb: "mg", opaque: 7}),
	}
}

// answersTo gives b to a connection with these questions, in pieces, as Poll does.
func answersTo(t *testing.T, list []*batch, b []byte, piece int, limit int) error {
	c := &conn{answer: answers{limit: limit}, sent: slices.Clone(list)}
	c.queued.Store(int32(len(list)))
	for len(b) > 0 {
		n := copy(c.answer.room(), b[:min(max(1, piece), len(b))])
		if n == 0 {
			t.Fatal("there is no room for what comes")
		}
		c.answer.take(n)
		b = b[n:]
		err := c.taken()
		if a := &c.answer; len(a.value) > limit || len(a.value) > max(1<<20, 2*a.have) || len(a.buf) > readAhead {
			t.Fatalf("%d bytes have room for %d of a value, %d are possible", a.have, len(a.value), limit)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// FuzzConn: however the answers are cut on their way, the same batches get the same answers; no more bytes than came, and no
// value beyond the server's limit; after an error nothing.
func FuzzConn(f *testing.F) {
	for _, s := range []string{
		"VA 2 c1 f0 O1\r\nab\r\nEN O2\r\nSTORED\r\nEN O3\r\nHD c4 O4\r\nEXISTS\r\nEN O5\r\nHD O6\r\nMN\r\nSTORED\r\nSERVER_ERROR out of memory\r\nVA 0 O7\r\n\r\n",
		"EN O2\r\nEN O1\r\n", "VA -1 c1 O1\r\n", "VA 99999 c1 O1\r\n", "VA 2 c1 O1\r\nabc\r\n", "HD c0 O1\r\n", "HD f4294967296 c1 O1\r\n",
		"\x81\x00\x00\x00\r\n", "EN O1\n", "VALUE k 0 2 1\r\nab\r\nEND\r\n", "CLIENT_ERROR x\r\n", "HD c18446744073709551616 O1\r\n",
	} {
		f.Add([]byte(s), uint16(3))
	}
	const limit = 4096
	f.Fuzz(func(t *testing.T, b []byte, piece uint16) {
		whole, cut := questions(), questions()
		err := answersTo(t, whole, b, len(b), limit)
		err2 := answersTo(t, cut, b, int(piece), limit)
		if (err == nil) != (err2 == nil) {
			t.Fatalf("at once: %v; in pieces of %d: %v", err, piece, err2)
		}
		if err != nil && !errors.Is(err, errSurprise) {
			t.Fatal(err)
		}
		sum, last := 0, true
		for i := range whole {
			if !reflect.DeepEqual(whole[i].replies, cut[i].replies) {
				t.Fatalf("at once %+v, in pieces %+v", whole[i].replies, cut[i].replies)
			}
			for _, r := range whole[i].replies {
				sum += len(r.item.value)
			}
			done := len(whole[i].replies) == len(whole[i].commands)
			if len(whole[i].done) == 1 != done || len(whole[i].replies) > 0 && !last {
				t.Fatalf("batch %d has %d answers to %d commands", i, len(whole[i].replies), len(whole[i].commands))
			}
			last = done
		}
		if sum > len(b) {
			t.Fatalf("%d bytes of values in %d", sum, len(b))
		}
	})
}

// asAnswer is an answer as memcached would write it.
func asAnswer(c command, r reply) string {
	flags := fmt.Sprintf("c%d f%d O%d", r.item.cas, r.item.flags, c.opaque)
	if r.item.cas == 0 {
		flags = fmt.Sprintf("f%d O%d", r.item.flags, c.opaque)
	}
	switch r.code {
	case codeRefused:
		return "SERVER_ERROR " + r.words
	case codeValue:
		return "HD " + flags
	case codeNoop:
		return "MN"
	case codeMiss:
		return fmt.Sprintf("EN O%d", c.opaque)
	case codeDone:
		return "HD " + flags
	case codeStored:
		return "STORED"
	case codeNotStored:
		return "NOT_STORED"
	}
	words := map[code][2]string{codeExists: {"EX ", "EXISTS"}, codeNotFound: {"NF ", "NOT_FOUND"}}[r.code]
	if c.opaque != 0 {
		return words[0] + flags
	}
	return words[1]
}

// FuzzReply: what is taken means what memcached means by it, belongs to the command, and its words fit on a line of a log.
func FuzzReply(f *testing.F) {
	for _, s := range []string{"VA 5 c1 f2 O7", "HD O7", "EN O7", "NF O7", "EX", "STORED", "SERVER_ERROR out of memory", "CLIENT_ERROR x", "VA 99999999999 O7",
		"VA -1 O7", "VA", "EX O7", "HD c0 O7", "HD f4294967296 O7", "VA 1 c1 O8 O7", "MN", "SERVER_ERROR \x1b[2J\xff", "NOT_STORED", "EXISTS", "NOT_FOUND", "HD c1 c2 O7"} {
		for verb := range uint8(6) {
			f.Add(verb, s)
		}
	}
	commands := []command{{verb: "mg", opaque: 7}, {verb: "md", opaque: 7}, {verb: "mn"}, {verb: "add"}, {verb: "cas"}, {verb: "set"}}
	f.Fuzz(func(t *testing.T, verb uint8, s string) {
		c := commands[int(verb)%len(commands)]
		r, size, err := parseReply(c, []byte(s))
		if err != nil {
			if size >= 0 || !reflect.DeepEqual(r, reply{}) || !errors.Is(err, errSurprise) || !utf8.ValidString(err.Error()) || len(err.Error()) > 1000 {
				t.Fatalf("size %d, %+v: %v", size, r, err)
			}
			return
		}
		if size >= 0 != (c.verb == "mg" && strings.HasPrefix(s, "VA ")) {
			t.Fatalf("a value of %d bytes after %q to %s", size, s, c.verb)
		}
		if r.code == codeRefused && (len(r.words) > 500 || strings.ContainsFunc(r.words, func(c rune) bool { return c < ' ' || c == 0x7f })) {
			t.Fatalf("the words %q", r.words)
		}
		if again, _, err := parseReply(c, []byte(asAnswer(c, r))); err != nil || !reflect.DeepEqual(again, r) {
			t.Fatalf("%q became %+v; %q became %+v, %v", s, r, asAnswer(c, r), again, err)
		}
	})
}

// FuzzPlainConn: of what is read line by line there are no more bytes than came, each line has a limit, and what is asked for
// is not taken from elsewhere.
func FuzzPlainConn(f *testing.F) {
	for i, s := range []string{"STAT pid 1\r\nSTAT uptime 5\r\nEND\r\n", "VALUE k 0 2\r\nab\r\nEND\r\n", "VERSION 1.6.18\r\nVERSION 1.6.18\r\nVERSION 1.6.18\r\n",
		"STORED\r\nVA 2 c5 f7 O11\r\nab\r\nEX O12\r\nHD f7 c5 O13\r\nHD O14\r\nEN O15\r\nMN\r\n", "STAT", "VALUE k 0 -1\r\n", "VALUE k 0 99999\r\n",
		"VALUE j 0 2\r\nab\r\nEND\r\n", "VALUE k 0 2\r\nabc\r\nEND\r\n", "CLIENT_ERROR unauthenticated\r\n", "STAT \x00 \x00\r\nEND\r\n"} {
		f.Add([]byte(s), uint8(i), uint16(7))
	}
	const limit = 100
	f.Fuzz(func(t *testing.T, b []byte, what uint8, piece uint16) {
		nc := said(b, piece)
		p := &plainConn{nc: nc, r: bufio.NewReaderSize(nc, 2*maxLine)}
		switch what % 4 {
		case 0:
			m, err := p.stats("")
			sum := 0
			for k, v := range m {
				sum += len(k) + len(v)
			}
			if len(m) > maxAnswerLines || sum > len(b) || err != nil && m != nil {
				t.Fatalf("%d figures of %d bytes in %d, %v", len(m), sum, len(b), err)
			}
		case 1:
			v, err := p.value("k", limit)
			if v != nil && (err != nil || len(v) > limit || !bytes.Contains(b, v) || !bytes.HasPrefix(b, []byte("VALUE k "))) {
				t.Fatalf("the value %q, %v", v, err)
			}
		case 2:
			if v, _, err := p.version(); err == nil && (len(v) > maxLine || strings.ContainsAny(v, "\r\n") && v != "") {
				t.Fatalf("the version %q", v)
			}
		case 3:
			if meta, _, err := p.tryMeta("k"); meta && (err != nil || !bytes.HasPrefix(b, []byte("STORED"))) {
				t.Fatalf("meta commands after %q, %v", b, err)
			}
		}
	})
}

// FuzzDump: what a dump shows is a key that may stand in a command, written as it was, with a size and a time that are ones.
func FuzzDump(f *testing.F) {
	for _, s := range []string{"key=sessfs%3Asess_a exp=1763900000 la=1 cas=2 fetch=no cls=1 size=99", "key=%0d%0aflush_all size=1", "key=a exp=-1 size=-1",
		"key=a exp=9223372036854775807", "key=%", "key=" + strings.Repeat("a", 251), "key= size=3", "exp=1", "key=a key=b", "key=%00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, ok := parseDump(s)
		if !ok {
			return
		}
		if e.key == "" || len(e.key) > maxKey || strings.ContainsFunc(e.key, func(r rune) bool { return r <= ' ' || r == 0x7f }) || e.size < 0 {
			t.Fatalf("%+v", e)
		}
		if _, err := json.Marshal(e.expires); err != nil {
			t.Fatalf("it ends at a time that cannot be told: %v", err)
		}
		if again, ok := parseDump("key=" + url.PathEscape(e.key)); !ok || again.key != e.key {
			t.Fatalf("%q became %q", e.key, again.key)
		}
		if (&server{cl: &Cluster{prefix: "p:"}}).isRecordKey("p:"+e.key) && (strings.ContainsAny(e.key[:1], lockMark+waitMark+chunkMark+"!%")) {
			t.Fatalf("%q is taken for a record's", e.key)
		}
	})
}

// FuzzClassic: gomemcache behind the guard takes no value beyond the limit, does not panic, and allocates no more than what
// comes and some.
func FuzzClassic(f *testing.F) {
	for _, s := range []string{"VALUE k 0 5 1\r\nVALUE\r\nVALUE j 0 0 1\r\n\r\nEND\r\nSTORED\r\nEND\r\nSTORED\r\n", "VALUE k\t7 0 4294967295 1\r\n", "VALUE  k 0 5 4294967295\r\n",
		"VALUE " + strings.Repeat("k", 600) + " 0 4294967295 1\r\n", "NOT_STORED\r\nVALUE k 0 3 1\r\nabc\r\nEND\r\n", "VALUE k 4294967296 1 1\r\nx\r\nEND\r\n",
		"VALUE k 0 2 0\r\nab\r\nEND\r\n", "VALUE k 0 -1 1\r\n", "SERVER_ERROR out of memory\r\n", "END\r\nEND\r\n", "VALUE k 0 4294967295\r\n", "VALUE k 0 4294967295\n"} {
		f.Add([]byte(s), uint16(5))
	}
	const limit, most = 4096, 8 << 20
	f.Fuzz(func(t *testing.T, b []byte, piece uint16) {
		server := &guarded{saidConn: said(b, piece), guard: lengthGuard{limit: limit}}
		client := memcache.NewFromSelector(oneServer{})
		client.DialContext = func(context.Context, string, string) (net.Conn, error) { return server, nil }
		before := allocated()
		for _, ask := range []func() (map[string]*memcache.Item, error){
			func() (map[string]*memcache.Item, error) { return client.GetMulti([]string{"k", "j"}) },
			func() (map[string]*memcache.Item, error) { return nil, client.Add(&memcache.Item{Key: "k"}) },
			func() (map[string]*memcache.Item, error) { return client.GetMulti([]string{"k"}) },
			func() (map[string]*memcache.Item, error) {
				return nil, client.CompareAndSwap(&memcache.Item{Key: "k", CasID: 1})
			},
			func() (map[string]*memcache.Item, error) { return nil, client.Delete("k") },
		} {
			got, _ := ask()
			for k, it := range got {
				if len(it.Value) > limit || len(it.Value) > len(b) {
					t.Fatalf("%q has %d bytes", k, len(it.Value))
				}
			}
		}
		client.Close()
		if took := allocated() - before; took > most {
			t.Fatalf("%d bytes were allocated for %d", took, len(b))
		}
	})
}

// guarded is a saidConn that is followed as the connections of classic are.
type guarded struct {
	*saidConn
	guard lengthGuard
}

func (g *guarded) Write(b []byte) (int, error) {
	g.guard.asked()
	return g.saidConn.Write(b)
}

func (g *guarded) Read(b []byte) (int, error) {
	n, err := g.saidConn.Read(b)
	if bad := g.guard.see(b[:n]); bad != nil {
		return 0, bad
	}
	return n, err
}
