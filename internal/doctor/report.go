package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
)

// Report is `sessfs doctor --json`: a contract, fields are only ever added.
type Report struct {
	Findings []Finding `json:"findings"` // errors, then warnings, then notes
	Errors   int       `json:"errors"`
	Warnings int       `json:"warnings"`
	Notes    int       `json:"notes"`
}

// NewReport counts findings.
func NewReport(all []Finding) Report {
	r := Report{Findings: all}
	if all == nil {
		r.Findings = []Finding{}
	}
	for _, f := range all {
		switch f.Severity {
		case Error:
			r.Errors++
		case Warning:
			r.Warnings++
		default:
			r.Notes++
		}
	}
	return r
}

// Summary is one line.
func (r Report) Summary() string {
	if r.Errors+r.Warnings == 0 {
		text := "no problem found"
		if r.Notes > 0 {
			text += fmt.Sprintf(" (%s: --verbose)", quantity(r.Notes, "note"))
		}
		return text
	}
	var parts []string
	if r.Errors > 0 {
		parts = append(parts, quantity(r.Errors, "error"))
	}
	if r.Warnings > 0 {
		parts = append(parts, quantity(r.Warnings, "warning"))
	}
	return strings.Join(parts, " and ") + " found"
}

// JSON writes the report for programs.
func (r Report) JSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

// Print writes the findings for people, notes only where they are asked for.
func (r Report) Print(w io.Writer, notes bool) error {
	var b strings.Builder
	for _, f := range r.Findings {
		if f.Severity == Note && !notes {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s %s: %s %s\n", strings.ToUpper(f.Severity.String()), f.Code, printable(f.Subject), printable(f.What))
		part := func(label, text string) {
			if text != "" {
				fmt.Fprintf(&b, "    %-5s %s\n", label, strings.ReplaceAll(printable(text), "\n", "\n          "))
			}
		}
		part("why", f.Why)
		switch {
		case f.File != "" && f.Line > 0:
			part("line", fmt.Sprintf("%s:%d: %s", f.File, f.Line, f.Old))
			part("new", f.New)
		case f.File != "":
			part("file", f.File)
			part("add", f.New)
		}
		part("do", f.Do)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// printable leaves out what a terminal would take for a command: some of the texts are from servers and other hosts.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
