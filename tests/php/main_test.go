// Package php runs real PHP against real memcached: what PHP's files handler does, on two hosts.
package php

import (
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
const (
	start = testkit.PHPStart
	write = testkit.PHPWrite
	read  = testkit.PHPRead
)
