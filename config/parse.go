package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// parser walks one document and collects all that is wrong with it.
type parser struct {
	file  string
	lines map[string]int // of the keys that were set
	errs  Errors
}

// Parse checks a file's bytes; name stands in the errors, which are all Errors. What is not in it has its default.
func Parse(name string, data []byte) (*Config, error) {
	p := &parser{file: name, lines: make(map[string]int)}
	c := Default()
	if root := p.document(data); root != nil {
		p.mapping(root, "", func(key string, k, v *yaml.Node) { p.entry(c, key, k, v) })
	}
	if p.lines["cache.replicas"] == 0 {
		c.Cache.Replicas = defaultReplicas(len(c.Cache.Servers))
	}
	if len(p.errs) == 0 {
		p.relations(c)
	}
	if len(p.errs) > 0 {
		p.errs.sort()
		return nil, p.errs
	}
	return c, nil
}

// document is the root of the only YAML document, or nil: there is none, or an error was noted.
func (p *parser) document(data []byte) *yaml.Node {
	if len(data) > MaxFile {
		p.reason(0, "", fmt.Sprintf("the file is larger than %d bytes", MaxFile))
		return nil
	}
	// The yaml package tells no line for these.
	if at := unreadable(data); at >= 0 {
		p.reason(1+bytes.Count(data[:at], []byte("\n")), "", fmt.Sprintf("not text in UTF-8: byte 0x%02x", data[at]))
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil {
		if err = dec.Decode(&more); err == nil {
			p.reason(more.Line, "", "a second YAML document begins here, expected only one in the file")
			return nil
		}
	}
	if !errors.Is(err, io.EOF) {
		line, text := syntaxError(err, data)
		p.reason(line, "", text)
		return nil
	}
	root := doc.Content[0]
	if isNull(root) || !p.plain(root, "") {
		return nil
	}
	return root
}

// unreadable is the offset of the first byte that YAML does not allow, or -1.
func unreadable(data []byte) int {
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError && n <= 1,
			r < ' ' && r != '\t' && r != '\n' && r != '\r',
			r > '~' && r < 0xa0 && r != 0x85,
			r == 0xfeff && i > 0, r == 0xfffe, r == 0xffff:
			return i
		}
		i += n
	}
	return -1
}

var (
	yamlLine   = regexp.MustCompile(`^(?:yaml: )?line ([0-9]+): (?s:(.*))$`)
	yamlAnchor = regexp.MustCompile(`^yaml: unknown anchor '(.*)' referenced$`)
)

// syntaxError takes the line out of an error of the yaml package, or finds it.
func syntaxError(err error, data []byte) (line int, text string) {
	text = err.Error()
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(m[1])
		if strings.HasPrefix(m[2], "did not find expected") {
			line++ // the errors of yaml.v3's parser, unlike those of its scanner, count from 0
		}
		return line, "YAML: " + m[2]
	}
	if m := yamlAnchor.FindStringSubmatch(text); m != nil {
		before, _, _ := bytes.Cut(data, []byte("*"+m[1]))
		return 1 + bytes.Count(before, []byte("\n")), noAliases
	}
	return 1, "YAML: " + strings.TrimPrefix(text, "yaml: ")
}

// mapping calls fn for each key of a section, once, with its full name. An empty section is none at all.
func (p *parser) mapping(n *yaml.Node, section string, fn func(key string, k, v *yaml.Node)) {
	if isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		p.bad(n, section, "keys and values")
		return
	}
	if section != "" {
		section += "."
	}
	seen := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode {
			p.bad(k, strings.TrimSuffix(section, "."), "the name of a key")
			continue
		}
		key := section + printable(k.Value)
		if line, twice := seen[k.Value]; twice {
			p.reason(k.Line, key, fmt.Sprintf("is here twice; the other one is on line %d", line))
			continue
		}
		seen[k.Value] = k.Line
		if p.plain(k, key) && p.plain(v, key) {
			fn(key, k, v)
		}
	}
}

const noAliases = "anchors, aliases and merge keys are not supported: write the value out"

// plain refuses what would make a value something else than what is written in its place.
func (p *parser) plain(n *yaml.Node, key string) bool {
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "" || n.Tag == "!!merge":
		p.reason(n.Line, key, noAliases)
	case n.Style&yaml.TaggedStyle != 0:
		p.reason(n.Line, key, "YAML tags are not supported: found "+printable(n.Tag))
	default:
		return true
	}
	return false
}

// entry takes one key of the schema.
func (p *parser) entry(c *Config, key string, k, v *yaml.Node) {
	if i := slices.IndexFunc(keys, func(s key_) bool { return s.name == key }); i >= 0 {
		p.lines[key] = k.Line
		keys[i].set(p, c, v)
		return
	}
	for _, s := range keys {
		if strings.HasPrefix(s.name, key+".") {
			p.mapping(v, key, func(key string, k, v *yaml.Node) { p.entry(c, key, k, v) })
			return
		}
	}
	p.unknown(k, key, names())
}

func (p *parser) unknown(k *yaml.Node, key string, known []string) {
	text := "unknown key"
	if near := Nearest(key, known); near != "" {
		text += "; did you mean " + near + "?"
	} else if near := sameLeaf(key, known); near != "" {
		text += "; did you mean " + near + "?"
	}
	p.reason(k.Line, key, text)
}

// sameLeaf finds a key that was put into the wrong section.
func sameLeaf(key string, known []string) string {
	leaf := key[strings.LastIndexByte(key, '.')+1:]
	for _, name := range known {
		if strings.HasSuffix(name, "."+leaf) {
			return name
		}
	}
	return ""
}

// bad notes a value that is not what the key takes.
func (p *parser) bad(n *yaml.Node, key, expected string) {
	p.errs = append(p.errs, Error{File: p.file, Line: n.Line, Key: key, Found: describe(n), Expected: expected})
}

func (p *parser) reason(line int, key, text string) {
	p.errs = append(p.errs, Error{File: p.file, Line: line, Key: key, Reason: text})
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// describe is a value as it is shown in an error.
func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a section with keys"
	case n.Kind == yaml.SequenceNode && len(n.Content) == 0:
		return "an empty list"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case isNull(n):
		return "nothing"
	default:
		return strconv.Quote(clip(n.Value))
	}
}

func printable(s string) string {
	q := strconv.Quote(clip(s))
	if plain := q[1 : len(q)-1]; plain == s && s != "" {
		return s
	}
	return q
}

func clip(s string) string {
	if len(s) > 80 {
		return strings.ToValidUTF8(s[:77], "") + "..."
	}
	return s
}
