package history

import (
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// made is a history that is written down: of one session, times in milliseconds.
type made struct {
	History
	values map[string]Value
}

const ms = int64(time.Millisecond)

func span(from, to int64, ok bool) Span { return Span{Begin: from * ms, End: to * ms, OK: ok} }

func (m *made) add(r *Request) *Request {
	r.Session, r.Worker, r.Seq = "s", len(m.Requests)+1, 1
	if r.Host == 0 {
		r.Host = 1
	}
	m.Requests = append(m.Requests, r)
	return r
}

// value makes a token's value, on top of another's.
func (m *made) value(token, on string) Value {
	if token == "" {
		return Value{}
	}
	if m.values == nil {
		m.values = make(map[string]Value)
	}
	if _, ok := m.values[token]; !ok {
		m.values[token] = Value{Token: token, Parent: on, N: m.values[on].N + 1}
	}
	return m.values[token]
}

// inc is an increment: session_start from a to b, session_write_close from c to d.
func (m *made) inc(token, on string, a, b, c, d int64) *Request {
	got := m.value(on, "")
	return m.add(&Request{Kind: Increment, Start: span(a, b, true), Got: got, End: span(c, d, true), Wrote: m.value(token, on)})
}

// failed is an increment that was not acknowledged.
func (m *made) failed(token, on string, a, b, c, d int64) *Request {
	r := m.inc(token, on, a, b, c, d)
	r.End.OK = false
	return r
}

func (m *made) read(token string, a, b int64) *Request {
	return m.add(&Request{Kind: Read, Start: span(a, b, true), Got: m.value(token, "")})
}

func (m *made) peek(token string, a, b int64) *Request {
	r := m.read(token, a, b)
	r.Kind = Peek
	return r
}

func (m *made) unlink(a, b int64, ok bool) *Request {
	return m.add(&Request{Kind: Unlink, End: span(a, b, ok)})
}

// end reads the session when all is over.
func (m *made) end(token string, at int64) {
	m.Settled = at * ms
	m.read(token, at, at+1)
}

var testBounds = Bounds{Call: time.Second, Wait: 5 * time.Second}

// Each history, and the checkers that must speak; none: it is a good one.
var histories = []struct {
	name string
	make func(m *made)
	want string
}{
	{"one after the other", func(m *made) {
		m.inc("a", "", 0, 1, 2, 3)
		m.inc("b", "a", 2, 4, 5, 6)
		m.read("b", 7, 8)
		m.end("b", 10)
	}, ""},
	{"killed in the middle, and found", func(m *made) {
		m.inc("a", "", 0, 1, 2, 3)
		r := m.failed("b", "a", 4, 5, 6, 0)
		r.Killed = 7 * ms
		m.read("b", 8, 9)
		m.inc("c", "b", 10, 11, 12, 13)
		m.end("c", 20)
	}, ""},
	{"killed in the middle, and not found", func(m *made) {
		m.inc("a", "", 0, 1, 2, 3)
		r := m.failed("b", "a", 4, 5, 6, 0)
		r.Killed = 7 * ms
		m.inc("c", "a", 10, 11, 12, 13)
		m.end("c", 20)
	}, ""},
	{"not acknowledged, found late", func(m *made) {
		m.inc("a", "", 0, 1, 2, 3)
		m.failed("b", "a", 4, 5, 6, 7)
		m.read("a", 8, 9)
		m.read("b", 10, 11)
		m.end("b", 20)
	}, ""},
	{"not acknowledged, found and gone again", func(m *made) {
		m.inc("a", "", 0, 1, 2, 3)
		m.failed("b", "a", 4, 5, 6, 7)
		m.read("b", 8, 9)
		m.read("a", 10, 11)
		m.end("a", 20)
	}, "register"},
	{"not acknowledged, seen without the lock and gone again", func(m *made) {
		m.inc("a", "", 0, 1, 2, 3)
		m.failed("b", "a", 4, 5, 6, 7)
		m.peek("b", 8, 9)
		m.read("a", 10, 11)
		m.inc("c", "a", 12, 13, 14, 15)
		m.end("c", 20)
	}, ""},
	{"a lock that two have", func(m *made) {
		m.inc("a", "", 0, 1, 2, 3)
		m.inc("b", "a", 4, 5, 20, 21)
		m.failed("c", "a", 6, 7, 22, 23)
		m.end("b", 30)
	}, "exclusion"},
	{"a lock that was lost, and its holder told", func(m *made) {
		m.inc("a", "", 0, 1, 2, 3)
		m.failed("b", "a", 4, 5, 20, 21)
		m.inc("c", "a", 6, 7, 8, 9)
		m.end("c", 30)
	}, ""},
	{"a lock given while a killed worker had it", func(m *made) {
		m.inc("a", "", 0, 1, 2, 3)
		m.add(&Request{Kind: Increment, Start: span(4, 5, true), Got: m.value("a", ""), Killed: 50 * ms})
		m.inc("b", "a", 6, 7, 8, 9)
		m.end("b", 60)
	}, ""},
	{"a lost update", func(m *made) {
		m.inc("a", "", 0, 1, 2, 3)
		m.inc("b", "a", 4, 5, 6, 7)
		m.inc("c", "a", 8, 9, 10, 11)
		m.end("c", 20)
	}, "fresh increments register"},
	{"an acknowledged write that is gone at the end", func(m *made) {
		m.inc("a", "", 0, 1, 2, 3)
		m.inc("b", "a", 4, 5, 6, 7)
		m.end("a", 20)
	}, "fresh increments register"},
	{"an old state without the lock", func(m *made) {
		m.inc("a", "", 0, 1, 2, 3)
		m.inc("b", "a", 4, 5, 6, 7)
		m.peek("a", 8, 9)
		m.end("b", 20)
	}, "fresh"},
	{"the old state while it is written", func(m *made) {
		m.inc("a", "", 0, 1, 2, 3)
		m.inc("b", "a", 4, 5, 6, 9)
		m.peek("b", 7, 8)
		m.peek("a", 7, 8)
		m.end("b", 20)
	}, ""},
	{"a session that is lost", func(m *made) {
		m.inc("a", "", 0, 1, 2, 3)
		m.end("", 20)
	}, "fresh increments register"},
	{"destroyed, and begun anew", func(m *made) {
		m.inc("a", "", 0, 1, 2, 3)
		m.unlink(4, 5, true)
		m.read("", 6, 7)
		m.inc("b", "", 8, 9, 10, 11)
		m.end("b", 20)
	}, ""},
	{"destroyed, perhaps", func(m *made) {
		m.inc("a", "", 0, 1, 2, 3)
		m.unlink(4, 5, false)
		m.read("a", 6, 7)
		m.end("", 20)
	}, ""},
	{"destroyed, and still there", func(m *made) {
		m.inc("a", "", 0, 1, 2, 3)
		m.unlink(4, 5, true)
		m.end("a", 20)
	}, "fresh register revived"},
	{"destroyed under a holder, whose write was refused", func(m *made) {
		m.inc("a", "", 0, 1, 2, 3)
		m.failed("b", "a", 4, 5, 10, 11)
		m.unlink(6, 7, true)
		m.end("", 20)
	}, ""},
	{"destroyed under a holder on the same host, whose write goes nowhere", func(m *made) {
		m.inc("a", "", 0, 1, 2, 3)
		m.inc("b", "a", 4, 5, 10, 11)
		m.unlink(6, 7, true)
		m.inc("c", "", 8, 9, 12, 13)
		m.end("c", 20)
	}, ""},
	{"destroyed under a holder on another host, whose write goes nowhere", func(m *made) {
		m.inc("a", "", 0, 1, 2, 3)
		m.inc("b", "a", 4, 5, 10, 11)
		m.unlink(6, 7, true).Host = 2
		m.inc("c", "", 8, 9, 12, 13)
		m.end("c", 20)
	}, "exclusion increments register"},
	{"opened before it was destroyed on the same host, while another begins it anew", func(m *made) {
		m.inc("a", "", 0, 1, 2, 3)
		m.unlink(5, 7, true)
		m.inc("b", "", 8, 9, 20, 21).Host = 2
		m.inc("c", "a", 6, 10, 11, 12)
		m.end("b", 30)
	}, ""},
	{"destroyed twice by one who insists", func(m *made) {
		m.inc("a", "", 0, 1, 2, 3)
		m.unlink(5, 20, true).Host = 2
		m.inc("b", "", 8, 9, 10, 11)
		m.read("", 12, 13)
		m.end("", 30)
	}, ""},
	{"written by one and read by another, both on a file that was deleted", func(m *made) {
		m.inc("a", "", 0, 1, 2, 3)
		m.inc("b", "a", 4, 6, 10, 11)
		m.unlink(5, 8, true)
		m.read("b", 7, 12)
		m.read("", 13, 14)
		m.end("", 20)
	}, ""},
	{"stored after all, by one whose file was deleted, and gone on with", func(m *made) {
		m.unlink(1, 4, true)
		m.inc("a", "", 2, 5, 6, 7)
		m.inc("b", "a", 3, 8, 9, 10)
		m.inc("c", "b", 11, 12, 13, 14)
		m.end("c", 20)
	}, ""},
	{"missing for one who has just found it missing", func(m *made) {
		m.peek("", 0, 1).Worker = 9
		m.inc("a", "", 2, 3, 4, 5)
		r := m.unlink(6, 7, true)
		r.Worker, r.End.Why = 9, "missing"
		m.peek("", 8, 9).Worker = 9
		m.end("a", 20)
	}, ""},
	{"missing for one who has found it missing some time ago", func(m *made) {
		m.peek("", 0, 1).Worker = 9
		m.inc("a", "", 2, 3, 4, 5)
		r := m.unlink(206, 207, true)
		r.Worker, r.End.Why = 9, "missing"
		m.end("a", 220)
	}, "fresh register revived"},
	{"brought back by a late write", func(m *made) {
		m.inc("a", "", 0, 1, 2, 3)
		m.inc("b", "a", 4, 5, 10, 11)
		m.unlink(6, 7, true)
		m.end("b", 20)
	}, "register revived"},
	{"brought back by a late write that failed", func(m *made) {
		m.inc("a", "", 0, 1, 2, 3)
		m.failed("b", "a", 4, 5, 10, 11)
		m.unlink(6, 7, true)
		m.end("b", 20)
	}, "register revived"},
	{"destroyed while it is begun", func(m *made) {
		m.inc("a", "", 0, 1, 2, 6)
		m.unlink(3, 5, true)
		m.end("a", 20)
	}, ""},
	{"torn", func(m *made) {
		m.inc("a", "", 0, 1, 2, 3)
		m.read("a", 4, 5).Got.Torn = true
		m.end("a", 20)
	}, "whole"},
	{"of nobody", func(m *made) {
		m.inc("a", "", 0, 1, 2, 3)
		m.peek("z", 4, 5)
		m.end("a", 20)
	}, "whole"},
	{"with another's count", func(m *made) {
		m.inc("a", "", 0, 1, 2, 3)
		m.peek("a", 4, 5).Got.N = 7
		m.end("a", 20)
	}, "whole"},
	{"a slow write", func(m *made) {
		m.inc("a", "", 0, 1, 2, 1500)
		m.end("a", 2000)
	}, "bounded"},
	{"a slow write while the daemon is stopped", func(m *made) {
		m.inc("a", "", 0, 1, 2, 1500)
		m.Faults = []Fault{{Host: 1, Begin: 3 * ms, End: 1000 * ms}}
		m.end("a", 2000)
	}, ""},
	{"a slow write while another's daemon is stopped", func(m *made) {
		m.inc("a", "", 0, 1, 2, 1500)
		m.Faults = []Fault{{Host: 2, Begin: 3 * ms, End: 1000 * ms}}
		m.end("a", 2000)
	}, "bounded"},
	{"a slow write on a machine that stands still", func(m *made) {
		m.inc("a", "", 0, 1, 2, 1500)
		m.Stalls = []Span{span(3, 1000, true)}
		m.end("a", 2000)
	}, ""},
	{"a long wait for a holder", func(m *made) {
		m.inc("a", "", 0, 1, 9000, 9001)
		m.inc("b", "a", 2, 9002, 9003, 9004)
		m.end("b", 10000)
	}, ""},
	{"a long wait for nobody", func(m *made) {
		m.inc("a", "", 0, 1, 1000, 1001)
		m.inc("b", "a", 2, 9002, 9003, 9004)
		m.end("b", 10000)
	}, "bounded"},
	{"a long wait in which all get their turn", func(m *made) {
		m.inc("a", "", 0, 1, 1000, 1001)
		m.inc("b", "a", 2, 4000, 4001, 4002)
		m.inc("c", "b", 2, 8000, 8001, 8002)
		m.end("c", 10000)
	}, ""},
	{"a wait that does not end", func(m *made) {
		m.inc("a", "", 0, 1, 2, 3)
		m.add(&Request{Kind: Read, Start: Span{Begin: 4 * ms}, Killed: 9000 * ms})
		m.end("a", 10000)
	}, "bounded"},
	{"a slow read without the lock", func(m *made) {
		m.inc("a", "", 0, 1, 2, 3)
		m.peek("a", 4, 1500)
		m.end("a", 2000)
	}, "bounded"},
	{"unreadable at the end", func(m *made) {
		m.inc("a", "", 0, 1, 2, 3)
		m.Settled = 10 * ms
		m.add(&Request{Kind: Read, Start: Span{Begin: 11 * ms, End: 12 * ms, Why: "no"}})
	}, "increments"},
}

func TestCheckers(t *testing.T) {
	for _, c := range histories {
		t.Run(c.name, func(t *testing.T) {
			var m made
			c.make(&m)
			said := make(map[string]bool)
			for _, b := range m.Check(testBounds) {
				said[b.Checker] = true
				if lines := m.Lines(b, 50); len(lines) == 0 {
					t.Errorf("%s shows no lines: %s", b.Checker, b.Text)
				}
			}
			got := make([]string, 0, len(said))
			for s := range said {
				got = append(got, s)
			}
			slices.Sort(got)
			if strings.Join(got, " ") != c.want {
				t.Errorf("the checkers %v speak, not [%s]", got, c.want)
				for _, b := range m.Check(testBounds) {
					t.Log(b.Checker, b.Text)
				}
			}
		})
	}
}

func TestLostLocks(t *testing.T) {
	var m made
	m.inc("a", "", 0, 1, 2, 3)
	m.failed("b", "a", 4, 5, 20, 21)
	m.inc("c", "a", 6, 7, 8, 9)
	if n := m.LostLocks(); n != 1 {
		t.Errorf("%d locks were lost, not 1", n)
	}
}
