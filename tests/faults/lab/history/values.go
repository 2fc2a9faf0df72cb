package history

import "fmt"

// Whole: every value that was found is one that somebody stored in this session, and all of it.
func (h *History) Whole() (list []Breach) {
	h.each(func(x *index) {
		for _, r := range x.requests {
			if !r.Start.OK || r.Got == (Value{}) {
				continue
			}
			w := x.writer[r.Got.Token]
			breach := func(text string) {
				around := []*Request{r}
				if w != nil {
					around = append(around, w)
				}
				list = append(list, Breach{"whole", x.name, text, around})
			}
			switch {
			case r.Got.Torn && x.orphans[r]:
				// Nobody is excluded from a file without a name: it may be written while it is read.
			case r.Got.Torn:
				breach(fmt.Sprintf("%s found parts of different sessions in one", r.who()))
			case w == nil:
				breach(fmt.Sprintf("%s found %s, which nobody stored here", r.who(), r.Got))
			case w.End.Begin > r.Start.End:
				breach(fmt.Sprintf("%s found %s before it was stored", r.who(), r.Got))
			case w.Wrote != r.Got:
				breach(fmt.Sprintf("%s found %s; stored was %s", r.who(), r.Got, w.Wrote))
			}
		}
	})
	return list
}

// Fresh: what is found is the last acknowledged change or a later one. It holds for reads without the lock too.
func (h *History) Fresh() (list []Breach) {
	h.each(func(x *index) {
		for _, r := range x.requests {
			if !x.reads(r) {
				continue
			}
			if r.Got.Token == "" && x.blind[r] {
				continue
			}
			if r.Got.Token == "" {
				if w := x.lost(r); w != nil {
					list = append(list, Breach{"fresh", x.name, fmt.Sprintf("%s found nothing, though %s was told that its write was stored and nobody has destroyed the session since", r.who(), w.who()), []*Request{w, r}})
				}
				continue
			}
			w := x.writer[r.Got.Token]
			if w == nil {
				continue // Whole reports it
			}
			if later := x.superseded(x.effect(w), r.Start.Begin); later != nil {
				list = append(list, Breach{"fresh", x.name, fmt.Sprintf("%s found %s, an old state: %s had changed it and was told so", r.who(), r.Got, later.who()), []*Request{w, later, r}})
			}
		}
	})
	return list
}

// lost is the last write acknowledged before r began, where no removal can have come between.
func (x *index) lost(r *Request) *Request {
	for i := len(x.acked) - 1; i >= 0; i-- {
		if w := x.acked[i]; w.Writes() && w.End.End < r.Start.Begin {
			if x.gap(w.End.Begin, r.Start.End) {
				return nil
			}
			return w
		}
	}
	return nil
}

// Revived: what is found after a removal was acknowledged belongs to a session that was begun after it.
func (h *History) Revived() (list []Breach) {
	h.each(func(x *index) {
		if len(x.gone) == 0 {
			return
		}
		for _, r := range x.requests {
			if !x.reads(r) || r.Got.Token == "" {
				continue
			}
			began, removal := x.goneBefore(r.Start.Begin)
			root := x.root(r.Got.Token)
			if removal == nil || root == nil || x.effect(root) >= began {
				continue
			}
			around := []*Request{root, removal, r}
			if w := x.writer[r.Got.Token]; w != root {
				around = append(around, w)
			}
			list = append(list, Breach{"revived", x.name, fmt.Sprintf("%s found %s, of a session that %s had destroyed before", r.who(), r.Got, removal.who()), around})
		}
	})
	return list
}
