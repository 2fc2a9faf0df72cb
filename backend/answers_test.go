package backend

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// drain gives b to a in pieces of at most n bytes and returns the lines and values that come out.
func drain(a *answers, b []byte, n func() int) (out []string, err error) {
	for len(b) > 0 {
		room := a.room()
		if len(room) == 0 {
			return nil, fmt.Errorf("no room, though %d bytes are to come", len(b))
		}
		k := copy(room, b[:min(n(), len(b))])
		b = b[k:]
		a.take(k)
		for {
			line, ok, err := a.next()
			if err != nil {
				return out, err
			}
			if !ok {
				break
			}
			if line == nil {
				out = append(out, "value "+string(a.complete().item.value))
				continue
			}
			out = append(out, "line "+string(line))
			var size int
			if _, err := fmt.Sscanf(string(line), "VA %d", &size); err == nil {
				if err := a.expect(reply{}, size); err != nil {
					return out, err
				}
			}
		}
	}
	return out, nil
}

// However an answer is cut on its way, the same lines and values come out.
func TestAnswersInPieces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var wire bytes.Buffer
		var want []string
		for range rapid.IntRange(1, 20).Draw(t, "answers") {
			if rapid.Bool().Draw(t, "value") {
				size := rapid.SampledFrom([]int{0, 1, 2, 100, readAhead - 10, readAhead, readAhead + 1, 3 * readAhead, 2<<20 + 17}).Draw(t, "size")
				v := strings.Repeat("\r\nx", size/3+1)[:size]
				fmt.Fprintf(&wire, "VA %d\r\n%s\r\n", size, v)
				want = append(want, fmt.Sprintf("line VA %d", size), "value "+v)
			} else {
				s := strings.Repeat("y", rapid.IntRange(0, maxLine-2).Draw(t, "length"))
				fmt.Fprintf(&wire, "%s\r\n", s)
				want = append(want, "line "+s)
			}
		}
		most := rapid.SampledFrom([]int{1, 2, 7, 1000, readAhead, 1 << 20}).Draw(t, "piece")
		if wire.Len() > 100_000 {
			most = max(most, 1000)
		}
		got, err := drain(&answers{limit: 4 << 20}, wire.Bytes(), func() int { return most })
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(want) {
			t.Fatalf("%d lines and values instead of %d", len(got), len(want))
		}
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("number %d is %.60q instead of %.60q", i, got[i], want[i])
			}
		}
	})
}

func TestAnswersRefused(t *testing.T) {
	for name, wire := range map[string]string{
		"line without end":   strings.Repeat("x", readAhead),
		"long line":          strings.Repeat("x", maxLine+1) + "\r\n",
		"bare LF":            "HD\n",
		"value without end":  "VA 2\r\nabXX",
		"value too long":     "VA 4097\r\n",
		"only a line feed":   "\n",
		"value cut by a tab": "VA 1\r\na\t\n",
	} {
		if out, err := drain(&answers{limit: 4096}, []byte(wire), func() int { return 1000 }); err == nil {
			t.Errorf("%s: taken as %.60q", name, out)
		}
	}
}
