// Package php runs real PHP against real memcached: what PHP's files handler does, on two hosts.
package php

import (
	"strings"
	"testing"

	"sessfs/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// pair is two hosts on the same servers.
func pair(t *testing.T, more string, memcached ...string) (a, b *testkit.Host, m *testkit.Memcached) {
	t.Helper()
	m = testkit.StartMemcached(t, memcached...)
	c := testkit.Conf{Servers: []*testkit.Memcached{m}, More: more}
	return testkit.Mount(t, c), testkit.Mount(t, c), m
}

// want fails when PHP printed something else.
func want(t *testing.T, got, wanted string) {
	t.Helper()
	if strings.TrimSpace(got) != wanted {
		t.Fatalf("PHP printed\n%s\nnot\n%s", strings.TrimSpace(got), wanted)
	}
}

// The scripts below begin with a session named by the first argument.
const start = `session_id($argv[1]); session_start() or exit("no session"); `

// write stores one value, read prints it.
const (
	write = start + `$_SESSION['v'] = $argv[2]; session_write_close() or exit("not written"); echo "ok";`
	read  = start + `echo $_SESSION['v'] ?? '-';`
)
