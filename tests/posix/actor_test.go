package posix

import (
	"bufio"
	"encoding/hex"
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
	Path  raw    `json:",omitempty"`
	Slot  int    `json:",omitempty"` // a number for an open file
	Flags int    `json:",omitempty"`
	Mode  uint32 `json:",omitempty"`
	Off   int64  `json:",omitempty"`
	Size  int64  `json:",omitempty"`
	Data  raw    `json:",omitempty"`
	Times []int64
}

// raw is a string of any bytes; JSON's own strings are UTF-8.
type raw string

// MarshalText makes hexadecimal digits of it.
func (r raw) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, []byte(r)), nil }

// UnmarshalText is the reverse.
func (r *raw) UnmarshalText(b []byte) error {
	s, err := hex.DecodeString(string(b))
	*r = raw(s)
	return err
}

// result is what it brought.
type result struct {
	Errno string `json:",omitempty"`
	N     int    `json:",omitempty"`
	Data  raw    `json:",omitempty"`
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
	s := fmt.Sprintf("{%s N:%d Data:%q", r.Errno, r.N, string(r.Data))
	if r.Stat != nil {
		s += fmt.Sprintf(" %+v", *r.Stat)
	}
	return s + "}"
}

const actorEnv = "SESSFS_TEST_ACTOR"

func TestMain(m *testing.M) {
	if os.Getenv(actorEnv) != "" {
		act()
		return
	}
	if job := os.Getenv(matrixEnv); job != "" {
		operate(job)
		return
	}
	flag.Set("rapid.nofailfile", "true") // the log has the steps
	flag.Set("rapid.checks", "300")      // the command line may say otherwise
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
	path, data := string(c.Path), string(c.Data)
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
		if fd, err = unix.Open(path, c.Flags|unix.O_CLOEXEC, c.Mode); err == nil {
			slots[c.Slot] = fd
		}
	case "close":
		err = unix.Close(fd)
		delete(slots, c.Slot)
	case "pread":
		b := make([]byte, c.Size)
		if r.N, err = unix.Pread(fd, b, c.Off); err == nil {
			r.Data = raw(b[:r.N])
		}
	case "pwrite":
		r.N, err = unix.Pwrite(fd, []byte(data), c.Off)
	case "ftruncate":
		err = unix.Ftruncate(fd, c.Size)
	case "truncate":
		err = unix.Truncate(path, c.Size)
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
		if err = unix.Lstat(path, &st); err == nil {
			r.Stat = statOf(&st)
		}
	case "access":
		err = unix.Access(path, c.Mode)
	case "unlink":
		err = unix.Unlink(path)
	case "chmod":
		err = unix.Chmod(path, c.Mode)
	case "fchmod":
		err = unix.Fchmod(fd, c.Mode)
	case "chown":
		err = unix.Lchown(path, int(c.Off), int(c.Size))
	case "utimens":
		var ts []unix.Timespec
		if c.Times != nil {
			ts = []unix.Timespec{{Sec: c.Times[0]}, {Sec: c.Times[1]}}
			err = unix.UtimesNanoAt(unix.AT_FDCWD, path, ts, 0)
		} else {
			err = touchNow(path)
		}
	case "readdir":
		var list []os.DirEntry
		if list, err = os.ReadDir(path); err == nil {
			var names []string
			for _, e := range list {
				names = append(names, e.Name()+" "+e.Type().String())
			}
			sort.Strings(names)
			r.Data = raw(strings.Join(names, "\n"))
		}
	case "mkdir":
		err = unix.Mkdir(path, c.Mode)
	case "symlink":
		err = unix.Symlink(data, path)
	case "link":
		err = unix.Link(path, data)
	case "rename":
		err = unix.Rename(path, data)
	case "mknod":
		err = unix.Mknod(path, unix.S_IFIFO|0o600, 0)
	case "setxattr":
		err = unix.Setxattr(path, "user.test", []byte("x"), 0)
	case "statfs":
		var st unix.Statfs_t
		if err = unix.Statfs(path, &st); err == nil {
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
