package memory_test

import (
	"testing"

	"sessfs"
	"sessfs/backend/backendtest"
	"sessfs/backend/memory"
)

func TestConformance(t *testing.T) {
	backendtest.Run(t, func(t *testing.T) sessfs.Backend {
		b := memory.New(memory.Options{Lifetime: backendtest.Lifetime, Lease: backendtest.Lease, MaxSize: backendtest.MaxSize})
		t.Cleanup(func() { b.Close() })
		return b
	})
}
