package top

import "strings"

// column is one of a table.
type column struct {
	title string
	right bool // numbers
	width int  // at least
	drop  int  // not 0: it may be left out, the greatest first; above 1: before cells are cut
	least int  // not 0: its cells may be cut to that width
}

// table is a section of the screen. Its heading names it.
type table struct {
	columns []column
	rows    [][]Span
	none    string // stands behind the heading of a table without rows
	needs   int    // rows that it gets before others get more than they need
}

const gap = 2

// lines lays out the heading and so many rows, in width columns.
func (t *table) lines(width, rows int) []Line {
	if len(t.rows) == 0 {
		return []Line{{{t.columns[0].title, Strong}, {strings.Repeat(" ", gap) + t.none, Faint}}}
	}
	shown := t.rows[:min(rows, len(t.rows))]
	use, widths := t.fit(shown, width)
	heading := make([]Span, len(t.columns))
	for i, c := range t.columns {
		heading[i] = Span{c.title, Strong}
	}
	all := []Line{t.line(heading, use, widths)}
	if more := len(t.rows) - len(shown); more > 0 {
		note := "  +" + number(uint64(more)) + " more"
		if room := width - all[0].Width(); room >= len(note) {
			all[0] = append(all[0], Span{note, Faint})
		}
	}
	for _, r := range shown {
		all = append(all, t.line(r, use, widths))
	}
	return all
}

// fit chooses the columns and how wide they are.
func (t *table) fit(rows [][]Span, width int) (use []bool, widths []int) {
	use, widths = make([]bool, len(t.columns)), make([]int, len(t.columns))
	total := -gap
	for i, c := range t.columns {
		use[i], widths[i] = true, max(len(c.title), c.width)
		for _, r := range rows {
			widths[i] = max(widths[i], len(r[i].Text))
		}
		total += widths[i] + gap
	}
	for total > width {
		switch i, j := t.worst(use), t.longest(use, widths); {
		case i >= 0 && (j < 0 || t.columns[i].drop > 1):
			use[i] = false
			total -= widths[i] + gap
		case j >= 0:
			widths[j]--
			total--
		default:
			return use, widths // the lines are cut
		}
	}
	return use, widths
}

// worst is the column that is left out next; -1: none may be.
func (t *table) worst(use []bool) int {
	worst := -1
	for i, c := range t.columns {
		if use[i] && c.drop > 0 && (worst < 0 || c.drop > t.columns[worst].drop) {
			worst = i
		}
	}
	return worst
}

// longest is the widest of the columns whose cells may be cut; -1: none may be.
func (t *table) longest(use []bool, widths []int) int {
	longest := -1
	for i, c := range t.columns {
		if use[i] && c.least > 0 && widths[i] > max(c.least, len(c.title)) && (longest < 0 || widths[i] > widths[longest]) {
			longest = i
		}
	}
	return longest
}

func (t *table) line(cells []Span, use []bool, widths []int) Line {
	var l Line
	for i, c := range t.columns {
		if !use[i] {
			continue
		}
		if len(l) > 0 {
			l = append(l, Span{Text: strings.Repeat(" ", gap)})
		}
		text := cut(cells[i].Text, widths[i])
		pad := Span{Text: strings.Repeat(" ", widths[i]-len(text))}
		if c.right {
			l = append(l, pad, Span{text, cells[i].Style})
		} else {
			l = append(l, Span{text, cells[i].Style}, pad)
		}
	}
	for len(l) > 0 && strings.Trim(l[len(l)-1].Text, " ") == "" {
		l = l[:len(l)-1]
	}
	return l
}
