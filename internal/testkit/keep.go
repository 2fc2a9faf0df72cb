package testkit

import (
	"fmt"
	"testing"
)

// Keep is a value of lock.keep.
type Keep string

// EachKeep runs a test with lock.keep off and on, at the same time: whatever sessfs promises holds either way.
func EachKeep(t *testing.T, test func(t *testing.T, k Keep)) {
	for _, k := range []Keep{"0s", "1s"} {
		t.Run("keep="+string(k), func(t *testing.T) {
			t.Parallel()
			test(t, k)
		})
	}
}

// Lock is the lock section of a configuration, with more of it such as "lease: 4s".
func (k Keep) Lock(more string) string {
	if more != "" {
		more = ", " + more
	}
	return fmt.Sprintf("lock: {keep: %s%s}\n", k, more)
}
