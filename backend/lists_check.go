package backend

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"unicode"
)

// A list that is read from a server must be one that a configuration could have named. The limits are those of package
// config, whose texts are for the lines of a file.
const (
	maxServerName   = 255 // bytes
	maxServerWeight = 1000
	maxSocketPath   = 107     // the room in sockaddr_un, its final NUL left out
	maxUnixMilli    = 1 << 53 // far beyond any time; sums stay within an int64
)

// check tells why a list cannot be one.
func (l *list) check() error {
	switch {
	case len(l.Servers) == 0 || len(l.Servers) > maxListServers:
		return fmt.Errorf("%d servers, 1 to %d are possible", len(l.Servers), maxListServers)
	case l.Replicas < 1 || l.Replicas > maxReplicas || l.Replicas > len(l.Servers):
		return fmt.Errorf("%d replicas on %d servers", l.Replicas, len(l.Servers))
	case l.Used < 0 || l.Used > maxUnixMilli || l.Moved < 0 || l.Moved > maxUnixMilli:
		return errors.New("a time that is none")
	}
	names, addresses := make(map[string]bool), make(map[string]bool)
	for i := range l.Servers {
		s := &l.Servers[i]
		if err := s.check(); err != nil {
			return fmt.Errorf("server %d: %w", i+1, err)
		}
		if names[s.Name] || addresses[s.Network+s.Address] {
			return fmt.Errorf("server %d: its name or address is there twice", i+1)
		}
		names[s.Name], addresses[s.Network+s.Address] = true, true
	}
	return nil
}

func (s *listServer) check() error {
	switch {
	case s.Name == "" || len(s.Name) > maxServerName || unprintable(s.Name) || strings.TrimSpace(s.Name) != s.Name:
		return fmt.Errorf("%.40q is no name", s.Name)
	case s.Weight < 1 || s.Weight > maxServerWeight:
		return fmt.Errorf("its weight is %d, 1 to %d are possible", s.Weight, maxServerWeight)
	case s.Network == "unix" && isSocketPath(s.Address), s.Network == "tcp" && isHostPort(s.Address):
		return nil
	}
	return fmt.Errorf("%.40q is no address of the kind %.10q", s.Address, s.Network)
}

func unprintable(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

func isSocketPath(s string) bool {
	return filepath.IsAbs(s) && filepath.Clean(s) == s && s != "/" && len(s) <= maxSocketPath && !unprintable(s)
}

var hostName = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_][a-z0-9_-]{0,62})*\.?$`)

// isHostPort knows addresses in the one spelling that package config gives them.
func isHostPort(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil || net.JoinHostPort(host, port) != s {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
		return false
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.String() == host
	}
	return len(host) <= 253 && hostName.MatchString(host)
}
