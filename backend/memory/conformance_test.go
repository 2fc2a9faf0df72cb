package memory_test

import (
	"testing"
	"time"

	"sessfs"
	"sessfs/backend/backendtest"
	"sessfs/backend/memory"
)

func TestConformance(t *testing.T) {
	backendtest.Run(t, func(t *testing.T, lifetime time.Duration) sessfs.Backend {
		b := memory.New(memory.Options{Lifetime: lifetime, Lease: backendtest.Lease, MaxSize: backendtest.MaxSize})
		t.Cleanup(func() { b.Close() })
		return b
	})
}
