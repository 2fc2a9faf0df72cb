package model

import "fmt"

// trace tells in plain words how the world came to node n.
func (w *World) trace(nodes []node, n int) (Kind, []string) {
	var way []int
	for i := n; i >= 0; i = int(nodes[i].parent) {
		way = append(way, i)
	}
	begin := &nodes[way[len(way)-1]].s
	out := []string{begin.words()}
	r := run{w: w, talk: true}
	kind, breach := Kind(""), ""
	for j := len(way) - 1; j > 0; j-- {
		from, to := nodes[way[j]].s, &nodes[way[j-1]]
		found, told := false, len(out)
		r.s = from
		r.each(&from, to.by, func() {
			if r.s != to.s {
				return
			}
			if r.checkState(); !found || kind == "" && r.kind != "" {
				found, kind, breach = true, r.kind, r.breach
				out = append(out[:told], r.words...)
			}
		})
	}
	if breach != "" {
		out = append(out, breach)
	}
	return kind, out
}

// words describes where a world begins.
func (s *state) words() string {
	text := "at first"
	for i := range s.srv {
		if s.srv[i].rec != nothing {
			text += fmt.Sprintf(" server %d has %v,", i, s.srv[i].rec)
		}
	}
	for h := range hosts {
		if d := s.host[h].down; d != 0 {
			text += fmt.Sprintf(" %s believes server %s down,", name(h), servers(d))
		}
	}
	return text[:len(text)-1]
}
