package sessfs

import (
	"syscall"
	"time"
	"unsafe"
)

// clockBoottime is CLOCK_BOOTTIME of clock_gettime(2).
const clockBoottime = 7

// Boottime is the time since boot in nanoseconds, suspended time included (CLOCK_BOOTTIME): the clock of leases. Wall
// clock steps do not touch it.
func Boottime() int64 {
	var ts syscall.Timespec
	if _, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockBoottime, uintptr(unsafe.Pointer(&ts)), 0); errno != 0 {
		return time.Now().UnixNano() // no such clock: kernels before 2.6.39
	}
	return ts.Nano()
}
