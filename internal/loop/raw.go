package loop

import (
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The raw system calls below do not tell Go's scheduler. That is right only where they cannot block.

// Read reads from a descriptor in non-blocking mode.
func Read(fd int, b []byte) (int, syscall.Errno) {
	if len(b) == 0 {
		return 0, 0
	}
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	return int(n), errno
}

// Write writes to a descriptor in non-blocking mode, or to /dev/fuse, where it never blocks.
func Write(fd int, b []byte) (int, syscall.Errno) {
	if len(b) == 0 {
		return 0, 0
	}
	n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	return int(n), errno
}

// Writev writes several pieces, 1024 at most (IOV_MAX), to a descriptor in non-blocking mode.
func Writev(fd int, iov []unix.Iovec) (int, syscall.Errno) {
	if len(iov) == 0 {
		return 0, 0
	}
	n, _, errno := unix.RawSyscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)))
	return int(n), errno
}

// epollWait waits for events without giving the P up, which is why it must be short. It is -1 after a signal. Kernels
// before 5.11, which have no epoll_pwait2, do not wait at all here.
func epollWait(fd int, events []unix.EpollEvent, wait time.Duration) int {
	limit := unix.NsecToTimespec(int64(wait))
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT2, uintptr(fd), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)),
		uintptr(unsafe.Pointer(&limit)), 0, 0)
	if errno != 0 && errno != unix.EINTR { // ENOSYS, or EPERM of a seccomp filter that does not know it
		n, _, errno = unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(fd), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	}
	if errno != 0 {
		return -1
	}
	return int(n)
}
