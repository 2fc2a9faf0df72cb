package config

import (
	"fmt"
	"strings"

	"gopkg.in/yaml.v3"
)

// Seal says how sessions are sealed on the servers.
type Seal struct {
	Keys        []SealKey // the first one seals, all open; none: nothing is sealed
	AcceptPlain bool      // what is not sealed is read, too
	WritePlain  bool      // nothing is sealed yet
}

// SealKey is where a key is.
type SealKey struct {
	Name string
	File string // an absolute path, or the name of a systemd credential
}

// maxSealKeys is far more than a rotation needs: each key is tried where a record names it.
const maxSealKeys = 16

// sealKeys reads the list; an empty one is none.
func sealKeys(p *parser, key string, n *yaml.Node) ([]SealKey, bool) {
	if isNull(n) {
		return nil, true
	}
	if n.Kind != yaml.SequenceNode || len(n.Content) > maxSealKeys {
		p.bad(n, key, fmt.Sprintf("a list of at most %d keys, such as [{name: k1, file: /etc/sessfs/seal.key}]", maxSealKeys))
		return nil, false
	}
	before := len(p.errs)
	var all []SealKey
	lines := make(map[string]int)
	for i, item := range n.Content {
		at := fmt.Sprintf("%s[%d]", key, i)
		if !p.plain(item, at) {
			continue
		}
		var k SealKey
		p.section(at, item, map[string]func(string, *yaml.Node){
			"name": func(key string, v *yaml.Node) {
				k.Name, _ = p.text(key, v, "a name of 1 to 64 printable bytes without spaces", func(s string) bool {
					return s != "" && len(s) <= 64 && !controls(s) && !strings.ContainsAny(s, " \t")
				})
			},
			"file": func(key string, v *yaml.Node) { k.File, _ = secretFile(p, key, v, false) },
		})
		if len(p.errs) == before && (k.Name == "" || k.File == "") {
			p.reason(item.Line, at, "both name and file are needed")
		}
		if line, twice := lines[k.Name]; twice && k.Name != "" {
			p.reason(item.Line, at, fmt.Sprintf("the name %q is here twice; the other one is on line %d", k.Name, line))
		}
		lines[k.Name] = item.Line
		all = append(all, k)
	}
	return all, len(p.errs) == before
}

// sealSteps: what is for the introduction means nothing without keys, and a host that writes what it does not read would
// lose its own sessions.
func (p *parser) sealSteps(c *Config) {
	s := c.Seal
	switch {
	case len(s.Keys) == 0 && (s.AcceptPlain || s.WritePlain):
		key := "seal.accept_plain"
		if !s.AcceptPlain {
			key = "seal.write_plain"
		}
		p.reason(p.lines[key], key, "is for the introduction of seal.keys, and there are none")
	case s.WritePlain && !s.AcceptPlain:
		p.reason(p.lines["seal.write_plain"], "seal.write_plain", "needs seal.accept_plain: true, else this host could not read what it writes")
	}
}
