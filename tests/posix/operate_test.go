package posix

import (
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The process that makes the calls of the permission matrix, as one user after the other: it keeps root as its saved user,
// which nothing that it calls looks at.

// matrixEnv has the job of such a process, in JSON.
const matrixEnv = "SESSFS_TEST_MATRIX"

// job is a directory, and whose files are made there.
type job struct {
	Dir      string
	Name     string // in the names of files that nobody ever made
	Place    place
	UID, GID int
}

// people are who operates. The files are the owner's, and of the group 2100.
var people = []struct {
	name string
	who  syscall.Credential
}{
	{"root", syscall.Credential{}},
	{"the owner", syscall.Credential{Uid: 2001, Gid: 2001}},
	{"another user", syscall.Credential{Uid: 2002, Gid: 2002}},
	{"one of the group", syscall.Credential{Uid: 2003, Gid: filesGroup}},
	{"one with the group besides", syscall.Credential{Uid: 2004, Gid: 2004, Groups: []uint32{7, filesGroup}}},
}

const (
	filesOwner = 2001
	filesGroup = 2100
)

// place is a directory.
type place struct {
	Mode         uint32
	Owner, Group int
}

func (p place) String() string {
	return fmt.Sprintf("directory %04o of %d:%d", p.Mode, p.Owner, p.Group)
}

var places = []place{{0o1733, 0, 0}, {0o770, 0, filesGroup}, {0o755, 0, 0}, {0o733, 0, 0}, {0o700, filesOwner, 0}, {0o1777, 2002, filesGroup}, {0o1730, 0, filesGroup}, {0o744, 0, 0}}

var fileModes = []uint32{0o600, 0o640, 0o660, 0o604, 0o606, 0o060, 0o006, 0o000, 0o400, 0o4755, 0o2775}

// operation is what one of them does; a failure ends it.
type operation struct {
	name  string
	on    target
	calls []call
}

// target is what an operation is on.
type target int

const (
	onFile      target = iota // that is there
	onMissing                 // that nobody ever made
	onDirectory               // the mount point
	onOther                   // a name that is no session's
)

func opens(flags int) call {
	return call{Op: "open", Slot: 1, Flags: flags, Mode: 0o640}
}

// operations are those on some targets, in the same order each time.
func operations(targets ...target) (list []operation) {
	fd := func(op string) call {
		return call{Op: op, Slot: 1, Size: 2, Data: "zz", Mode: 0o644, Flags: unix.LOCK_EX | unix.LOCK_NB}
	}
	free := call{Op: "flock", Slot: 1, Flags: unix.LOCK_UN} // RELEASE would free it a moment after close
	shared := call{Op: "flock", Slot: 1, Flags: unix.LOCK_SH | unix.LOCK_NB}
	any := map[string][]call{
		"stat": {{Op: "stat"}}, "access": {{Op: "access"}}, "access to read": {{Op: "access", Mode: 4}}, "access to write": {{Op: "access", Mode: 2}},
		"access to both": {{Op: "access", Mode: 6}}, "truncate": {{Op: "truncate", Size: 1}}, "chmod": {{Op: "chmod", Mode: 0o640}}, "chmod setgid": {{Op: "chmod", Mode: 0o2755}},
		"chown to a user": {{Op: "chown", Off: 2002, Size: -1}}, "chown to the owner": {{Op: "chown", Off: filesOwner, Size: -1}}, "chown to the group": {{Op: "chown", Off: -1, Size: filesGroup}},
		"chown to another group": {{Op: "chown", Off: -1, Size: 2004}}, "chown to both": {{Op: "chown", Off: filesOwner, Size: filesGroup}}, "chown to nothing": {{Op: "chown", Off: -1, Size: -1}},
		"touch": {{Op: "utimens"}}, "set times": {{Op: "utimens", Times: []int64{1e9, 1e9}}}, "unlink": {{Op: "unlink"}},
		"open": {opens(unix.O_RDONLY)}, "open to write": {opens(unix.O_WRONLY)}, "open for both": {opens(unix.O_RDWR)}, "open to append": {opens(unix.O_WRONLY | unix.O_APPEND)},
		"open O_CREAT": {opens(unix.O_RDONLY | unix.O_CREAT)}, "open as PHP": {opens(rwc), fd("fstat"), fd("flock"), fd("pread"), fd("ftruncate"), fd("pwrite"), fd("fsync"), free},
		"open O_EXCL": {opens(rwc | unix.O_EXCL)}, "open O_TRUNC": {opens(unix.O_WRONLY | unix.O_TRUNC), fd("fsync")}, "open to read O_TRUNC": {opens(unix.O_TRUNC), fd("fsync")},
		"open O_CREAT O_TRUNC": {opens(unix.O_WRONLY | unix.O_CREAT | unix.O_TRUNC), fd("pwrite")}, "read": {opens(unix.O_RDONLY), fd("pread"), shared, fd("flock"), free},
		"write": {opens(unix.O_WRONLY), fd("pwrite"), fd("fsync"), fd("fstat")}, "fchmod": {opens(unix.O_RDONLY), fd("fchmod")}, "write a file opened to read": {opens(unix.O_RDONLY), fd("pwrite")},
		"ftruncate a file opened to read": {opens(unix.O_RDONLY), fd("ftruncate")}, "read a file opened to write": {opens(unix.O_WRONLY), fd("pread")},
		"rename": {{Op: "rename", Data: "/sess_to"}}, "link": {{Op: "link", Data: "/sess_to"}}, "setxattr": {{Op: "setxattr"}}, "list as a directory": {{Op: "readdir"}},
	}
	fresh := map[string][]call{"mkdir": {{Op: "mkdir", Mode: 0o755}}, "symlink": {{Op: "symlink", Data: "to"}}, "mknod": {{Op: "mknod"}}, "access to run": {{Op: "access", Mode: 1}}}
	dir := map[string][]call{
		"list": {{Op: "readdir"}}, "stat": {{Op: "stat"}}, "access": {{Op: "access", Mode: 0}}, "access to read": {{Op: "access", Mode: 4}}, "access to write": {{Op: "access", Mode: 2}},
		"access to enter": {{Op: "access", Mode: 1}}, "access to all": {{Op: "access", Mode: 7}}, "chmod": {{Op: "chmod", Mode: 0o777}}, "chown": {{Op: "chown", Off: filesOwner, Size: -1}},
		"touch": {{Op: "utimens"}}, "set times": {{Op: "utimens", Times: []int64{1e9, 1e9}}}, "open": {opens(unix.O_RDONLY | unix.O_DIRECTORY)}, "open to write": {opens(unix.O_RDWR)}, "truncate": {{Op: "truncate"}},
	}
	for on, of := range map[target][]map[string][]call{onFile: {any}, onMissing: {any, fresh}, onDirectory: {dir}, onOther: {any, fresh}} {
		for _, m := range of {
			for name, calls := range m {
				list = append(list, operation{name, on, calls})
			}
		}
	}
	list = slices.DeleteFunc(list, func(o operation) bool { return !slices.Contains(targets, o.on) })
	slices.SortFunc(list, func(a, b operation) int {
		if d := int(a.on) - int(b.on); d != 0 {
			return d
		}
		return strings.Compare(a.name, b.name)
	})
	return list
}

// operate is the life of that process: it prints a line for each operation.
func operate(text string) {
	runtime.LockOSThread() // users and groups are a thread's
	syscall.Umask(0)
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		panic(err)
	}
	fresh := 0
	for who := range people {
		for _, mode := range fileModes {
			before := "" // of the file; "": it is to be made anew
			for _, o := range operations(onFile) {
				if before == "" {
					j.file(mode)
					before = after(j.Dir + "/sess_m")
				}
				out := j.outcome(who, "/sess_m", o)
				if !strings.HasSuffix(out, before) || strings.Contains(out, "pwrite= ") {
					before = ""
				}
				fmt.Printf("%s, file %04o\x00%s\x00%d\x00%s\n", people[who].name, mode, o.name, o.on, out)
				unix.Unlink(j.Dir + "/sess_to")
			}
		}
		for _, o := range operations(onMissing, onOther, onDirectory) {
			name := ""
			if o.on != onDirectory {
				fresh++
				name = fmt.Sprint(map[target]string{onMissing: "/sess_none", onOther: "/other"}[o.on], j.Name, fresh)
			}
			fmt.Printf("%s\x00%s\x00%d\x00%s\n", people[who].name, o.name, o.on, j.outcome(who, name, o))
			unix.Unlink(j.Dir + "/sess_to")
			j.reset()
		}
	}
}

// reset gives the directory its owner and mode again, where they can be changed.
func (j job) reset() {
	unix.Chown(j.Dir, j.Place.Owner, j.Place.Group)
	unix.Chmod(j.Dir, j.Place.Mode)
}

// file makes the file anew, as root.
func (j job) file(mode uint32) {
	slots := make(map[int]int)
	path := raw(j.Dir + "/sess_m")
	call{Op: "unlink", Path: path}.do(slots)
	for _, c := range []call{{Op: "open", Slot: 1, Flags: rwc, Mode: 0o600}, {Op: "pwrite", Slot: 1, Data: "abcd"}, {Op: "close", Slot: 1},
		{Op: "chown", Off: int64(j.UID), Size: int64(j.GID)}, {Op: "chmod", Mode: mode}} {
		c.Path = path
		if r := c.do(slots); r.Errno != "" {
			panic(c.Op + ": " + r.Errno)
		}
	}
}

// outcome is what comes of an operation: each call's, and what is there after it.
func (j job) outcome(who int, name string, o operation) string {
	var words []string
	slots := make(map[int]int)
	path := raw(j.Dir + name)
	become(people[who].who)
	if o.on == onMissing || o.on == onOther { // the first touch of a name may say EEXIST
		call{Op: "stat", Path: path}.do(slots)
	}
	for _, c := range o.calls {
		c.Path = path
		if c.Op == "rename" || c.Op == "link" {
			c.Data = raw(j.Dir) + c.Data
		}
		r := c.do(slots)
		word := c.Op + "=" + r.Errno
		if c.Op == "pread" {
			word += string(r.Data)
		}
		words = append(words, word+r.Stat.short())
		if r.Errno != "" {
			break
		}
	}
	call{Op: "close", Slot: 1}.do(slots)
	become(syscall.Credential{})
	return strings.Join(append(words, after(string(path))), " ")
}

// after is what root finds at path.
func after(path string) string {
	r := call{Op: "stat", Path: raw(path)}.do(nil)
	return "then=" + r.Errno + r.Stat.short()
}

// become changes the users and groups of this thread alone.
func become(c syscall.Credential) {
	set := func(number uintptr, args ...uintptr) {
		if _, _, errno := unix.RawSyscall(number, args[0], args[1], args[2]); errno != 0 {
			panic(errno)
		}
	}
	const root = 0
	set(unix.SYS_SETRESUID, ^uintptr(0), root, ^uintptr(0)) // who is no root may not change groups
	groups := append(slices.Clone(c.Groups), 0)
	set(unix.SYS_SETGROUPS, uintptr(len(c.Groups)), uintptr(unsafe.Pointer(&groups[0])), 0)
	set(unix.SYS_SETRESGID, uintptr(c.Gid), uintptr(c.Gid), root)
	set(unix.SYS_SETRESUID, uintptr(c.Uid), uintptr(c.Uid), root)
}

// short is what a program relies on: not the size of a directory.
func (s *stat) short() string {
	switch {
	case s == nil:
		return ""
	case s.Mode&unix.S_IFMT == unix.S_IFDIR:
		return fmt.Sprintf("(%o %d:%d)", s.Mode, s.UID, s.GID)
	}
	return fmt.Sprintf("(%o %d:%d %d bytes, %d)", s.Mode, s.UID, s.GID, s.Size, s.Mtime)
}
