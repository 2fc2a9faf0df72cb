package config

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"
)

var serverKeys = []string{"name", "address", "weight"}

// servers reads the list; an item is an address, or a mapping of name, address and weight. An empty list is none.
func servers(p *parser, key string, n *yaml.Node) ([]Server, bool) {
	if isNull(n) {
		return nil, true
	}
	if n.Kind != yaml.SequenceNode {
		p.bad(n, key, `a list of servers, such as [{address: "10.0.0.11:11211"}]`)
		return nil, false
	}
	var all []Server
	byName, byAddress := make(map[string]int), make(map[string]int)
	for i, item := range n.Content {
		key := fmt.Sprintf("%s[%d]", key, i)
		if !p.plain(item, key) {
			continue
		}
		s, ok := server(p, key, item)
		if !ok {
			continue
		}
		if line, twice := byAddress[s.Network+s.Address]; twice {
			p.reason(item.Line, key, fmt.Sprintf("the address %q is here twice; the other one is on line %d", s.Address, line))
			continue
		}
		if line, twice := byName[s.Name]; twice {
			p.reason(item.Line, key, fmt.Sprintf("the name %q is here twice; the other one is on line %d", s.Name, line))
			continue
		}
		byAddress[s.Network+s.Address], byName[s.Name] = item.Line, item.Line
		all = append(all, s)
	}
	return all, len(all) == len(n.Content)
}

func server(p *parser, key string, n *yaml.Node) (s Server, ok bool) {
	before := len(p.errs)
	s = Server{Weight: 1}
	if n.Kind != yaml.MappingNode {
		s.Network, s.Address, s.Name, ok = serverAddress(p, key, n)
		return s, ok
	}
	var name string
	hasAddress := false
	p.mapping(n, key, func(full string, k, v *yaml.Node) {
		switch k.Value {
		case "name":
			name, _ = p.text(full, v, "a printable name of 1 to 255 bytes", func(s string) bool {
				return s != "" && len(s) <= 255 && !controls(s) && strings.TrimSpace(s) == s
			})
		case "address":
			hasAddress = true
			s.Network, s.Address, s.Name, _ = serverAddress(p, full, v)
		case "weight":
			s.Weight, _ = integer(1, 1000)(p, full, v)
		default:
			known := make([]string, len(serverKeys))
			for i, k := range serverKeys {
				known[i] = key + "." + k
			}
			p.unknown(k, full, known)
		}
	})
	if !hasAddress {
		p.reason(n.Line, key, `the address is missing, expected such as address: "10.0.0.11:11211"`)
	}
	if name != "" {
		s.Name = name
	}
	return s, len(p.errs) == before
}

// serverAddress reads host:port, [v6]:port or unix:/path. name is the address in one spelling, so that hosts that
// write it differently place sessions alike.
func serverAddress(p *parser, key string, n *yaml.Node) (network, address, name string, ok bool) {
	s, ok := p.text(key, n, addressForms, func(s string) bool { return s != "" && !controls(s) })
	if !ok {
		return "", "", "", false
	}
	network, address, wrong := parseAddress(s)
	if wrong != "" {
		p.bad(n, key, wrong)
		return "", "", "", false
	}
	name = address
	if network == "unix" {
		name = "unix:" + address
	}
	return network, address, name, true
}

const addressForms = `an address such as "10.0.0.11:11211", "[fd00::11]:11211" or "unix:/run/memcached/memcached.sock"`

var hostName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?$`)

// parseAddress returns what was expected instead where s is not right.
func parseAddress(s string) (network, address, wrong string) {
	if path, isUnix := strings.CutPrefix(s, "unix:"); isUnix {
		if !isSocketPath(path) {
			return "", "", fmt.Sprintf("unix: and an absolute path of at most %d bytes", maxSocketPath)
		}
		return "unix", filepath.Clean(path), ""
	}
	if strings.HasPrefix(s, "/") {
		return "", "", "unix:" + s + " for a socket"
	}
	if ip, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return "", "", fmt.Sprintf("%s: the port is missing (memcached's is 11211)", net.JoinHostPort(ip.String(), "11211"))
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil && !strings.Contains(s, ":") {
		return "", "", s + ":11211: the port is missing (11211 is memcached's)"
	}
	if err != nil {
		return "", "", addressForms
	}
	if number, ok := decimal(port); !ok || number < 1 || number > 65535 {
		if port == "" {
			return "", "", "a port after the colon (memcached's is 11211)"
		}
		return "", "", "a port from 1 to 65535"
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return "tcp", net.JoinHostPort(ip.String(), port), ""
	}
	labels := strings.Split(strings.TrimSuffix(host, "."), ".")
	_, numeric := decimal(labels[len(labels)-1])
	if len(host) > 253 || !hostName.MatchString(host) || numeric || strings.HasPrefix(s, "[") {
		return "", "", "a host name or an IP address before the port"
	}
	return "tcp", net.JoinHostPort(strings.ToLower(host), port), ""
}
