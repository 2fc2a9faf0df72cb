// Package manual makes the manual page of the configuration file out of the commented sample, so that the two never
// say different things. The pages of the commands are made by cobra's own generator.
package manual

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// line takes a line of the sample apart: indent, the mark of a comment, key and value. Group 5 is the text of a comment.
var line = regexp.MustCompile(`^( *)(# ?)?(?:([a-z_]+):(?: (.*))?|(.*))$`)

// Config writes sessfs.yaml(5) in roff from sample, the commented configuration. keys are all keys there are
// (section.key); one that the sample has neither set nor commented out is an error, because the page would lack it.
func Config(sample string, keys []string, date time.Time, version string) (string, error) {
	p := page{keys: keys}
	fmt.Fprintf(&p.b, ".TH SESSFS.YAML 5 %s %s \"sessfs\"\n", date.Format(dateFormat), quote("sessfs "+version))
	p.b.WriteString(".SH NAME\nsessfs.yaml \\- the configuration of sessfs\n.SH SYNOPSIS\n.I /etc/sessfs/config.yaml\n.SH DESCRIPTION\n")
	head, rest, _ := strings.Cut(sample, "\n\n")
	for l := range strings.Lines(head) {
		p.comment = append(p.comment, strings.TrimPrefix(strings.TrimPrefix(l, "#"), " "))
	}
	p.text()
	p.b.WriteString(".SH KEYS\n")
	for l := range strings.Lines(rest) {
		p.line(strings.TrimSuffix(l, "\n"))
	}
	p.text()
	for _, k := range keys {
		if !slices.Contains(p.seen, k) {
			return "", fmt.Errorf("the sample configuration has no line for %s, not even commented out", k)
		}
	}
	p.b.WriteString(tail)
	return p.b.String(), nil
}

const tail = `.SH EXAMPLE
The least that makes sense on several hosts:
.PP
.nf
.RS
cache:
  servers: [cache1.example:11211, cache2.example:11211]
session: {lifetime: 24m}
.RE
.fi
.SH SEE ALSO
.BR sessfs (8),
.BR sessfs\-config\-check (8),
.BR mount.sessfs (8)
`

type page struct {
	b       strings.Builder
	keys    []string
	section string
	comment []string // not yet written: it belongs to the key that follows
	seen    []string
}

func (p *page) line(s string) {
	if s == "" {
		return
	}
	m := line.FindStringSubmatch(s)
	indent, commented, key, value := m[1], m[2] != "", m[3], m[4]
	name := key
	if indent != "" && p.section != "" {
		name = p.section + "." + key
	}
	switch {
	case key != "" && slices.Contains(p.keys, name) && !(commented && value == ""):
		if indent == "" {
			p.section = ""
		}
		p.entry(name, value, commented)
	case key != "" && !commented:
		p.section = key
		fmt.Fprintf(&p.b, ".SS %s\n", escape(key))
		p.text()
	default:
		p.comment = append(p.comment, strings.TrimPrefix(strings.TrimPrefix(strings.TrimSpace(s), "#"), " "))
	}
}

// entry writes a key with what stands above it. The value of one that is commented out is an example.
func (p *page) entry(name, value string, commented bool) {
	p.seen = append(p.seen, name)
	fmt.Fprintf(&p.b, ".TP\n.B %s\n", escape(name))
	if !commented {
		fmt.Fprintf(&p.b, "Default: %s\n", escape(value))
		if len(p.comment) > 0 {
			p.b.WriteString(".br\n")
		}
	}
	p.text()
}

// text writes the comment that waits. Lines that are indented, and a key in front of them, stay as they are.
func (p *page) text() {
	literal, paragraph := false, false
	for i, s := range p.comment {
		s = strings.TrimRight(s, "\n")
		next := ""
		if i+1 < len(p.comment) {
			next = p.comment[i+1]
		}
		if s == "" {
			paragraph = true
			continue
		}
		asIs := strings.HasPrefix(s, "  ") || strings.HasSuffix(s, ":") && strings.HasPrefix(next, "  ")
		switch {
		case asIs && !literal:
			p.b.WriteString(".IP\n.nf\n")
		case !asIs && literal:
			p.b.WriteString(".fi\n.IP\n")
		case paragraph:
			p.b.WriteString(".IP\n")
		}
		literal, paragraph = asIs, false
		p.b.WriteString(escape(s) + "\n")
	}
	if literal {
		p.b.WriteString(".fi\n")
	}
	p.comment = nil
}

// escape makes text safe for roff: backslashes, hyphens that are to be copied, and characters that begin a request.
func escape(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "`", "").Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}

func quote(s string) string { return `"` + strings.ReplaceAll(escape(s), `"`, `\(dq`) + `"` }
