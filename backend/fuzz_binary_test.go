package backend

import (
	"bytes"
	"strings"
	"testing"
)

// FuzzBinaryAnswers: whatever frames a server of the binary protocol sends, what is made of them are lines and values of the classic
// one, no more than were asked for, and not much more bytes than came.
func FuzzBinaryAnswers(f *testing.F) {
	answer := func(op opcode, status byte, key, extras, value string) []byte {
		b := request(nil, op, key, []byte(extras), []byte(value), 7)
		b[0], b[7] = 0x81, status
		return b
	}
	value, end := answer(opGetQuiet, 0, "k", "\x00\x00\x00\x01", "ab"), answer(opNoop, 0, "", "", "")
	for _, b := range [][]byte{append(bytes.Clone(value), end...), bytes.Repeat(value, 4), answer(opAdd, 2, "", "", ""), answer(opStat, 0, "pid", "", "1\r\nEND"),
		append(answer(opGetQuiet, 0, "k\r\nEND", "\x00\x00\x00\x01", "ab"), end...), answer(opVersion, 0, "", "", "1.6\r\nSTORED"), answer(opDelete, 1, "", "", "Not found"),
		append(value[:8:8], append([]byte{0xff, 0xff, 0xff, 0xff}, value[12:]...)...), answer(opSASLList, 0, "", "", "PLAIN"), answer(opStat, 0, "", "", "")} {
		for ask := range uint8(6) {
			f.Add(b, ask)
		}
	}
	questions := []string{"gets k j\r\n", "add k 1 30 2\r\nab\r\n", "cas k 1 -1 2 5\r\nab\r\n", "delete k\r\n", "stats settings\r\n", "version\r\n"}
	f.Fuzz(func(t *testing.T, b []byte, ask uint8) {
		before := allocated()
		c := newBinaryConn(said(b, 1000))
		if int(ask) >= len(questions) {
			c.login("user", "password")
			return
		}
		question := questions[ask]
		_, err := c.Write([]byte(question))
		if took := allocated() - before; took > 8<<20 {
			t.Fatalf("%d bytes were allocated for %d", took, len(b))
		}
		if err != nil {
			return
		}
		out := c.out.Bytes()
		g := lengthGuard{limit: classicItemMax}
		g.asked()
		if !strings.HasPrefix(question, "stats") {
			if err := g.see(out); err != nil || g.asking {
				t.Fatalf("%q answered to %q: %v", out, question, err)
			}
		}
		if n := bytes.Count(out, []byte("\r\n")); strings.HasPrefix(question, "gets") && g.values > 2 || !bytes.HasSuffix(out, []byte("\r\n")) || strings.HasPrefix(question, "version") && n != 1 {
			t.Fatalf("%q answered to %q", out, question)
		}
		if len(out) > 3*len(b)+100 {
			t.Fatalf("%d bytes were made of %d", len(out), len(b))
		}
	})
}
