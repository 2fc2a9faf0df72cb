package top

import (
	"strings"
)

// Style is how a text stands out. It never says anything that the text does not.
type Style uint8

// The styles.
const (
	Plain  Style = iota
	Strong       // headings
	Good
	Bad
	Faint
)

// Span is text of one style: printable ASCII, so that a byte is a column.
type Span struct {
	Text  string
	Style Style
}

// Line is a line of the screen.
type Line []Span

// Width is the number of its columns.
func (l Line) Width() (n int) {
	for _, s := range l {
		n += len(s.Text)
	}
	return n
}

// String is its text alone.
func (l Line) String() string {
	var b strings.Builder
	for _, s := range l {
		b.WriteString(s.Text)
	}
	return b.String()
}

// codes are the parameters of SGR (ECMA-48 8.3.117) of the styles, in colours and without.
var codes = map[bool]map[Style]string{
	true:  {Strong: "1", Good: "32", Bad: "1;31", Faint: "2"},
	false: {Strong: "1", Bad: "1"},
}

// ansi is the line for a terminal.
func (l Line) ansi(colour bool) string {
	var b strings.Builder
	for _, s := range l {
		code := codes[colour][s.Style]
		if code == "" {
			b.WriteString(s.Text)
			continue
		}
		b.WriteString("\x1b[" + code + "m" + s.Text + "\x1b[0m")
	}
	return b.String()
}

// cut makes a text fit into so many columns; a mark shows that something is missing.
func cut(s string, width int) string {
	switch {
	case len(s) <= width:
		return s
	case width < 1:
		return ""
	}
	return s[:width-1] + "~"
}

// cutFront is cut that keeps the end, as of a path.
func cutFront(s string, width int) string {
	switch {
	case len(s) <= width:
		return s
	case width < 1:
		return ""
	}
	return "~" + s[len(s)-width+1:]
}

// cutLine is cut for a line.
func cutLine(l Line, width int) Line {
	if l.Width() <= width {
		return l
	}
	var short Line
	for _, s := range l {
		if len(s.Text) > width {
			return append(short, Span{cut(s.Text, width), s.Style})
		}
		width -= len(s.Text)
		short = append(short, s)
		if width == 0 { // what was cut off begins with the next span
			last := &short[len(short)-1]
			if last.Text != "" {
				last.Text = last.Text[:len(last.Text)-1] + "~"
			}
			return short
		}
	}
	return short
}

// flow puts as many items as fit into lines, in their order, with two spaces between them; those that do not fit are
// left out from the end.
func flow(items []Span, width, lines int) []Line {
	var all []Line
	var line Line
	for _, it := range items {
		switch {
		case len(line) == 0:
		case line.Width()+2+len(it.Text) <= width:
			line = append(line, Span{Text: "  "})
		case len(all)+1 < lines:
			all, line = append(all, line), nil
		default:
			return append(all, line)
		}
		line = append(line, it)
	}
	if len(line) > 0 {
		all = append(all, line)
	}
	return all
}
