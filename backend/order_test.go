package backend

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sessfs"
)

// answerLine begins one of memcached's meta answers.
var answerLine = regexp.MustCompile(`^(?:VA (\d+) |HD|EN|NS|EX|NF|MN)`)

// swapped returns whole answers in the reverse order; nil: these are not whole ones.
func swapped(b []byte) []byte {
	var all [][]byte
	for len(b) > 0 {
		line := bytes.IndexByte(b, '\n') + 1
		m := answerLine.FindSubmatch(b)
		if line == 0 || m == nil {
			return nil
		}
		end := line
		if m[1] != nil {
			size := 0
			fmt.Sscan(string(m[1]), &size)
			end += size + 2
		}
		if end > len(b) {
			return nil
		}
		all = append(all, b[:end])
		b = b[end:]
	}
	if len(all) < 2 {
		return nil
	}
	var out []byte
	for i := len(all) - 1; i >= 0; i-- {
		out = append(out, all[i]...)
	}
	return out
}

// Answers that come in another order than the questions never lead one session's reader to another's data.
func TestAnswersOutOfOrder(t *testing.T) {
	p := startProxy(t, startMemcached(t))
	o := testOptions(p.addr)
	o.RetryInterval = 50 * time.Millisecond
	c := open(t, o)
	ids := many(64)
	for _, id := range ids {
		mustCommit(t, c, id, &sessfs.Session{}, "data of "+string(id), nil)
	}
	var swaps, failed atomic.Int64
	p.hook(nil, func(b []byte) ([]byte, bool) {
		if other := swapped(b); other != nil {
			swaps.Add(1)
			return other, true
		}
		return b, true
	})
	for round := 0; round < 200 && swaps.Load() < 20; round++ {
		var wg sync.WaitGroup
		for _, id := range ids {
			wg.Go(func() {
				s, err := c.Read(ctx, id)
				switch {
				case errors.Is(err, sessfs.ErrUnavailable):
					failed.Add(1)
				case err != nil:
					t.Errorf("%v", err)
				case string(s.Data) != "data of "+string(id):
					t.Errorf("the reader of %s got %q", id, s.Data)
				}
			})
		}
		wg.Wait()
	}
	if swaps.Load() == 0 || failed.Load() == 0 {
		t.Errorf("%d answers were swapped, %d reads failed", swaps.Load(), failed.Load())
	}
	p.hook(nil, nil)
	until(t, "it works again", func() bool { _, err := c.Read(ctx, ids[0]); return err == nil })
}
