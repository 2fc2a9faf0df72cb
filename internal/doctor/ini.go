package doctor

import (
	"strings"
)

// iniEntry is a directive of php.ini or of a pool's file.
type iniEntry struct {
	section string // "" before the first
	key     string
	value   string
	line    int    // where it begins
	text    string // that line
}

// scanINI reads PHP's ini format as PHP does in what matters here; gopkg.in/ini.v1 and others know no lines, take '#'
// for a comment, and end no value at an unquoted ';', which is how save_path = 2;/path becomes "2".
//
// Differences that do not matter for session settings: expressions (E_ALL & ~E_NOTICE) stay as they are written, and
// constants are not replaced. env replaces ${NAME}.
func scanINI(data string, env func(string) string) (entries []iniEntry) {
	s := iniScanner{data: data, line: 1, env: env}
	section := ""
	for !s.end() {
		s.skip(" \t\r\n")
		if s.end() {
			break
		}
		switch c := s.data[s.at]; c {
		case ';':
			s.restOfLine()
		case '[':
			name, _, _ := strings.Cut(strings.TrimPrefix(s.restOfLine(), "["), "]")
			section = strings.Trim(strings.TrimSpace(name), `"'`)
		default:
			e := iniEntry{section: section, line: s.line, text: s.lineText()}
			key := s.until("=;\n")
			if e.key = strings.TrimSpace(key); s.end() || s.data[s.at] != '=' {
				s.restOfLine()
				continue // a word without a value
			}
			s.at++
			e.value = s.value()
			entries = append(entries, e)
		}
	}
	return entries
}

type iniScanner struct {
	data string
	at   int
	line int // of at
	env  func(string) string
}

func (s *iniScanner) end() bool { return s.at >= len(s.data) }

func (s *iniScanner) skip(chars string) {
	for !s.end() && strings.IndexByte(chars, s.data[s.at]) >= 0 {
		if s.data[s.at] == '\n' {
			s.line++
		}
		s.at++
	}
}

// until takes what stands before the first of chars.
func (s *iniScanner) until(chars string) string {
	begin := s.at
	for !s.end() && strings.IndexByte(chars, s.data[s.at]) < 0 {
		if s.data[s.at] == '\n' {
			s.line++
		}
		s.at++
	}
	return s.data[begin:s.at]
}

func (s *iniScanner) restOfLine() string { return s.until("\n") }

// lineText is the line that at is on, without blanks around.
func (s *iniScanner) lineText() string {
	begin := strings.LastIndexByte(s.data[:s.at], '\n') + 1
	text, _, _ := strings.Cut(s.data[begin:], "\n")
	return strings.TrimSpace(text)
}

// value reads the rest of a directive: quoted and plain pieces up to the end of the line or a comment. Blanks count between
// them, but not beside double quotes.
func (s *iniScanner) value() string {
	var b strings.Builder
	plain := true             // nothing quoted: words such as On have a meaning
	blanks, glued := "", true // before the next piece; they do not count there
	for {
		begin := s.at
		s.skip(" \t\r")
		if blanks += s.data[begin:s.at]; s.end() || s.data[s.at] == '\n' {
			break
		}
		c := s.data[s.at]
		if c == ';' {
			s.restOfLine()
			continue
		}
		if !glued && c != '"' {
			b.WriteString(blanks)
		}
		blanks, glued = "", c == '"'
		switch c {
		case '\'':
			plain = false
			s.at++
			b.WriteString(s.until("'"))
			s.at = min(s.at+1, len(s.data))
		case '"':
			plain = false
			s.at++
			b.WriteString(s.quoted())
		default:
			text := s.until(";\n\"'")
			trimmed := strings.TrimRight(text, " \t\r")
			blanks = text[len(trimmed):]
			b.WriteString(s.replace(trimmed))
		}
	}
	v := b.String()
	if plain {
		switch strings.ToLower(v) {
		case "on", "yes", "true":
			return "1"
		case "off", "no", "false", "none", "null":
			return ""
		}
	}
	return v
}

// quoted reads up to the closing quote, over several lines if need be.
func (s *iniScanner) quoted() string {
	var b strings.Builder
	for !s.end() && s.data[s.at] != '"' {
		c := s.data[s.at]
		if c == '\\' && s.at+1 < len(s.data) && strings.IndexByte(`"\`, s.data[s.at+1]) >= 0 {
			s.at++
			c = s.data[s.at]
		}
		if c == '\n' {
			s.line++
		}
		b.WriteByte(c)
		s.at++
	}
	s.at = min(s.at+1, len(s.data))
	return s.replace(b.String())
}

// replace puts in the variables of the environment.
func (s *iniScanner) replace(v string) string {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(v, "${")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		name, after, closed := strings.Cut(rest, "}")
		if !closed {
			b.WriteString("${" + rest)
			return b.String()
		}
		name, fallback, _ := strings.Cut(name, ":-") // PHP 8.3
		if value := s.env(name); value != "" {
			fallback = value
		}
		b.WriteString(fallback)
		v = after
	}
}
