//go:build !amd64 && !arm64

package confine

import (
	"fmt"
	"runtime"
)

// Filter has no list of system calls for this architecture.
func Filter() error { return fmt.Errorf("there is no filter of system calls for %s", runtime.GOARCH) }
