package config

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestEverythingSet(t *testing.T) {
	c, err := Parse("c.yaml", []byte(`
mountpoint: /srv/sessions/
directory: {owner: www-data, group: 33, mode: "0770"}
files: ["sess_*", 'ci_session*']
depth: 2
owner: www-data
session: {lifetime: 45d12h, max_size: 500KiB, memory: 2GiB}
lock: {lease: 30s, wait: 1m30s, keep: 750ms}
cache:
  servers:
    - {name: a, address: "10.0.0.1:11211", weight: 3}
    - "[0:0::1]:11211"
    - unix:/run//m.sock
    - Cache4.Example:1
  replicas: 3
  quorum: majority
  timeout: 250ms
  retry_interval: 2s
  connections: 4
  prefix: "shop:"
  tls: {ca: /etc/ca.pem, cert: cert.pem, key: /etc//key.pem, server_name: cache.example, min_version: 1.3}
  auth: {user: web, password_file: memcached.password}
seal: {keys: [{name: k2, file: /etc/k2}, {name: k1, file: k1}], accept_plain: true, write_plain: True}
admin: {socket: /run/x.sock, metrics: "[::1]:9115"}
log: {level: debug, format: json}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		Mountpoint: "/srv/sessions", Directory: Directory{"www-data", "33", 0o770}, Files: []string{"sess_*", "ci_session*"},
		Depth: 2, Owner: "www-data",
		Session: Session{45*24*time.Hour + 12*time.Hour, 500 << 10, 2 << 30}, Lock: Lock{30 * time.Second, 90 * time.Second, 750 * time.Millisecond},
		Cache: Cache{
			Servers: []Server{{"a", "tcp", "10.0.0.1:11211", 3}, {"[::1]:11211", "tcp", "[::1]:11211", 1},
				{"unix:/run/m.sock", "unix", "/run/m.sock", 1}, {"cache4.example:1", "tcp", "cache4.example:1", 1}},
			Replicas: 3, Quorum: QuorumMajority, Timeout: 250 * time.Millisecond, RetryInterval: 2 * time.Second, Connections: 4, Prefix: "shop:",
			TLS:  &TLS{"/etc/ca.pem", "cert.pem", "/etc/key.pem", "cache.example", "1.3"},
			Auth: &Auth{"web", "memcached.password"}},
		Seal:  Seal{[]SealKey{{"k2", "/etc/k2"}, {"k1", "k1"}}, true, true},
		Admin: Admin{"/run/x.sock", "", "[::1]:9115"}, Log: Log{slog.LevelDebug, "json"},
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got\n%+v\nwant\n%+v", c, want)
	}
}

func TestEmptyIsTheDefault(t *testing.T) {
	for _, s := range []string{"", "# nothing\n", "---\n", "\ufeff", "cache:\nlog:\n", "cache:\n  servers:\n", "{}", "cache: {servers: []}"} {
		c, err := Parse("c.yaml", []byte(s))
		if err != nil || !reflect.DeepEqual(c, Default()) {
			t.Errorf("%q: %+v %v", s, c, err)
		}
	}
}

func TestDefaultOfReplicas(t *testing.T) {
	for s, want := range map[string]int{
		"":                                       1,
		"cache: {servers: []}":                   1,
		"cache: {servers: [a:1]}":                1,
		"cache: {servers: [a:1, b:1]}":           2,
		"cache: {servers: [a:1, b:1, c:1, d:1]}": 2,
		"cache: {servers: [a:1, b:1], replicas: 1}":                1,
		"cache: {replicas: 5, servers: [a:1, b:1, c:1, d:1, e:1]}": 5,
	} {
		if c, err := Parse("c.yaml", []byte(s)); err != nil || c.Cache.Replicas != want {
			t.Errorf("%s: %+v %v, want %d replicas", s, c, err, want)
		}
	}
}

// Each is refused with its line, its key and a text that says what to do.
func TestRefused(t *testing.T) {
	for _, tc := range []struct{ yaml, want string }{
		{"cache:\n  timout: 1s", "c.yaml:2: cache.timout: unknown key; did you mean cache.timeout?"},
		{"timeout: 1s", "c.yaml:1: timeout: unknown key; did you mean cache.timeout?"},
		{"sesion: {lifetime: 1m}", "unknown key; did you mean session?"},
		{"cache: {tls: {caa: x}}", "cache.tls.caa: unknown key; did you mean cache.tls.ca?"},
		{"cache: {tls: yes}", `cache.tls: found "yes", expected keys and values`},
		{"cache: {tls: {ca: ./x}}", `found "./x", expected an absolute path, or the name of a systemd credential`},
		{"cache: {tls: {cert: /x}}", "c.yaml:1: cache.tls: cert and key go together"},
		{"cache: {tls: {min_version: 1.1}}", `cache.tls.min_version: found "1.1", expected "1.2" or "1.3"`},
		{"cache: {tls: {server_name: 'a b'}}", "a host name or an IP address"},
		{"cache:\n  auth: {user: u}", "c.yaml:2: cache.auth: both user and password_file are needed"},
		{"cache: {auth: {user: 'a:b', password_file: /p}}", "cache.auth.user: found"},
		{"cache: {auth: {user: u, password: secret}}", "cache.auth.password: unknown key; did you mean cache.auth.password_file?"},
		{"seal: {key: x}", "c.yaml:1: seal.key: unknown key; did you mean seal.keys?"},
		{"seal: {keys: [/k]}", `c.yaml:1: seal.keys[0]: found "/k", expected keys and values`},
		{"seal: {keys: /k}", "a list of at most 16 keys"},
		{"seal: {keys: [{name: k}]}", "seal.keys[0]: both name and file are needed"},
		{"seal: {keys: [{name: k, file: ../k}]}", "seal.keys[0].file: found"},
		{"seal:\n  keys:\n  - {name: k, file: /a}\n  - {name: k, file: /b}", `c.yaml:4: seal.keys[1]: the name "k" is here twice; the other one is on line 3`},
		{"seal: {keys: [{name: 'a b', file: /k}]}", "1 to 64 printable bytes without spaces"},
		{"seal: {keys: [{name: k, file: /k}], accept_plain: 1}", `seal.accept_plain: found "1", expected true or false`},
		{"seal: {accept_plain: true}", "seal.accept_plain: is for the introduction of seal.keys, and there are none"},
		{"seal: {keys: [{name: k, file: /k}], write_plain: true}", "c.yaml:1: seal.write_plain: needs seal.accept_plain: true"},
		{"\n\ncache:\n  timeout: 5", `c.yaml:4: cache.timeout: found "5", expected a duration with a unit, such as 1s`},
		{"lock: {wait: 0}", "a duration with a unit"},
		{"cache: {timeout: 9s}", `c.yaml:1: cache.timeout: found "9s", expected less than half of lock.lease, 10s`},
		{"lock:\n  lease: 2s", `c.yaml:2: lock.lease: found "2s", expected more than twice cache.timeout, 1s`},
		{"cache: {timeout: }", "found nothing, expected a duration"},
		{"cache: {timeout: [1s]}", "found a list, expected a duration"},
		{"cache: {timeout: 61s}", "a duration from 10ms to 1m"},
		{"session:\n\n  lifetime: 0s", "c.yaml:3: session.lifetime"},
		{"session: {lifetime: 3651d}", "a duration from 1s to 3650d"},
		{"session: {lifetime: 99999999999999999999d}", "a duration from 1s to 3650d"},
		{"session: {lifetime: -5m}", "a duration from 1s to 3650d"},
		{"session: {lifetime: 1d-5m}", "a duration with a unit"},
		{"session: {lifetime: 1d5}", "a duration with a unit"},
		{"session: {lifetime: 5 minutes}", "a duration with a unit"},
		{"session: {max_size: 16M}", "a size such as 16MiB (did you mean 16MiB?)"},
		{"session: {max_size: 2mb}", "did you mean 2MiB?"},
		{"session: {max_size: 0}", "a size from 1 to 1GiB"},
		{"session: {max_size: 2GiB}", "a size from 1 to 1GiB"},
		{"session: {max_size: 99999999999TiB}", "a size from 1 to 1GiB"},
		{"session: {max_size: 99999999999999999999}", "a size from 1 to 1GiB"},
		{"session: {max_size: -1}", "a size such as"},
		{"session: {max_size: 1.5MiB}", "a size such as"},
		{"directory: {mode: 1733}", `the mode in quotes, such as "1733"`},
		{"directory: {mode: 0o1733}", "the mode in quotes"},
		{`directory: {mode: "1999"}`, "an octal mode"},
		{`directory: {mode: "rwx"}`, "an octal mode"},
		{"directory: {owner: }", "found nothing, expected the name of a user"},
		{"directory: {group: ''}", "the name of a group"},
		{"directory: {owner: 0033}", "the name of a user"},
		{"owner: true", `"keep" or the name of a user`},
		{"depth: 8", "a number from 0 to 7"},
		{"depth: 1_0", "a number from 0 to 7"},
		{"depth: 07", "a number from 0 to 7"},
		{"depth: two", `found "two"`},
		{"depth: 1\ndepth: 2", "c.yaml:2: depth: is here twice; the other one is on line 1"},
		{"log: {level: info}\nlog: {format: text}", "c.yaml:2: log: is here twice"},
		{"mountpoint: relative/path", "an absolute path"},
		{"mountpoint: /", "an absolute path"},
		{`mountpoint: "/a\nb"`, "an absolute path"},
		{"mountpoint: 5", "an absolute path, such as /var/lib/php/sessions, in quotes"},
		{"files: []", "found an empty list, expected a list of file name patterns"},
		{"files: sess_*", "a list of file name patterns"},
		{"files: [a/b]", "files[0]: found \"a/b\", expected a file name pattern without '/'"},
		{"files: ['sess_*', '']", "files[1]"},
		{"lock: {lease: 2500ms}", "whole seconds"},
		{"lock: {lease: 1s}", "a duration from 2s to 1h"},
		{"lock: {keep: 8s}", `c.yaml:1: lock.keep: found "8s", expected less than 8s: what lock.lease, 10s, leaves after its margin`},
		{"lock: {lease: 3s, keep: 1500ms}", "lock.keep: found \"1.5s\", expected less than 1.5s: what lock.lease, 3s, leaves"},
		{"lock: {keep: 61m, lease: 1h}", "a duration from 0s to 1h"},
		{"cache:\n  servers: [a:1, b:1]\n  replicas: 3", `c.yaml:3: cache.replicas: found "3", expected at most 2: cache.servers has no more`},
		{"cache: {replicas: 2, servers: [a:1]}", `c.yaml:1: cache.replicas: found "2", expected at most 1`},
		{"cache:\n  replicas: 2", `c.yaml:2: cache.replicas: found "2", expected 1: cache.servers names none`},
		{"cache: {replicas: 6}", "a number from 1 to 5"},
		{"cache: {replicas: 0}", "a number from 1 to 5"},
		{"cache: {replicas: }", "found nothing, expected a number from 1 to 5"},
		{"cache:\n  quorum: both", `c.yaml:2: cache.quorum: found "both", expected any or majority`},
		{"cache: {quorum: yes}", "any or majority"},
		{"cache: {quorum: 2}", "any or majority, in quotes"},
		{"cache: {connections: 65}", "a number from 1 to 64"},
		{"cache: {servers: [10.0.0.1]}", "10.0.0.1:11211: the port is missing"},
		{"cache: {servers: [cache1]}", "cache1:11211: the port is missing"},
		{"cache: {servers: ['::1']}", "[::1]:11211: the port is missing"},
		{"cache: {servers: ['cache1:']}", "a port after the colon"},
		{"cache: {servers: ['10.0.0.1:0']}", "a port from 1 to 65535"},
		{"cache: {servers: ['10.0.0.1:65536']}", "a port from 1 to 65535"},
		{"cache: {servers: ['10.0.0.256:1']}", "a host name or an IP address"},
		{"cache: {servers: ['a b:1']}", "a host name or an IP address"},
		{"cache: {servers: [':1']}", "a host name or an IP address"},
		{"cache: {servers: ['[a]:1']}", "a host name or an IP address"},
		{"cache: {servers: ['unix:relative']}", "an absolute path"},
		{"cache: {servers: ['/run/m.sock']}", "unix:/run/m.sock for a socket"},
		{"cache: {servers: ['unix:/" + strings.Repeat("x", 107) + "']}", "at most 107 bytes"},
		{"cache:\n  servers:\n  - a:1\n  - A:1", `c.yaml:4: cache.servers[1]: the address "a:1" is here twice; the other one is on line 3`},
		{"cache:\n  servers:\n  - {name: a, address: 'a:1'}\n  - {name: a, address: 'b:1'}", `the name "a" is here twice`},
		{"cache: {servers: [{name: a}]}", "cache.servers[0]: the address is missing"},
		{"cache: {servers: [{adress: 'a:1'}]}", "did you mean cache.servers[0].address?"},
		{"cache: {servers: [{address: 'a:1', weight: 0}]}", "cache.servers[0].weight: found \"0\", expected a number from 1 to 1000"},
		{"cache: {servers: [{address: 'a:1', name: ''}]}", "a printable name"},
		{"cache: {servers: 'a:1'}", "a list of servers"},
		{"cache: {servers: [[a]]}", "found a list, expected an address"},
		{"cache: {prefix: 'a b'}", "printable ASCII"},
		{"cache: {prefix: 'a%'}", "printable ASCII"},
		{"cache: {prefix: ü}", "printable ASCII"},
		{"admin: {socket: x.sock}", "the absolute path of a socket"},
		{"admin: {metrics: ':9115'}", `found ":9115", expected an IP address, or localhost, and a port`},
		{"admin: {metrics: '127.0.0.1'}", "and a port"},
		{"admin: {metrics: 9115}", "in quotes"},
		{"admin: {metrics: 'web1:9115'}", "an IP address, or localhost"},
		{"admin: {metrics: '127.0.0.1:0'}", "and a port"},
		{"admin: {metrics: '127.0.0.1:65536'}", "and a port"},
		{"admin: {metrics: '[fe80::1%eth0]:9115'}", "an IP address"},
		{"log: {level: loud}", "debug, info, warn or error"},
		{"log: {format: xml}", "text or json"},
		{"cache", `found "cache", expected keys and values`},
		{"- a\n- b", "found a list, expected keys and values"},
		{"[a]: b", "expected the name of a key"},
		{"a: &x 1\nowner: *x", "c.yaml:2: owner: anchors, aliases and merge keys are not supported"},
		{"log: &l {level: info}", "anchors, aliases"},
		{"owner: a\nlog: *nowhere", "c.yaml:2: anchors, aliases"},
		{"<<: {depth: 1}", "anchors, aliases"},
		{"files: ['a', &b 'b']", "files[1]: anchors"},
		{"owner: !!binary aGk=", "YAML tags are not supported"},
		{"a: b\ncache:\n\t- x", "c.yaml:3: YAML: "},
		{"depth: 1\nlog: {level: info", "c.yaml:2: YAML: "},
		{"cache: {prefix: sessfs:\n  x: y: z}", "c.yaml:1: YAML: "},
		{"depth: 1\n\nx: \xff", "c.yaml:3: not text in UTF-8: byte 0xff"},
		{"depth: 1\nx: \x00", "c.yaml:2: not text in UTF-8: byte 0x00"},
		{"depth: 1\n---\nlog: {level: warn}", "c.yaml:2: a second YAML document"},
		{strings.Repeat("#", MaxFile+1), "c.yaml: the file is larger than 1048576 bytes"},
	} {
		c, err := Parse("c.yaml", []byte(tc.yaml))
		if err == nil {
			t.Errorf("%.100q was taken: %+v", tc.yaml, c)
		} else if !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%.100q: %v\nwant %s", tc.yaml, err, tc.want)
		}
	}
}

func TestAllErrorsAtOnce(t *testing.T) {
	_, err := Parse("c.yaml", []byte("log: {level: x}\ndepth: x\ncache:\n  timeout: 1\n  bogus: 2\n  servers:\n  - a\n  - {address: 'b:1', weight: x}\nfiles: [a/b]"))
	errs, ok := err.(Errors)
	if !ok {
		t.Fatalf("got %v", err)
	}
	var lines []int
	for _, e := range errs {
		lines = append(lines, e.Line)
	}
	if want := []int{1, 2, 4, 5, 7, 8, 9}; !reflect.DeepEqual(lines, want) {
		t.Errorf("errors on lines %v, want %v:\n%v", lines, want, err)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	if _, err := Load(dir); err == nil {
		t.Error("a directory was taken")
	}
	big := filepath.Join(dir, "big")
	if err := os.WriteFile(big, []byte(strings.Repeat("\n", MaxFile+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(big); err == nil {
		t.Error("a large file was taken")
	}
}

func TestUnits(t *testing.T) {
	for s, want := range map[string]time.Duration{"1d": day, "1d12h": 36 * time.Hour, "1h30m": 90 * time.Minute, "250ms": 250 * time.Millisecond, "0s": 0, "0d": 0} {
		if d, err := parseDuration(s); err != nil || d != want {
			t.Errorf("%s: %v %v", s, d, err)
		}
		if d, err := parseDuration(formatDuration(want)); err != nil || d != want {
			t.Errorf("%s is written as %s", want, formatDuration(want))
		}
	}
	for s, want := range map[string]int64{"1": 1, "7B": 7, "500KiB": 500 << 10, "16MiB": 16 << 20, "16 MiB": 16 << 20, "1GiB": 1 << 30, "16MB": 16e6, "2kB": 2000} {
		if n, err := parseSize(s); err != nil || n != want {
			t.Errorf("%s: %v %v", s, n, err)
		}
		if n, err := parseSize(formatSize(want)); err != nil || n != want {
			t.Errorf("%d is written as %s", want, formatSize(want))
		}
	}
}
