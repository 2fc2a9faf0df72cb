package config

import (
	"fmt"
	"slices"
	"strings"
)

// Error is one thing that is wrong with a file.
type Error struct {
	File     string
	Line     int    // 0: the file as a whole
	Key      string // "cache.timeout", "cache.servers[1].weight"; "": the file's syntax
	Found    string // as written, in quotes; "" where Reason says it all
	Expected string
	Reason   string // instead of Found and Expected
}

// Error prints as file:line: key: found X, expected Y.
func (e Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	if e.Key != "" {
		b.WriteString(": " + e.Key)
	}
	if e.Reason != "" {
		b.WriteString(": " + e.Reason)
	} else {
		fmt.Fprintf(&b, ": found %s, expected %s", e.Found, e.Expected)
	}
	return b.String()
}

// Errors is everything that is wrong with a file, in the order of its lines.
type Errors []Error

// Error prints one error a line.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return strings.Join(lines, "\n")
}

func (e Errors) sort() {
	slices.SortStableFunc(e, func(a, b Error) int { return a.Line - b.Line })
}

// Nearest is the word that was probably meant, or "" where none is near enough: at most a third of its letters are
// wrong, missing or too many.
func Nearest(word string, of []string) string {
	best, least := "", 1<<30
	for _, w := range of {
		if d := distance(word, w); d < least && d <= max(1, len(w)/3) {
			best, least = w, d
		}
	}
	return best
}

// distance is Levenshtein's, over bytes.
func distance(a, b string) int {
	if len(a) > 2*len(b)+2 {
		return len(a) // far in any case; keys of a megabyte are not worth the time
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
