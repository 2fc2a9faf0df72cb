package sessfs

import (
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// clockBoottime is CLOCK_BOOTTIME of clock_gettime(2).
const clockBoottime = 7

// Boottime is the time since boot in nanoseconds, suspended time included (CLOCK_BOOTTIME): the clock of leases. Wall
// clock steps do not touch it.
//
// It is asked for many times in a request, and Go reads only the monotonic and the wall clock without a system call. So
// it is the monotonic clock plus what the kernel said of their difference. A suspension stops the one and not the
// other, and the wall clock shows it; so does every step of the wall clock, after which the kernel is asked again.
func Boottime() int64 {
	now := time.Now()
	mono := int64(now.Sub(boot.epoch))
	if apart := now.UnixNano() - mono - boot.apart.Load(); apart > maxApart || apart < -maxApart {
		return boot.ask()
	}
	return mono + boot.offset.Load()
}

// maxApart is how far the wall clock may drift from the monotonic one, in nanoseconds, before the kernel is asked. The
// margin of leases is much larger.
const maxApart = 50e6

var boot = bootClock{epoch: time.Now()}

type bootClock struct {
	epoch  time.Time
	apart  atomic.Int64 // wall clock less monotonic clock; read before offset and written after it
	offset atomic.Int64 // CLOCK_BOOTTIME less monotonic clock
	mu     sync.Mutex   // held by those who write
}

// ask asks the kernel.
func (b *bootClock) ask() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	mono := int64(now.Sub(b.epoch))
	at := now.UnixNano() // kernels before 2.6.39 have no such clock
	var ts syscall.Timespec
	if _, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockBoottime, uintptr(unsafe.Pointer(&ts)), 0); errno == 0 {
		at = ts.Nano()
	}
	b.offset.Store(at - mono)
	b.apart.Store(now.UnixNano() - mono)
	return at
}
