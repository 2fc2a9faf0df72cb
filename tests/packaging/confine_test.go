package packaging

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"sessfs/internal/testkit"
)

// Under exactly what the unit allows (capabilities, system calls, address families, no memory both writable and
// executable, no new privileges) the daemon does its work: systemd is not here to confine it, so this test does it.
func TestConfined(t *testing.T) {
	servers := []*testkit.Memcached{testkit.StartMemcached(t), testkit.StartMemcached(t)}
	r := newRoot(t)
	r.install(newer)
	r.write("etc/sessfs/config.yaml", threeLines(servers...))
	r.run("install", "-m", "0600", "-o", "www-data", "/etc/hostname", "/etc/sessfs/password") // whosever, root reads it
	var bounding []string
	for c := range strings.FieldsSeq(r.setting("CapabilityBoundingSet")) {
		bounding = append(bounding, "+"+strings.ToLower(strings.TrimPrefix(c, "CAP_")))
	}
	capabilities := "-all," + strings.Join(bounding, ",")
	numbers := strings.Join(allowed(t, r.setting("SystemCallFilter")), ",")
	families := strings.ReplaceAll(r.setting("RestrictAddressFamilies"), " ", ",")
	prefix := []string{"setpriv", "--bounding-set", capabilities, "--inh-caps=-all", "--no-new-privs", "/srv/confine", "confine", numbers, families}

	s := r.start(prefix...)
	want(t, "PHP", r.php(write, "a", "x"), "ok")
	want(t, "PHP", r.php(read, "a"), "x")
	// How a process of another user ended is seen in /proc: one that was killed half-way changes nothing.
	killed := `$f = fopen('/var/lib/php/sessions/sess_a', 'r+'); flock($f, LOCK_EX) or exit("no lock"); ftruncate($f, 0) or exit("not cut"); posix_kill(getmypid(), SIGKILL);`
	for range 5 { // whether it is reaped by then is chance
		if out, err := r.tryPHP(killed); err == nil || out != "" {
			t.Fatalf("it should kill itself: %v: %s", err, out)
		}
		want(t, "PHP, after one that was killed", r.php(read, "a"), "x")
	}
	want(t, "read by a confined process", r.run(append(prefix, "cat", "/etc/sessfs/password")...), r.run("cat", "/etc/hostname"))
	if out := r.run("sessfs", "status"); !strings.Contains(out, "2 servers") && !strings.Contains(out, servers[0].Addr) {
		t.Errorf("status: %s", out)
	}
	crowd(t, r, s) // the nice value is raised
	r.write("etc/sessfs/config.yaml", threeLines(servers...)+"log: {level: debug}\n")
	s.Signal(unix.SIGHUP)
	testkit.Until(t, 20*time.Second, "the configuration is reloaded", func() bool { return strings.Contains(s.Output(), "keys=log.level") })
	r.run("sessfs", "upgrade")
	want(t, "PHP, after an upgrade", r.php(read, "a"), "x")
	servers[0].Stop()
	want(t, "PHP, with one server down", r.php(write, "a", "y"), "ok")
	if err := s.Stop(); err != nil || r.mounted() {
		t.Errorf("stopped: %v, mounted: %v\n%s", err, r.mounted(), s.Output())
	}
	if strings.Contains(s.Output(), "SIGSYS") || strings.Contains(s.Output(), "not permitted") {
		t.Errorf("something was forbidden that it needs:\n%s", s.Output())
	}
}

// crowd waits until eight processes of PHP have made the daemon raise its priority.
func crowd(t *testing.T, r *root, s *service) {
	t.Helper()
	const busy = `for ($i = 0; $i < 100000; $i++) { session_id("crowd$argv[1]"); session_start(); $_SESSION['i'] = $i; session_write_close(); }`
	var all []*testkit.Process
	for i := range 8 {
		all = append(all, testkit.StartCmd(t, r.command("php", "-d", "session.save_path=/var/lib/php/sessions", "-d", "session.use_cookies=0",
			"-d", "session.use_only_cookies=0", "-d", "session.cache_limiter=", "-r", busy, "--", strconv.Itoa(i))))
	}
	raised := func() bool {
		for _, p := range r.processes() {
			b, err := os.ReadFile(p + "/stat")
			if err != nil {
				continue
			}
			name, rest, _ := strings.Cut(string(b[strings.IndexByte(string(b), '(')+1:]), ")")
			fields := strings.Fields(rest)
			if name == "sessfs" && len(fields) > 16 && strings.HasPrefix(fields[16], "-") { // field 19, nice
				return true
			}
		}
		return false
	}
	testkit.Until(t, 20*time.Second, "the daemon's priority is raised in a crowd", raised)
	for _, p := range all {
		p.Kill()
	}
}

// allowed are the numbers of the system calls of a SystemCallFilter=, and of the set that systemd adds to each.
func allowed(t *testing.T, filter string) []string {
	t.Helper()
	sets := make(map[string][]string)
	set := ""
	for line := range strings.Lines(testkit.MustRun(t, "systemd-analyze", "syscall-filter")) {
		switch word := strings.TrimSpace(line); {
		case strings.HasPrefix(line, "@"):
			set = word
		case word != "" && !strings.HasPrefix(word, "#"):
			sets[set] = append(sets[set], word)
		}
	}
	known := syscallNumbers(t)
	var numbers []string
	var add func(name string)
	add = func(name string) {
		if strings.HasPrefix(name, "@") {
			if len(sets[name]) == 0 {
				t.Fatalf("systemd has no set of system calls %s", name)
			}
			for _, n := range sets[name] {
				add(n)
			}
		} else if n, here := known[name]; here {
			numbers = append(numbers, n)
		}
	}
	for name := range strings.FieldsSeq(filter + " @default") {
		add(name)
	}
	if len(numbers) < 100 {
		t.Fatalf("only %d system calls of %q are known here", len(numbers), filter)
	}
	return numbers
}

// syscallNumbers asks the C compiler's headers.
func syscallNumbers(t *testing.T) map[string]string {
	t.Helper()
	cmd := exec.Command("gcc", "-E", "-dM", "-")
	cmd.Stdin = strings.NewReader("#include <asm/unistd.h>\n")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("gcc -E: %v", err)
	}
	numbers := make(map[string]string)
	for _, m := range regexp.MustCompile(`(?m)^#define __NR_([a-z0-9_]+) (\d+)$`).FindAllStringSubmatch(string(out), -1) {
		numbers[m[1]] = m[2]
	}
	return numbers
}

var families = map[string]uint32{"AF_UNIX": unix.AF_UNIX, "AF_INET": unix.AF_INET, "AF_INET6": unix.AF_INET6}

// confined runs a program under a seccomp filter: confine NUMBERS FAMILIES PROGRAM ARGUMENTS… What is not allowed raises
// SIGSYS, of which a Go program dies with the stack.
func confined(args []string) {
	fail := func(what string, err error) {
		fmt.Fprintln(os.Stderr, "confine:", what, err)
		os.Exit(1)
	}
	runtime.LockOSThread() // the filter is this thread's, which becomes the program
	const ret = unix.BPF_RET | unix.BPF_K
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	// unless skips the n statements that follow when the value is not k.
	unless := func(k uint32, n uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jf: n}
	}
	allow, forbid := unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ALLOW}, unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_TRAP}
	program := []unix.SockFilter{load(0)} // struct seccomp_data: nr
	named := strings.Split(args[1], ",")
	program = append(program, unless(unix.SYS_SOCKET, uint8(2+2*len(named))), load(16)) // its first argument, the family
	for _, name := range named {
		f, ok := families[name]
		if !ok {
			fail("unknown address family", fmt.Errorf("%s", name))
		}
		program = append(program, unless(f, 1), allow)
	}
	program = append(program, forbid)
	for number := range strings.SplitSeq(args[0], ",") {
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil {
			fail("system call", err)
		}
		program = append(program, unless(uint32(n), 1), allow)
	}
	program = append(program, forbid)
	path, err := exec.LookPath(args[2])
	if err != nil {
		fail("program", err)
	}
	const memoryDenyWriteExecute, refuseExecGain = 65, 1 // PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN
	if err := unix.Prctl(memoryDenyWriteExecute, refuseExecGain, 0, 0, 0); err != nil && err != unix.EINVAL {
		fail("memory", err) // EINVAL: kernels before 6.3
	}
	f := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&f)), 0, 0); err != nil {
		fail("seccomp", err)
	}
	fail("exec", unix.Exec(path, args[2:], os.Environ()))
}

// No setting of the unit gives it a mount namespace of its own: its mount would be seen by nobody else.
func TestUnitMountsForAll(t *testing.T) {
	// systemd.exec(5): all that are "implemented via file system namespacing".
	namespaces := regexp.MustCompile(`^(Private(Tmp|Devices|Mounts|Users|IPC|Network)|Protect(System|Home|Kernel\w+|ControlGroups|Proc|Hostname|Clock)|ProcSubset|` +
		`(Read(Write|Only)|Inaccessible|Exec|NoExec|BindReadOnly|Bind)Paths|TemporaryFileSystem|Root\w+|Mount(Flags|Images|APIVFS)|Extension\w+|` +
		`DynamicUser|User|JoinsNamespaceOf|NetworkNamespacePath|IPCNamespacePath|LogNamespace)=`)
	b, err := os.ReadFile("../../packaging/sessfs.service")
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(strings.NewReader(string(b)))
	for lines.Scan() {
		if namespaces.MatchString(lines.Text()) {
			t.Errorf("%s makes a mount namespace, or leaves the service no right to mount", lines.Text())
		}
	}
}
