package doctor

import (
	"fmt"
	"path"
	"strings"
)

// sites reads Apache's configuration, with what it includes: one PHP for what is set for the whole server, and one for
// each <VirtualHost>, <Directory> and the like that sets something of sessions.
//
// Sections are taken in the order of the files, which is near enough to how Apache merges them.
func (t tree) sites(base PHP, conf string) []PHP {
	a := apache{t: t, root: path.Dir(conf), server: base, sites: make(map[string]*PHP)}
	if path.Base(a.root) == "conf" { // RHEL: ServerRoot is /etc/httpd
		a.root = path.Dir(a.root)
	}
	a.read(conf, nil, true)
	a.read(conf, nil, false)
	list := []PHP{a.server}
	for _, scope := range a.order {
		list = append(list, *a.sites[scope])
	}
	return list
}

type apache struct {
	t      tree
	root   string
	server PHP
	sites  map[string]*PHP // by the sections around
	order  []string
	files  int
}

// read takes the lines of one file: in the first pass what is set outside of all sections, which holds everywhere, in the
// second the rest.
func (a *apache) read(file string, scope []string, first bool) {
	if a.files++; a.files > 2*maxIncludes {
		return
	}
	for i, line := range strings.Split(a.t.read(file), "\n") {
		words := apacheWords(line)
		if len(words) == 0 {
			continue
		}
		switch directive := strings.ToLower(words[0]); {
		case strings.HasPrefix(directive, "</"):
			if section(directive[2:]) && len(scope) > 0 {
				scope = scope[:len(scope)-1]
			}
		case strings.HasPrefix(directive, "<"):
			if section(directive[1:]) {
				name := strings.TrimSuffix(strings.Join(words, " "), ">")
				scope = append(scope[:len(scope):len(scope)], fmt.Sprintf("%s> (%s:%d)", name, a.t.show(file), i+1))
			}
		case (directive == "include" || directive == "includeoptional") && len(words) > 1:
			pattern := words[1]
			if !path.IsAbs(pattern) {
				pattern = path.Join(a.root, pattern)
			}
			for _, f := range a.t.glob(pattern) {
				a.read(f, scope, first)
			}
		case strings.HasPrefix(directive, "php_") && len(words) > 2 && first == (len(scope) == 0):
			a.set(directive, words, Setting{File: a.t.show(file), Line: i + 1, Text: strings.TrimSpace(line)}, scope)
		}
	}
}

// section tells which sections are for a part of the requests.
func section(name string) bool {
	name, _, _ = strings.Cut(name, ">")
	switch name {
	case "virtualhost", "directory", "directorymatch", "location", "locationmatch", "files", "filesmatch", "proxy":
		return true
	}
	return false
}

func (a *apache) set(directive string, words []string, s Setting, scope []string) {
	key := words[1]
	if _, known := builtin[key]; !known {
		return
	}
	switch directive {
	case "php_value", "php_admin_value":
		s.Value, s.form = words[2], directive+` %k "%v"`
	case "php_flag", "php_admin_flag":
		s.Value, s.form = "0", directive+" %k %v"
		if v := strings.ToLower(words[2]); v == "on" || v == "1" || v == "yes" || v == "true" {
			s.Value = "1"
		}
	default:
		return
	}
	if len(scope) == 0 {
		a.server.Settings[key] = s
		return
	}
	name := strings.Join(scope, " ")
	site := a.sites[name]
	if site == nil {
		outer := a.server
		for i := len(scope) - 1; i > 0; i-- {
			if o := a.sites[strings.Join(scope[:i], " ")]; o != nil {
				outer = *o
				break
			}
		}
		p := outer.with(a.server.Name + ", " + name)
		site = &p
		a.sites[name], a.order = site, append(a.order, name)
	}
	site.Settings[key] = s
}

// apacheWords splits a line at blanks outside of quotes.
func apacheWords(line string) (words []string) {
	line = strings.TrimSpace(line)
	if strings.HasPrefix(line, "#") {
		return nil
	}
	for line != "" {
		var word string
		if q := line[0]; q == '"' || q == '\'' {
			word, line, _ = strings.Cut(line[1:], string(q))
		} else if i := strings.IndexAny(line, " \t"); i >= 0 {
			word, line = line[:i], line[i:]
		} else {
			word, line = line, ""
		}
		words = append(words, word)
		line = strings.TrimLeft(line, " \t")
	}
	return words
}
