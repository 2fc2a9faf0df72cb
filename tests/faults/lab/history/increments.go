package history

import "fmt"

// Increments: those that were acknowledged are present. No two were acknowledged on top of the same value; and each is
// in the line of values that leads to the last one, unless the session was destroyed between.
func (h *History) Increments() (list []Breach) {
	h.each(func(x *index) {
		list = append(list, x.siblings()...)
		if h.Settled != 0 {
			list = append(list, x.present(h.Settled)...)
		}
	})
	return list
}

func (x *index) siblings() (list []Breach) {
	on := make(map[string]*Request)
	for _, r := range x.acked {
		if !r.Writes() || r.Got.Token == "" {
			continue
		}
		if first := on[r.Got.Token]; first != nil {
			list = append(list, Breach{"increments", x.name, fmt.Sprintf("a lost update: %s and %s were told that their writes were stored, both on top of %s", first.who(), r.who(), r.Got), []*Request{first, r}})
		}
		on[r.Got.Token] = r
	}
	return list
}

// present looks for all acknowledged increments in what was found when nothing was written any more.
func (x *index) present(settled int64) (list []Breach) {
	var final *Request
	for _, r := range x.requests {
		if r.begin() < settled {
			continue
		}
		if !r.Start.OK {
			list = append(list, Breach{"increments", x.name, fmt.Sprintf("the session cannot be read at the end, when all is mended: %s", r.Start.Why), []*Request{r}})
			continue
		}
		final = r
	}
	if final == nil && len(list) > 0 {
		return list
	}
	if final == nil {
		return append(list, Breach{"increments", x.name, "nobody has read the session at the end", nil})
	}
	there := make(map[string]bool)
	var root *Request
	for token := final.Got.Token; token != "" && !there[token]; {
		there[token] = true
		if root = x.writer[token]; root == nil {
			return list // Whole reports it
		}
		token = root.Wrote.Parent
	}
	begun := final.Start.End // by when what is there now was begun
	if root != nil {
		begun = x.effect(root)
	}
	for _, w := range x.acked {
		if w.Writes() && !there[w.Wrote.Token] && !x.gap(w.End.Begin, begun) {
			list = append(list, Breach{"increments", x.name, fmt.Sprintf("%s was told that %s was stored; at the end there is %s without it, and nobody has destroyed the session", w.who(), w.Wrote, final.Got), []*Request{w, final}})
		}
	}
	return list
}
