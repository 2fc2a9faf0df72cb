package doctor

import (
	"strings"

	"gopkg.in/yaml.v3"
)

// Lines knows where in a YAML file each key stands.
type Lines map[string]yamlLine

type yamlLine struct {
	number int    // 0: it does not stand there
	text   string // the whole line
	column int    // where the value begins in text, from 0
	value  string // as it is written, where it is a single word on that line
}

// findLines reads a configuration file that was found to be right.
func findLines(data []byte) Lines {
	found := make(Lines)
	var root yaml.Node
	if yaml.Unmarshal(data, &root) != nil || len(root.Content) == 0 {
		return found
	}
	lines := strings.Split(string(data), "\n")
	var walk func(prefix string, n *yaml.Node)
	walk = func(prefix string, n *yaml.Node) {
		if n.Kind != yaml.MappingNode {
			return
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			k, v := n.Content[i], n.Content[i+1]
			l := yamlLine{number: k.Line, text: strings.TrimRight(lines[k.Line-1], "\r")}
			if v.Kind == yaml.ScalarNode && v.Line == k.Line && v.Column > 0 && v.Column-1 <= len(l.text) {
				l.column = v.Column - 1
				if rest := l.text[l.column:]; strings.HasPrefix(rest, v.Value) {
					l.value = v.Value
				} else if quoted := `"` + v.Value + `"`; strings.HasPrefix(rest, quoted) {
					l.value = quoted
				}
			}
			found[prefix+k.Value] = l
			walk(prefix+k.Value+".", v)
		}
	}
	walk("", root.Content[0])
	return found
}

func (l Lines) of(key string) yamlLine { return l[key] }

// with is the line of a key with another value, or the lines to add.
func (l Lines) with(key, value string) string {
	if at, ok := l[key]; ok && at.value != "" {
		return strings.TrimSpace(at.text[:at.column] + value + at.text[at.column+len(at.value):])
	}
	section, name, nested := strings.Cut(key, ".")
	if !nested {
		return key + ": " + value
	}
	return section + ": {" + name + ": " + value + "}"
}
