//go:build amd64 || arm64

package confine

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// forbidden are system calls that the daemon never makes, and that would be of use to somebody who has taken it over. (A
// list of what it may do would have to know what the Go runtime does on each kernel; the systemd unit has one of those.)
var forbidden = []uint32{
	// other programs
	unix.SYS_EXECVE, unix.SYS_EXECVEAT,
	// other processes
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PROCESS_MADVISE, unix.SYS_PIDFD_GETFD, unix.SYS_KCMP,
	// namespaces and roots
	unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT,
	// the kernel itself
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD,
	unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_SYSLOG, unix.SYS_REBOOT, unix.SYS_LOOKUP_DCOOKIE,
	unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER, unix.SYS_PERSONALITY, unix.SYS_FANOTIFY_INIT,
	// the machine
	unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_ACCT, unix.SYS_QUOTACTL, unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME,
	unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_ADJTIMEX, unix.SYS_CLOCK_ADJTIME, unix.SYS_VHANGUP,
	// keys, and files by number
	unix.SYS_ADD_KEY, unix.SYS_KEYCTL, unix.SYS_REQUEST_KEY, unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_NAME_TO_HANDLE_AT,
	// other users
	unix.SYS_SETUID, unix.SYS_SETGID, unix.SYS_SETREUID, unix.SYS_SETREGID, unix.SYS_SETRESUID, unix.SYS_SETRESGID,
	unix.SYS_SETFSUID, unix.SYS_SETFSGID, unix.SYS_SETGROUPS,
}

// mounting is forbidden too where the keeper does it.
var mounting = []uint32{
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE, unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT,
	unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR,
}

// x32 marks the other set of system calls that an amd64 kernel may have (asm/unistd.h).
const x32 = 0x40000000

// Filter has the kernel refuse, with EPERM, what the daemon never does: the system calls above, those of another
// architecture, and making processes. It holds for all threads, and for good. A daemon that has CAP_SYS_ADMIN may mount.
func Filter() error {
	list := forbidden
	if !Has(unix.CAP_SYS_ADMIN) {
		list = append(mounting, list...)
	}
	program := filter(list)
	runtime.LockOSThread() // which is then the one that the others are like
	defer runtime.UnlockOSThread()
	f := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil { // a keeper of an older version has not
		return fmt.Errorf("prctl(PR_SET_NO_NEW_PRIVS): %w", err)
	}
	other, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&f)))
	if errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	if other != 0 {
		return fmt.Errorf("seccomp: thread %d has a filter of its own", other)
	}
	return nil
}

// filter is the program over struct seccomp_data: its answer is the last statement, or the one before.
func filter(list []uint32) []unix.SockFilter {
	const (
		nr, arch, flags = 0, 4, 16 // offsets; flags: the first argument, of which clone's flags are the lower half
		refuse          = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	)
	var p []unix.SockFilter
	load := func(at uint32) { p = append(p, unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}) }
	ret := func(v uint32) { p = append(p, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: v}) }
	// jump goes past the statement behind it unless the comparison holds (or, with not, where it does).
	jump := func(compare uint16, k uint32, not bool) {
		s := unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_K | compare, K: k, Jf: 1}
		if not {
			s.Jt, s.Jf = 1, 0
		}
		p = append(p, s)
	}
	own := uint32(unix.AUDIT_ARCH_X86_64)
	if runtime.GOARCH == "arm64" {
		own = unix.AUDIT_ARCH_AARCH64
	}
	load(arch)
	jump(unix.BPF_JEQ, own, true)
	ret(refuse)
	load(nr)
	if runtime.GOARCH == "amd64" {
		jump(unix.BPF_JGE, x32, false)
		ret(refuse)
	}
	for _, n := range list {
		jump(unix.BPF_JEQ, n, false)
		ret(refuse)
	}
	// What clone3 is to make cannot be seen: a C library goes on with clone.
	jump(unix.BPF_JEQ, unix.SYS_CLONE3, false)
	ret(unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS))
	p = append(p, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_CLONE, Jf: 3})
	load(flags)
	jump(unix.BPF_JSET, unix.CLONE_THREAD, true)
	ret(refuse)
	ret(unix.SECCOMP_RET_ALLOW)
	return p
}
