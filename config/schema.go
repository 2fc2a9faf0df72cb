package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// key_ is one row of the schema.
type key_ struct {
	name string
	when effect
	set  func(p *parser, c *Config, n *yaml.Node)
	same func(a, b *Config) bool
}

// effect says when a change of a key takes effect.
type effect uint8

const (
	remount effect = iota // with the next mount
	live                  // while mounted
	// shared: while mounted too, but not where one of the configurations names no servers. Sessions that are kept in the
	// process cannot become those of servers under a mount that uses them.
	shared
)

func (e effect) whileMounted(old, new *Config) bool {
	return e == live || e == shared && (len(old.Cache.Servers) > 0) == (len(new.Cache.Servers) > 0)
}

// key makes a row: where the value is kept, and what reads it. read notes an error and returns false for a value that
// is not right.
func key[T any](name string, when effect, at func(*Config) *T, read func(p *parser, key string, n *yaml.Node) (T, bool)) key_ {
	return key_{
		name: name, when: when,
		set: func(p *parser, c *Config, n *yaml.Node) {
			if v, ok := read(p, name, n); ok {
				*at(c) = v
			}
		},
		same: func(a, b *Config) bool { return reflect.DeepEqual(*at(a), *at(b)) },
	}
}

// keys is the schema, in the order of the sample file. It is filled by init because what reads a value needs it too.
var keys []key_

func init() {
	const year = 365 * day
	keys = []key_{
		key("mountpoint", remount, func(c *Config) *string { return &c.Mountpoint }, absolutePath),
		key("directory.owner", remount, func(c *Config) *string { return &c.Directory.Owner }, userName),
		key("directory.group", remount, func(c *Config) *string { return &c.Directory.Group }, userName),
		key("directory.mode", remount, func(c *Config) *uint32 { return &c.Directory.Mode }, fileMode),
		key("files", remount, func(c *Config) *[]string { return &c.Files }, patterns),
		key("depth", remount, func(c *Config) *int { return &c.Depth }, integer(0, 7)),
		key("owner", remount, func(c *Config) *string { return &c.Owner }, userName),
		key("session.lifetime", live, func(c *Config) *time.Duration { return &c.Session.Lifetime }, duration(time.Second, 10*year)),
		key("session.max_size", live, func(c *Config) *int64 { return &c.Session.MaxSize }, size(1, 1<<30)),
		key("session.memory", live, func(c *Config) *int64 { return &c.Session.Memory }, size(0, 1<<40)),
		key("lock.lease", live, func(c *Config) *time.Duration { return &c.Lock.Lease }, wholeSeconds(2*time.Second, time.Hour)),
		key("lock.wait", live, func(c *Config) *time.Duration { return &c.Lock.Wait }, duration(0, day)),
		key("lock.keep", live, func(c *Config) *time.Duration { return &c.Lock.Keep }, duration(0, time.Hour)),
		key("cache.servers", shared, func(c *Config) *[]Server { return &c.Cache.Servers }, servers),
		key("cache.replicas", shared, func(c *Config) *int { return &c.Cache.Replicas }, integer(1, 5)),
		key("cache.quorum", shared, func(c *Config) *string { return &c.Cache.Quorum }, quorum),
		key("cache.timeout", live, func(c *Config) *time.Duration { return &c.Cache.Timeout }, duration(10*time.Millisecond, time.Minute)),
		key("cache.retry_interval", live, func(c *Config) *time.Duration { return &c.Cache.RetryInterval }, duration(100*time.Millisecond, time.Hour)),
		key("cache.connections", remount, func(c *Config) *int { return &c.Cache.Connections }, integer(1, 64)),
		key("cache.prefix", remount, func(c *Config) *string { return &c.Cache.Prefix }, keyPrefix),
		key("cache.tls", live, func(c *Config) **TLS { return &c.Cache.TLS }, tlsOf),
		key("cache.auth", live, func(c *Config) **Auth { return &c.Cache.Auth }, authOf),
		key("seal.keys", live, func(c *Config) *[]SealKey { return &c.Seal.Keys }, sealKeys),
		key("seal.accept_plain", live, func(c *Config) *bool { return &c.Seal.AcceptPlain }, yesNo),
		key("seal.write_plain", live, func(c *Config) *bool { return &c.Seal.WritePlain }, yesNo),
		key("admin.socket", remount, func(c *Config) *string { return &c.Admin.Socket }, socketPath),
		key("admin.group", remount, func(c *Config) *string { return &c.Admin.Group }, groupOrNone),
		key("admin.metrics", live, func(c *Config) *string { return &c.Admin.Metrics }, listenAddress),
		key("log.level", live, levelOf, logLevel),
		key("log.format", live, func(c *Config) *string { return &c.Log.Format }, logFormat),
	}
}

// names are those of all keys and sections.
func names() []string {
	var all []string
	for _, k := range keys {
		if section, _, nested := strings.Cut(k.name, "."); nested && !slices.Contains(all, section) {
			all = append(all, section)
		}
		all = append(all, k.name)
	}
	return all
}

// relations checks what no key can tell alone.
func (p *parser) relations(c *Config) {
	p.keepWithinLease(c)
	p.serversForReplicas(c)
	p.sealSteps(c)
	if 2*c.Cache.Timeout < c.Lock.Lease {
		return
	}
	// The line is that of whichever was written; both defaults together are right.
	key, found, expected := "cache.timeout", c.Cache.Timeout, "less than half of lock.lease, "+formatDuration(c.Lock.Lease)
	if p.lines[key] == 0 {
		key, found, expected = "lock.lease", c.Lock.Lease, "more than twice cache.timeout, "+formatDuration(c.Cache.Timeout)
	}
	p.errs = append(p.errs, Error{File: p.file, Line: p.lines[key], Key: key, Found: fmt.Sprintf("%q", formatDuration(found)),
		Expected: expected + ": a lease must outlive the renewal that is late"})
}

// keepWithinLease: a kept lease is not renewed, so that it must end before its holder stops relying on it.
func (p *parser) keepWithinLease(c *Config) {
	room := c.Lock.Lease - min(2*time.Second, c.Lock.Lease/2)
	if c.Lock.Keep < room {
		return
	}
	p.errs = append(p.errs, Error{File: p.file, Line: p.lines["lock.keep"], Key: "lock.keep", Found: fmt.Sprintf("%q", formatDuration(c.Lock.Keep)),
		Expected: fmt.Sprintf("less than %s: what lock.lease, %s, leaves after its margin; a kept lease is not renewed", formatDuration(room), formatDuration(c.Lock.Lease))})
}

// serversForReplicas: each copy of a session is on a server of its own.
func (p *parser) serversForReplicas(c *Config) {
	const key = "cache.replicas"
	room := max(1, len(c.Cache.Servers))
	if c.Cache.Replicas <= room {
		return
	}
	expected := fmt.Sprintf("at most %d: cache.servers has no more", room)
	if len(c.Cache.Servers) == 0 {
		expected = "1: cache.servers names none, and the process keeps one copy"
	}
	p.errs = append(p.errs, Error{File: p.file, Line: p.lines[key], Key: key, Found: fmt.Sprintf("%q", fmt.Sprint(c.Cache.Replicas)), Expected: expected})
}

// defaultReplicas is how many copies of a session there are where the file does not say it.
func defaultReplicas(servers int) int { return max(1, min(servers, 2)) }

// Diff names the keys in which two configurations differ: those that can change while mounted, and those that need a
// remount. The list of servers, with replicas and quorum, needs one where it begins or ends to name any.
func Diff(old, new *Config) (live, remount []string) {
	for _, k := range keys {
		switch {
		case k.same(old, new):
		case k.when.whileMounted(old, new):
			live = append(live, k.name)
		default:
			remount = append(remount, k.name)
		}
	}
	return live, remount
}

// Keys are the names of all keys there are, section.key, in the order of the sample file.
func Keys() []string {
	all := make([]string, len(keys))
	for i, k := range keys {
		all[i] = k.name
	}
	return all
}
