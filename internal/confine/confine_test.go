package confine

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// The processes whose rights are taken are this test binary.
func TestMain(m *testing.M) {
	switch os.Getenv("CONFINE_TEST") {
	case "show":
		show()
	case "self":
		if err := Self(Of(unix.CAP_CHOWN)); err != nil {
			fmt.Println(err)
		}
		show()
	case "filter":
		filtered()
	case "core":
		if err := NoCore(); err != nil {
			fmt.Println(err)
		}
		dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
		fmt.Println("dumpable", dumpable, err)
	default:
		os.Exit(m.Run())
	}
}

// show prints what all threads of this process have.
func show() {
	tasks, _ := os.ReadDir("/proc/self/task")
	for _, t := range tasks {
		b, err := os.ReadFile("/proc/self/task/" + t.Name() + "/status")
		if err != nil {
			continue // the thread has ended
		}
		var words []string
		for _, m := range regexp.MustCompile(`(?m)^(CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs):\s*(\w+)`).FindAllSubmatch(b, -1) {
			words = append(words, fmt.Sprintf("%s=%s", m[1], bytes.TrimLeft(m[2], "0")))
		}
		fmt.Println(strings.Join(words, " "))
	}
}

func child(what string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "CONFINE_TEST="+what, "GORACE=atexit_sleep_ms=0")
	return cmd
}

// every fails unless there are lines, and all are wanted.
func every(t *testing.T, out, wanted string) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(out), "\n")
	for _, l := range lines {
		if l != wanted {
			t.Errorf("a thread has %q, not %q", l, wanted)
		}
	}
}

const chown = "CapInh= CapPrm=1 CapEff=1 CapBnd=1 CapAmb= NoNewPrivs=1"

func TestStart(t *testing.T) {
	own, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for range 20 { // from whichever thread
		cmd := child("show")
		var out bytes.Buffer
		cmd.Stdout = &out
		if err := Start(cmd, Of(unix.CAP_CHOWN)); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		every(t, out.String(), chown)
	}
	now, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	caps := regexp.MustCompile(`CapPrm:.*\nCapEff:.*\nCapBnd:.*`)
	if a, b := caps.Find(own), caps.Find(now); !bytes.Equal(a, b) {
		t.Errorf("this process had\n%s\nand has\n%s", a, b)
	}
}

func TestSelf(t *testing.T) {
	cmd := child("self")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	every(t, string(out), chown)
}

// Who may not take anything from the bounding set does not get it back by exec either.
func TestSelfWithoutSetpcap(t *testing.T) {
	cmd := exec.Command("setpriv", "--bounding-set", "-all,+chown,+sys_admin", "--inh-caps=-all", "/proc/self/exe")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Args[len(cmd.Args)-1] = exe
	cmd.Env = child("self").Env
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	every(t, string(out), strings.Replace(chown, "CapBnd=1", "CapBnd=200001", 1))
}

func TestNoCore(t *testing.T) {
	out, err := child("core").Output()
	if err != nil || string(out) != "dumpable 0 <nil>\n" {
		t.Errorf("%v: %s", err, out)
	}
}

// filtered makes calls on other threads than the one that has set the filter.
func filtered() {
	var ready, all sync.WaitGroup
	begin := make(chan struct{})
	var mu sync.Mutex
	for range 4 {
		ready.Add(1)
		all.Go(func() {
			runtime.LockOSThread()
			ready.Done()
			<-begin
			mu.Lock()
			defer mu.Unlock()
			_, _, clone := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
			_, _, clone3 := unix.RawSyscall(unix.SYS_CLONE3, 0, 0, 0)
			_, _, bpf := unix.RawSyscall(unix.SYS_BPF, 0, 0, 0)
			_, _, x32 := unix.RawSyscall(x32|unix.SYS_GETPID, 0, 0, 0)
			for what, err := range map[string]error{
				"execve": unix.Exec("/bin/true", []string{"true"}, nil), "ptrace": unix.PtraceAttach(unix.Getppid()), "bpf": bpf, "clone": clone, "clone3": clone3, "x32": x32,
				"unshare": unix.Unshare(unix.CLONE_NEWUSER), "chroot": unix.Chroot("/"), "mount": unix.Mount("tmpfs", "/none", "tmpfs", 0, ""),
				"umount": unix.Unmount("/none", 0), "setuid": unix.Setuid(0),
			} {
				if want := error(unix.EPERM); err != want && !(what == "clone3" && err == unix.ENOSYS) && !(what == "x32" && runtime.GOARCH != "amd64") &&
					!(strings.HasSuffix(what, "mount") && Has(unix.CAP_SYS_ADMIN) && err == unix.ENOENT) {
					fmt.Printf("%s: %v\n", what, err)
				}
			}
		})
	}
	ready.Wait()
	if err := Filter(); err != nil {
		fmt.Println(err)
	}
	close(begin)
	all.Wait()
	threads := make(chan struct{})
	go func() { // a new thread can still be made
		runtime.LockOSThread()
		close(threads)
	}()
	<-threads
	if _, err := os.ReadFile("/proc/self/status"); err != nil {
		fmt.Println(err)
	}
	fmt.Println("end")
}

func TestFilter(t *testing.T) {
	for name, keep := range map[string]Set{"which mounts": Of(unix.CAP_SYS_ADMIN), "which may not": 0} {
		t.Run(name, func(t *testing.T) {
			cmd := child("filter")
			var out bytes.Buffer
			cmd.Stdout = &out
			if err := Start(cmd, keep); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err != nil || out.String() != "end\n" {
				t.Errorf("%v: the filter lets through:\n%s", err, &out)
			}
		})
	}
}
