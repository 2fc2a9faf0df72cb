package config

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// indexOf is what a key has of a list's item.
var indexOf = regexp.MustCompile(`\[\d+\]`)

// lineBreak is what YAML counts as one.
var lineBreak = regexp.MustCompile("\r\n?|[\n\u0085\u2028\u2029]")

// knownKey tells whether a key of an error is one of the schema, or stands below one that is a section of its own.
func knownKey(key string) bool {
	key = indexOf.ReplaceAllString(key, "")
	above := key[:max(0, strings.LastIndexByte(key, '.'))]
	return key == "" || slices.Contains(names(), key) || slices.Contains([]string{"cache.servers", "cache.tls", "cache.auth", "seal.keys"}, above)
}

// FuzzParse: what is taken is taken again when it is written out, and differs in nothing. What is refused tells file, line and
// key, one error a line, in characters that a terminal prints.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "cache: {servers: [a:1, {address: 'unix:/x', weight: 3}, '[::1]:2']}", "a: &a [*a]",
		"mountpoint: /a//b/../c\ndepth: 3", `files: ["\x20*", "a"]`, "lock: {lease: 1h, wait: 0.5s}", "session: {max_size: 7 KiB, lifetime: 1d1ns}", "seal: {keys: [{name: k1, file: /k}, {name: k2, file: k2}], accept_plain: true, write_plain: true}", "cache: {tls: {}, auth: {user: u, password_file: p}}",
		"cache: {tls: {ca: /a//b, cert: c, key: /k, server_name: '::1', min_version: 1.3}}",
		"lock:\n  lease: 3s\n  lease: 4s\n", "? [a]\n: b", "<<: {depth: 1}", "depth: !!int 3", "\x00", "---\na: 1\n---\n", "cache: {timeout: 10s, replicas: 5}",
		"\"\\e[2J\\nx\": 1", "log: {level: \"\\e[2J\"}", "- a", "depth: 08", "files: {}", "cache: {servers: [{name: a}]}", "a: *b", strings.Repeat("[", 11000)} {
		f.Add([]byte(s))
	}
	if data, err := os.ReadFile("../config.yaml"); err == nil {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Parse("f", b)
		if err != nil {
			errs, ok := err.(Errors)
			if !ok || len(errs) == 0 || c != nil {
				t.Fatalf("error %#v", err)
			}
			last := 1 + len(lineBreak.FindAll(b, -1))
			for _, e := range errs {
				text := e.Error()
				if e.File != "f" || !strings.HasPrefix(text, "f:") || e.Line < 0 || e.Line > last+1 || e.Line == 0 && len(b) <= MaxFile {
					t.Fatalf("%s: line %d of %d", text, e.Line, last)
				}
				if e.Reason == "" && !knownKey(e.Key) {
					t.Fatalf("%s: the key %q", text, e.Key)
				}
				if len(text) > 2000 || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
					t.Fatalf("the error %q", text)
				}
			}
			return
		}
		again, err := Parse("again", written(t, c))
		if err != nil || !reflect.DeepEqual(again, c) {
			t.Fatalf("%+v\nwas written and read as\n%+v: %v", c, again, err)
		}
		if live, remount := Diff(c, again); len(live)+len(remount) > 0 {
			t.Fatalf("%q and %q differ from themselves", live, remount)
		}
		c.Warnings()
	})
}
