package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"gopkg.in/yaml.v3"
)

// maxSocketPath is the room for a path in sockaddr_un, its final NUL left out.
const maxSocketPath = 107

// scalar is a single value as it is written.
func scalar(n *yaml.Node) (text, tag string, ok bool) {
	if n.Kind != yaml.ScalarNode || isNull(n) {
		return "", "", false
	}
	return n.Value, n.ShortTag(), true
}

// text reads a string that ok accepts; expected describes it.
func (p *parser) text(key string, n *yaml.Node, expected string, ok func(string) bool) (string, bool) {
	s, tag, is := scalar(n)
	if is && tag != "!!str" {
		expected += ", in quotes" // YAML takes it for a number, a date or a truth value
		is = false
	}
	if !is || !ok(s) {
		p.bad(n, key, expected)
		return "", false
	}
	return s, true
}

// controls says whether there are control characters or what else has no shape to print.
func controls(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

func absolutePath(p *parser, key string, n *yaml.Node) (string, bool) {
	s, ok := p.text(key, n, "an absolute path, such as /var/lib/php/sessions", func(s string) bool {
		return filepath.IsAbs(s) && filepath.Clean(s) != "/" && !controls(s)
	})
	return filepath.Clean(s), ok
}

func socketPath(p *parser, key string, n *yaml.Node) (string, bool) {
	s, ok := p.text(key, n, fmt.Sprintf("the absolute path of a socket, of at most %d bytes", maxSocketPath), isSocketPath)
	return filepath.Clean(s), ok
}

func isSocketPath(s string) bool {
	return filepath.IsAbs(s) && filepath.Clean(s) != "/" && len(filepath.Clean(s)) <= maxSocketPath && !controls(s)
}

const listenForms = `an IP address, or localhost, and a port, such as "127.0.0.1:9115" or "[::1]:9115"; or "" for none`

// listenAddress reads where to listen: names are not looked up, since one may mean an address that is not meant.
func listenAddress(p *parser, key string, n *yaml.Node) (string, bool) {
	return p.text(key, n, listenForms, func(s string) bool {
		if s == "" {
			return true
		}
		host, port, err := net.SplitHostPort(s)
		if err != nil {
			return false
		}
		ip, err := netip.ParseAddr(host)
		number, isNumber := decimal(port)
		return (host == "localhost" || err == nil && ip.Zone() == "") && isNumber && number >= 1 && number <= 65535
	})
}

// userName reads the name or number of a user or group.
func userName(p *parser, key string, n *yaml.Node) (string, bool) {
	s, tag, ok := scalar(n)
	if tag == "!!int" {
		_, ok = decimal(s)
	} else if tag != "!!str" {
		ok = false
	}
	if !ok || s == "" || controls(s) || strings.ContainsAny(s, " :/,") {
		expected := "the name of a user"
		if strings.HasSuffix(key, "group") {
			expected = "the name of a group"
		}
		if key == "owner" {
			expected = `"keep" or ` + expected
		}
		p.bad(n, key, expected)
		return "", false
	}
	return s, true
}

// groupOrNone is userName, but may be "".
func groupOrNone(p *parser, key string, n *yaml.Node) (string, bool) {
	if s, tag, ok := scalar(n); ok && tag == "!!str" && s == "" {
		return "", true
	}
	return userName(p, key, n)
}

var octal = regexp.MustCompile(`^0?[0-7]{3,4}$`)

func yesNo(p *parser, key string, n *yaml.Node) (bool, bool) {
	s, tag, ok := scalar(n)
	if !ok || tag != "!!bool" {
		p.bad(n, key, "true or false")
		return false, false
	}
	return strings.EqualFold(s, "true"), true
}

func fileMode(p *parser, key string, n *yaml.Node) (uint32, bool) {
	s, tag, ok := scalar(n)
	switch {
	case ok && (tag == "!!int" || tag == "!!float"):
		p.bad(n, key, `the mode in quotes, such as "1733" (without them YAML may read another number than is written)`)
		return 0, false
	case !ok || tag != "!!str" || !octal.MatchString(s):
		p.bad(n, key, `an octal mode in quotes, such as "1733"`)
		return 0, false
	}
	mode, err := strconv.ParseUint(s, 8, 32)
	return uint32(mode), err == nil
}

func patterns(p *parser, key string, n *yaml.Node) ([]string, bool) {
	if n.Kind != yaml.SequenceNode || len(n.Content) == 0 {
		p.bad(n, key, `a list of file name patterns, such as ["sess_*"]`)
		return nil, false
	}
	var all []string
	for i, item := range n.Content {
		key := fmt.Sprintf("%s[%d]", key, i)
		if !p.plain(item, key) {
			continue
		}
		s, ok := p.text(key, item, `a file name pattern without '/', such as "sess_*", of at most 255 bytes`, func(s string) bool {
			return s != "" && s != "." && s != ".." && len(s) <= 255 && !strings.Contains(s, "/") && !controls(s)
		})
		if ok {
			all = append(all, s)
		}
	}
	return all, len(all) == len(n.Content)
}

// decimal reads a number as people write it: no sign, no leading zero (which YAML may take for octal), no underscores.
func decimal(s string) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n >= 0 && strconv.FormatInt(n, 10) == s
}

func integer(lo, hi int) func(*parser, string, *yaml.Node) (int, bool) {
	return func(p *parser, key string, n *yaml.Node) (int, bool) {
		s, tag, ok := scalar(n)
		v, isNumber := decimal(s)
		if !ok || tag != "!!int" || !isNumber || v < int64(lo) || v > int64(hi) {
			p.bad(n, key, fmt.Sprintf("a number from %d to %d", lo, hi))
			return 0, false
		}
		return int(v), true
	}
}

func duration(lo, hi time.Duration) func(*parser, string, *yaml.Node) (time.Duration, bool) {
	return func(p *parser, key string, n *yaml.Node) (time.Duration, bool) {
		s, _, ok := scalar(n)
		d, err := parseDuration(s)
		switch {
		case ok && errors.Is(err, errNoUnit):
			p.bad(n, key, "a duration with a unit, such as 1s")
		case !ok || errors.Is(err, errUnit):
			p.bad(n, key, "a duration with a unit, such as 250ms, 1s, 24m, 1h30m or 7d")
		case err != nil || d < lo || d > hi:
			p.bad(n, key, fmt.Sprintf("a duration from %s to %s", formatDuration(lo), formatDuration(hi)))
		default:
			return d, true
		}
		return 0, false
	}
}

// wholeSeconds is duration for what memcached counts in seconds.
func wholeSeconds(lo, hi time.Duration) func(*parser, string, *yaml.Node) (time.Duration, bool) {
	read := duration(lo, hi)
	return func(p *parser, key string, n *yaml.Node) (time.Duration, bool) {
		d, ok := read(p, key, n)
		if ok && d%time.Second != 0 {
			p.bad(n, key, "whole seconds")
			return 0, false
		}
		return d, ok
	}
}

func size(lo, hi int64) func(*parser, string, *yaml.Node) (int64, bool) {
	return func(p *parser, key string, n *yaml.Node) (int64, bool) {
		s, _, ok := scalar(n)
		v, err := parseSize(s)
		switch {
		case ok && errors.Is(err, errUnit) && binaryUnit(s) != "":
			p.bad(n, key, fmt.Sprintf("a size such as 16MiB (did you mean %s?)", binaryUnit(s)))
		case !ok || errors.Is(err, errUnit):
			p.bad(n, key, "a size such as 1048576, 500KiB or 16MiB")
		case err != nil || v < lo || v > hi:
			p.bad(n, key, fmt.Sprintf("a size from %s to %s", formatSize(lo), formatSize(hi)))
		default:
			return v, true
		}
		return 0, false
	}
}

func keyPrefix(p *parser, key string, n *yaml.Node) (string, bool) {
	return p.text(key, n, "at most 64 printable ASCII characters without spaces and '%'", func(s string) bool {
		return len(s) <= 64 && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == '%' })
	})
}

func quorum(p *parser, key string, n *yaml.Node) (string, bool) {
	return p.text(key, n, "any or majority", func(s string) bool { return s == QuorumAny || s == QuorumMajority })
}

var levels = map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}

func levelOf(c *Config) *slog.Level { return &c.Log.Level }

func logLevel(p *parser, key string, n *yaml.Node) (slog.Level, bool) {
	s, ok := p.text(key, n, "debug, info, warn or error", func(s string) bool { _, ok := levels[s]; return ok })
	return levels[s], ok
}

func logFormat(p *parser, key string, n *yaml.Node) (string, bool) {
	return p.text(key, n, "text or json", func(s string) bool { return s == "text" || s == "json" })
}
