package fusefs

import (
	"bytes"
	"os"
	"strconv"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fate tells how a process that left an unpublished image went on.
type fate uint8

const (
	fateUnknown fate = iota
	fateFine         // alive, or ended by itself
	fateKilled       // ended by a signal
)

// witness watches a process, so that its end can be told even after it was reaped.
type witness struct {
	pid   uint32
	pidfd int // -1: none
	kept  *keptPidfd
}

// keptPidfd is the descriptor of a process that changes sessions again and again, as those of php-fpm do: to open and to
// close one for each change would be two of some twenty system calls of a PHP request.
type keptPidfd struct {
	pid  uint32
	fd   int
	used int // by images, now
}

// witnesses keeps the descriptors of the processes that changed something last, one for each place.
type witnesses struct {
	mu   sync.Mutex
	kept [128]keptPidfd // guarded by mu; pid 0: none
}

// watch begins to watch the process of a request, which is alive: it waits for the answer. The pid of a request is a
// thread's.
func (ws *witnesses) watch(pid uint32) witness {
	if pid == 0 {
		return witness{pidfd: -1}
	}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	k := &ws.kept[pid%uint32(len(ws.kept))]
	if k.pid == pid && alive(k.fd) { // nobody else can have this pid before that process is reaped
		k.used++
		return witness{pid: pid, pidfd: k.fd, kept: k}
	}
	fd := pidfdOpen(pid)
	if fd < 0 { // not the first thread of its process
		pid = threadGroup(pid)
		return witness{pid: pid, pidfd: pidfdOpen(pid)}
	}
	if k.used > 0 {
		return witness{pid: pid, pidfd: fd}
	}
	if k.pid != 0 {
		closePidfd(k.fd)
	}
	*k = keptPidfd{pid: pid, fd: fd, used: 1}
	return witness{pid: pid, pidfd: fd, kept: k}
}

// done ends the watching.
func (ws *witnesses) done(w *witness) {
	if w.kept == nil {
		closePidfd(w.pidfd)
		return
	}
	ws.mu.Lock()
	w.kept.used--
	ws.mu.Unlock()
}

// tidy closes the descriptors of processes that are gone.
func (ws *witnesses) tidy() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for i := range ws.kept {
		if k := &ws.kept[i]; k.pid != 0 && k.used == 0 && !alive(k.fd) {
			closePidfd(k.fd)
			*k = keptPidfd{}
		}
	}
}

// close ends all watching.
func (ws *witnesses) close() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for i := range ws.kept {
		if k := &ws.kept[i]; k.pid != 0 {
			closePidfd(k.fd)
			*k = keptPidfd{}
		}
	}
}

// These are in the way of PHP requests and do not block: raw system calls.

// pidfdOpen returns -1 where it fails.
func pidfdOpen(pid uint32) int {
	fd, _, errno := unix.RawSyscall(unix.SYS_PIDFD_OPEN, uintptr(pid), 0, 0)
	if errno != 0 {
		return -1
	}
	return int(fd)
}

// alive tells whether a process was not reaped yet. Without CAP_KILL the answer for those of other users is EPERM.
func alive(pidfd int) bool {
	_, _, errno := unix.RawSyscall6(unix.SYS_PIDFD_SEND_SIGNAL, uintptr(pidfd), 0, 0, 0, 0, 0)
	return errno != unix.ESRCH
}

func closePidfd(fd int) {
	if fd >= 0 {
		unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0)
	}
}

// threadGroup returns the process that a thread belongs to; the thread itself when it is gone.
func threadGroup(tid uint32) uint32 {
	b, err := os.ReadFile("/proc/" + strconv.FormatUint(uint64(tid), 10) + "/status")
	if err != nil {
		return tid
	}
	_, rest, found := bytes.Cut(b, []byte("\nTgid:\t"))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	n, err := strconv.ParseUint(string(line), 10, 32)
	if !found || err != nil || n == 0 {
		return tid
	}
	return uint32(n)
}

// fate looks at the process now. While it is there, exiting or a zombie, its exit code stands in /proc/PID/stat (field
// 52, proc(5)); once it was reaped the pidfd tells it from Linux 6.15 on.
func (w *witness) fate() fate {
	if w.pid == 0 {
		return fateUnknown
	}
	if w.pidfd >= 0 && !alive(w.pidfd) { // reaped: /proc may show another process by now
		return w.reaped()
	}
	b, err := os.ReadFile("/proc/" + strconv.FormatUint(uint64(w.pid), 10) + "/stat")
	if err != nil || w.pidfd >= 0 && !alive(w.pidfd) { // reaped meanwhile
		return w.reaped()
	}
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 50 {
		return fateUnknown
	}
	code, err := strconv.Atoi(string(fields[49])) // field 52, counted from behind the command's name (field 2)
	if err != nil {
		return fateUnknown
	}
	return fateOf(code)
}

// reaped is the fate of a process that /proc has forgotten.
func (w *witness) reaped() fate {
	if w.pidfd >= 0 {
		if code, ok := pidfdExit(w.pidfd); ok {
			return fateOf(code)
		}
	}
	return fateUnknown
}

func fateOf(waitStatus int) fate {
	if waitStatus&0x7f != 0 {
		return fateKilled
	}
	return fateFine
}

// pidfdInfo is struct pidfd_info of linux/pidfd.h.
type pidfdInfo struct {
	mask, cgroup                               uint64
	pid, tgid, ppid                            uint32
	ruid, rgid, euid, egid, suid, sgid, fu, fg uint32
	exitCode                                   int32
}

const pidfdInfoExit = 1 << 3

// pidfdExit asks PIDFD_GET_INFO for the wait status of a process that has ended.
func pidfdExit(fd int) (status int, ok bool) {
	info := pidfdInfo{mask: pidfdInfoExit}
	const size = unsafe.Sizeof(info)
	const request = 3<<30 | size<<16 | 0xff<<8 | 11 // _IOWR(0xFF, 11, struct pidfd_info)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(&info))); errno != 0 {
		return 0, false
	}
	return int(info.exitCode), info.mask&pidfdInfoExit != 0
}
