package admin

import (
	"testing"
	"sessfs/internal/testkit"
)
func copies(t *testing.T, m *testkit.Memcached, n int) {}
