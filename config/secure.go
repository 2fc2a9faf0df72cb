package config

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// TLS is how the cache servers and this host show each other who they are. Its files are absolute paths, or the names of
// systemd credentials.
type TLS struct {
	CA         string // certificates that sign those of servers; "": the system's
	Cert, Key  string // this host's certificate; "": none
	ServerName string // in the servers' certificates; "": the host of each address
	MinVersion string // "1.2" or "1.3"
}

// Auth is what is told to servers that want a login.
type Auth struct {
	User         string
	PasswordFile string // an absolute path, or the name of a systemd credential
}

// tlsOf reads cache.tls: where there is a mapping, be it empty, there is TLS.
func tlsOf(p *parser, key string, n *yaml.Node) (*TLS, bool) {
	if isNull(n) {
		return nil, true
	}
	t := &TLS{MinVersion: "1.2"}
	before := len(p.errs)
	p.section(key, n, map[string]func(string, *yaml.Node){
		"ca":   func(key string, v *yaml.Node) { t.CA, _ = secretFile(p, key, v, true) },
		"cert": func(key string, v *yaml.Node) { t.Cert, _ = secretFile(p, key, v, true) },
		"key":  func(key string, v *yaml.Node) { t.Key, _ = secretFile(p, key, v, true) },
		"server_name": func(key string, v *yaml.Node) {
			t.ServerName, _ = p.text(key, v, "a host name or an IP address", func(s string) bool { return s == "" || serverName.MatchString(s) })
		},
		"min_version": func(key string, v *yaml.Node) {
			if s, _, ok := scalar(v); ok && (s == "1.2" || s == "1.3") {
				t.MinVersion = s
			} else {
				p.bad(v, key, `"1.2" or "1.3"`)
			}
		},
	})
	if len(p.errs) == before && (t.Cert == "") != (t.Key == "") {
		p.reason(n.Line, key, "cert and key go together: give both, or neither")
	}
	return t, len(p.errs) == before
}

// authOf reads cache.auth.
func authOf(p *parser, key string, n *yaml.Node) (*Auth, bool) {
	if isNull(n) {
		return nil, true
	}
	a := &Auth{}
	before := len(p.errs)
	p.section(key, n, map[string]func(string, *yaml.Node){
		"user": func(key string, v *yaml.Node) {
			a.User, _ = p.text(key, v, "a name of at most 100 characters, without spaces and ':'", func(s string) bool {
				return len(s) <= 100 && !controls(s) && !strings.ContainsAny(s, " :")
			})
		},
		"password_file": func(key string, v *yaml.Node) { a.PasswordFile, _ = secretFile(p, key, v, false) },
	})
	if len(p.errs) == before && (a.User == "" || a.PasswordFile == "") {
		p.reason(n.Line, key, "both user and password_file are needed")
	}
	return a, len(p.errs) == before
}

// section reads a mapping whose keys are not rows of the schema.
func (p *parser) section(name string, n *yaml.Node, keys map[string]func(key string, v *yaml.Node)) {
	p.mapping(n, name, func(full string, k, v *yaml.Node) {
		if read := keys[k.Value]; read != nil {
			read(full, v)
			return
		}
		var known []string
		for k := range keys {
			known = append(known, name+"."+k)
		}
		slices.Sort(known)
		p.unknown(k, full, known)
	})
}

var (
	credentialName = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,255}$`)
	serverName     = regexp.MustCompile(`^[A-Za-z0-9_.:-]{1,253}$`)
)

// secretFile reads where a file is; "" is none, where that is possible.
func secretFile(p *parser, key string, n *yaml.Node, none bool) (string, bool) {
	s, ok := p.text(key, n, "an absolute path, or the name of a systemd credential (LoadCredential=)", func(s string) bool {
		return s == "" && none || filepath.IsAbs(s) && !controls(s) || credentialName.MatchString(s) && s != "." && s != ".."
	})
	if filepath.IsAbs(s) {
		s = filepath.Clean(s)
	}
	return s, ok
}
