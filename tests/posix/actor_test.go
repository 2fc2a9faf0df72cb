package posix

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"sort"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"sessfs/internal/testkit"
)

// An actor is a process that makes system calls for the test, one after the other, as some user. The test process
// itself never touches a mount.

// call is one system call.
type call struct {
	Op    string
	Path  string `json:",omitempty"`
	Slot  int    `json:",omitempty"` // a number for an open file
	Flags int    `json:",omitempty"`
	Mode  uint32 `json:",omitempty"`
	Off   int64  `json:",omitempty"`
	Size  int64  `json:",omitempty"`
	Data  string `json:",omitempty"`
	Times []int64
}

// result is what it brought.
type result struct {
	Errno string `json:",omitempty"`
	N     int    `json:",omitempty"`
	Data  string `json:",omitempty"`
	Stat  *stat  `json:",omitempty"`
}

type stat struct {
	Size         int64
	Mode         uint32
	UID, GID     uint32
	Atime, Mtime int64 // seconds; -1: within the last minute
	Nlink        uint64
}

func (r result) String() string {
	b, _ := json.Marshal(r)
	return string(b)
}

const actorEnv = "SESSFS_TEST_ACTOR"

func TestMain(m *testing.M) {
	if os.Getenv(actorEnv) != "" {
		act()
		return
	}
	flag.Set("rapid.nofailfile", "true") // the log has the steps
	testkit.Main(m)
}

// act is the actor's side.
func act() {
	syscall.Umask(0)
	slots := make(map[int]int)
	in, out := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	in.Buffer(nil, 1<<24)
	for in.Scan() {
		var c call
		if err := json.Unmarshal(in.Bytes(), &c); err != nil {
			panic(err)
		}
		out.Encode(c.do(slots))
	}
}

func (c call) do(slots map[int]int) result {
	fd, open := slots[c.Slot]
	if !open {
		fd = -1
	}
	var err error
	var r result
	switch c.Op {
	case "open":
		if open {
			unix.Close(fd)
			delete(slots, c.Slot)
		}
		if fd, err = unix.Open(c.Path, c.Flags|unix.O_CLOEXEC, c.Mode); err == nil {
			slots[c.Slot] = fd
		}
	case "close":
		err = unix.Close(fd)
		delete(slots, c.Slot)
	case "pread":
		b := make([]byte, c.Size)
		if r.N, err = unix.Pread(fd, b, c.Off); err == nil {
			r.Data = string(b[:r.N])
		}
	case "pwrite":
		r.N, err = unix.Pwrite(fd, []byte(c.Data), c.Off)
	case "ftruncate":
		err = unix.Ftruncate(fd, c.Size)
	case "truncate":
		err = unix.Truncate(c.Path, c.Size)
	case "fsync":
		err = unix.Fsync(fd)
	case "flock":
		err = unix.Flock(fd, c.Flags)
	case "fstat":
		var st unix.Stat_t
		if err = unix.Fstat(fd, &st); err == nil {
			r.Stat = statOf(&st)
		}
	case "stat":
		var st unix.Stat_t
		if err = unix.Lstat(c.Path, &st); err == nil {
			r.Stat = statOf(&st)
		}
	case "access":
		err = unix.Access(c.Path, c.Mode)
	case "unlink":
		err = unix.Unlink(c.Path)
	case "chmod":
		err = unix.Chmod(c.Path, c.Mode)
	case "fchmod":
		err = unix.Fchmod(fd, c.Mode)
	case "chown":
		err = unix.Lchown(c.Path, int(c.Off), int(c.Size))
	case "utimens":
		var ts []unix.Timespec
		if c.Times != nil {
			ts = []unix.Timespec{{Sec: c.Times[0]}, {Sec: c.Times[1]}}
			err = unix.UtimesNanoAt(unix.AT_FDCWD, c.Path, ts, 0)
		} else {
			err = touchNow(c.Path)
		}
	case "readdir":
		var list []os.DirEntry
		if list, err = os.ReadDir(c.Path); err == nil {
			var names []string
			for _, e := range list {
				names = append(names, e.Name()+" "+e.Type().String())
			}
			sort.Strings(names)
			r.Data = strings.Join(names, "\n")
		}
	case "mkdir":
		err = unix.Mkdir(c.Path, c.Mode)
	case "symlink":
		err = unix.Symlink(c.Data, c.Path)
	case "link":
		err = unix.Link(c.Path, c.Data)
	case "rename":
		err = unix.Rename(c.Path, c.Data)
	case "mknod":
		err = unix.Mknod(c.Path, unix.S_IFIFO|0o600, 0)
	case "setxattr":
		err = unix.Setxattr(c.Path, "user.test", []byte("x"), 0)
	case "statfs":
		var st unix.Statfs_t
		if err = unix.Statfs(c.Path, &st); err == nil {
			r.N = int(st.Bavail * uint64(st.Bsize) >> 20)
		}
	default:
		panic("no such call: " + c.Op)
	}
	if err != nil {
		r.Errno = errName(err)
	}
	return r
}

// touchNow is utimensat(AT_FDCWD, path, NULL), PHP's touch.
func touchNow(path string) error {
	p, err := unix.BytePtrFromString(path)
	if err != nil {
		return err
	}
	if _, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, ^uintptr(99), uintptr(unsafe.Pointer(p)), 0, 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

func errName(err error) string {
	if pe, ok := err.(*os.PathError); ok {
		err = pe.Err
	}
	if errno, ok := err.(syscall.Errno); ok {
		return unix.ErrnoName(errno)
	}
	return err.Error()
}

func statOf(st *unix.Stat_t) *stat {
	return &stat{Size: st.Size, Mode: st.Mode, UID: st.Uid, GID: st.Gid, Nlink: uint64(st.Nlink),
		Atime: recent(st.Atim.Sec), Mtime: recent(st.Mtim.Sec)}
}

func recent(sec int64) int64 {
	if d := time.Now().Unix() - sec; d >= -1 && d < 60 {
		return -1
	}
	return sec
}

// actor is the test's side.
type actor struct {
	uid  uint32
	proc *testkit.Process
	in   *json.Encoder
	out  *bufio.Scanner
}

func startActor(t testing.TB, uid uint32) *actor {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// Other users may not be able to enter the directory of the test binary.
	cmd := exec.Command("/proc/self/fd/3")
	self, err := os.Open(exe)
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	cmd.ExtraFiles = []*os.File{self}
	cmd.Env = append(os.Environ(), actorEnv+"=1")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	inR, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin, cmd.Stdout = inR, outW
	a := &actor{uid: uid, proc: testkit.StartCmd(t, cmd), in: json.NewEncoder(inW), out: bufio.NewScanner(outR)}
	a.out.Buffer(nil, 1<<24)
	inR.Close()
	outW.Close()
	t.Cleanup(func() { inW.Close(); a.proc.Kill(); outR.Close() })
	return a
}

func (a *actor) do(t testing.TB, c call) result {
	t.Helper()
	r, err := a.try(c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (a *actor) try(c call) (r result, err error) {
	if err := a.in.Encode(c); err != nil {
		return r, fmt.Errorf("actor %d: %w", a.uid, err)
	}
	if !a.out.Scan() {
		return r, fmt.Errorf("actor %d ended: %s", a.uid, a.proc.Output())
	}
	err = json.Unmarshal(a.out.Bytes(), &r)
	return r, err
}
