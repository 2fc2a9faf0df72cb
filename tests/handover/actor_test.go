package handover

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sessfs/internal/testkit"
)

// actor is a process that does one system call after the other on a file in a mount, as it is told.
type actor struct {
	t      testing.TB
	cmd    *exec.Cmd
	say    io.WriteCloser
	answer *bufio.Reader
}

// actorArg makes the test binary an actor.
const actorArg = "handover-actor"

func newActor(t testing.TB, path string) *actor {
	t.Helper()
	a := &actor{t: t, cmd: exec.Command("/proc/self/exe", actorArg, path)}
	a.cmd.Stderr = os.Stderr
	var err error
	if a.say, err = a.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := a.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	a.answer = bufio.NewReaderSize(out, 1<<16)
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		a.cmd.Process.Kill()
		a.cmd.Wait()
	})
	return a
}

// tell has it begin with a step; hear returns what came of it.
func (a *actor) tell(step string) { fmt.Fprintln(a.say, step) }

func (a *actor) hear() string {
	a.t.Helper()
	stuck := time.AfterFunc(30*time.Second, func() { a.cmd.Process.Kill() })
	defer stuck.Stop()
	line, err := a.answer.ReadString('\n')
	if err != nil {
		a.t.Fatalf("the actor is gone, or was stuck for 30 s: %v", err)
	}
	return strings.TrimSpace(line)
}

// do is tell and hear, for what must come of it.
func (a *actor) do(step, wanted string) {
	a.t.Helper()
	a.tell(step)
	if got := a.hear(); got != wanted {
		a.t.Fatalf("%s: %s, not %s", step, got, wanted)
	}
}

// act is the actor's life.
func act(path string) {
	fd := -1
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var verb string
		var off, n, b int64
		fmt.Sscan(lines.Text(), &verb, &off, &n, &b)
		var err error
		result := "ok"
		switch verb {
		case "open":
			fd, err = unix.Open(path, unix.O_RDWR|unix.O_CREAT, 0o600)
		case "lock":
			err = unix.Flock(fd, unix.LOCK_EX)
		case "try":
			err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		case "unlock":
			err = unix.Flock(fd, unix.LOCK_UN)
		case "truncate":
			err = unix.Ftruncate(fd, off)
		case "write":
			_, err = unix.Pwrite(fd, bytes.Repeat([]byte{byte(b)}, int(n)), off)
		case "size":
			var st unix.Stat_t
			if err = unix.Fstat(fd, &st); err == nil {
				result = fmt.Sprint(st.Size)
			}
		case "read": // what the file has, as runs of one byte
			buf := make([]byte, 16<<20)
			var got int
			if got, err = unix.Pread(fd, buf, 0); err == nil {
				result = runs(buf[:got])
			}
		case "close":
			err = unix.Close(fd)
		case "unlink":
			err = unix.Unlink(path)
		}
		if err != nil {
			result = err.Error()
		}
		fmt.Println(result)
	}
}

// runs writes "3a2b" for aaabb.
func runs(b []byte) string {
	var s strings.Builder
	for len(b) > 0 {
		rest := bytes.TrimLeft(b, string(b[:1]))
		fmt.Fprintf(&s, "%d%c", len(b)-len(rest), b[0])
		b = rest
	}
	if s.Len() == 0 {
		return "nothing"
	}
	return s.String()
}

// contents is what another process finds in the file.
func contents(t testing.TB, path string) string {
	t.Helper()
	a := newActor(t, path)
	a.do("open", "ok")
	a.do("lock", "ok")
	a.tell("read")
	found := a.hear()
	a.do("close", "ok")
	return found
}

const maxWrite = 1<<20 - 4096 + 1 // of fusefs

// Between any two steps of a change the daemon dies: the change is done or refused as if it had not.
func TestEveryStep(t *testing.T) {
	conf := testkit.Conf{Servers: servers(t, 2)}
	for name, c := range map[string]struct {
		old   string // written before
		steps []string
		new   string
	}{
		"replaced":           {"write 0 100 97", []string{"open", "lock", "read=100a", "truncate 0", "size=0", "write 0 50 98", "close"}, "50b"},
		"large":              {"write 0 100 97", []string{"open", "lock", "truncate 0", fmt.Sprintf("write 0 %d 98", maxWrite), fmt.Sprintf("write %d %d 99", maxWrite, maxWrite), fmt.Sprintf("write %d 7 100", 2*maxWrite), "close"}, fmt.Sprintf("%db%dc7d", maxWrite, maxWrite)},
		"cut after writing":  {"write 0 100 97", []string{"open", "lock", "write 0 50 98", "truncate 50", "close"}, "50b"},
		"appended":           {"write 0 100 97", []string{"open", "lock", "write 100 50 98", "close"}, "100a50b"},
		"new":                {"", []string{"open", "lock", "size=0", "write 0 50 98", "unlock", "close"}, "50b"},
		"emptied":            {"write 0 100 97", []string{"open", "lock", "truncate 0", "close"}, "nothing"},
		"a full write alone": {"write 0 100 97", []string{"open", "lock", "truncate 0", fmt.Sprintf("write 0 %d 98", maxWrite), "close"}, fmt.Sprintf("%db", maxWrite)},
		"unlinked":           {"write 0 100 97", []string{"unlink", "open", "lock", "size=0", "write 0 50 98", "close"}, "50b"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := testkit.Mount(t, conf)
			path := h.Path("sess_" + strings.ReplaceAll(name, " ", ""))
			if c.old != "" {
				a := newActor(t, path)
				for _, s := range []string{"open", "lock", "truncate 0", c.old, "close"} {
					a.do(s, "ok")
				}
			}
			a := newActor(t, path)
			for _, s := range c.steps {
				step, result, _ := strings.Cut(s, "=")
				if result == "" {
					result = "ok"
				}
				a.do(step, result)
				kill(t, h)
			}
			testkit.Until(t, 10*time.Second, "it has "+c.new, func() bool { return contents(t, path) == c.new })
		})
	}
}

// A process that is killed in the middle of a change leaves the session as it was, whatever becomes of the daemon.
func TestKilledInAChange(t *testing.T) {
	h := testkit.Mount(t, testkit.Conf{Servers: servers(t, 2)})
	path := h.Path("sess_killed")
	a := newActor(t, path)
	for _, s := range []string{"open", "lock", "write 0 100 97", "close"} {
		a.do(s, "ok")
	}
	a = newActor(t, path)
	for _, s := range []string{"open", "lock", "truncate 0"} {
		a.do(s, "ok")
	}
	kill(t, h)
	a.cmd.Process.Kill()
	a.cmd.Wait()
	if got := contents(t, path); got != "100a" {
		t.Errorf("the session has %s", got)
	}
}

// A write that failed, and was reported, leaves the session as it was: at close nothing of the change is stored, whatever
// becomes of the daemon.
func TestKilledAfterAFailedWrite(t *testing.T) {
	for _, killed := range []bool{false, true} {
		h := testkit.Mount(t, testkit.Conf{Servers: servers(t, 1), More: "session: {max_size: 64KiB}\n"})
		path := h.Path("sess_failed")
		a := newActor(t, path)
		for _, s := range []string{"open", "lock", "write 0 100 97", "close", "open", "lock", "truncate 0"} {
			a.do(s, "ok")
		}
		a.do("write 0 100000 98", "file too large")
		if killed {
			kill(t, h)
		}
		a.tell("close")
		a.hear()
		if got := contents(t, path); got != "100a" {
			t.Errorf("the daemon was killed: %v; the session has %s", killed, got)
		}
	}
}

// A lock stays with its holder, those who wait go on waiting in their order, and nobody else gets it in between.
func TestLocksOutliveTheDaemon(t *testing.T) {
	c := testkit.Conf{Servers: servers(t, 2)}
	a, b := testkit.Mount(t, c), testkit.Mount(t, c)
	holder, second, third := newActor(t, a.Path("sess_l")), newActor(t, a.Path("sess_l")), newActor(t, a.Path("sess_l"))
	far := newActor(t, b.Path("sess_l"))
	for _, x := range []*actor{holder, second, third, far} {
		x.do("open", "ok")
	}
	holder.do("lock", "ok")
	second.tell("lock")
	testkit.Until(t, 5*time.Second, "one waits", func() bool { return status(t, a).Locking.Waiting == 1 })
	third.tell("lock")
	testkit.Until(t, 5*time.Second, "two wait", func() bool { return status(t, a).Locking.Waiting == 2 })
	for range 3 {
		kill(t, a)
		far.do("try", "resource temporarily unavailable")
		testkit.Until(t, 5*time.Second, "both wait again", func() bool { return status(t, a).Locking.Waiting == 2 })
	}
	holder.do("write 0 10 97", "ok")
	holder.do("close", "ok")
	if got := second.hear(); got != "ok" {
		t.Errorf("the first to wait: %s", got)
	}
	kill(t, a)
	if s := status(t, a); s.Locking.LocksLost != 0 {
		t.Errorf("a lock was lost: %+v", s)
	}
	second.do("read", "10a")
	second.do("close", "ok")
	if got := third.hear(); got != "ok" {
		t.Errorf("the second to wait: %s", got)
	}
	third.do("read", "10a")
	third.do("close", "ok")
	far.do("lock", "ok")
	far.do("read", "10a")
}

// A signal ends a wait that a former daemon had begun with.
func TestWaitIsInterrupted(t *testing.T) {
	h := testkit.Mount(t, testkit.Conf{Servers: servers(t, 1)})
	holder, waiter := newActor(t, h.Path("sess_i")), newActor(t, h.Path("sess_i"))
	holder.do("open", "ok")
	holder.do("lock", "ok")
	waiter.do("open", "ok")
	waiter.tell("lock")
	testkit.Until(t, 5*time.Second, "it waits", func() bool { return status(t, h).Locking.Waiting == 1 })
	kill(t, h)
	waiter.cmd.Process.Kill()
	done := make(chan struct{})
	go func() {
		waiter.cmd.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("the killed process is still there after 10 s")
	}
	holder.do("close", "ok")
	testkit.Until(t, 10*time.Second, "nothing is open", func() bool { s := status(t, h); return s.Files.OpenFiles == 0 && s.Locking.Claims == 0 })
}

// A file that was unlinked while it was open has its content in the daemon alone: it fails loudly after that.
func TestUnlinkedWhileOpen(t *testing.T) {
	h := testkit.Mount(t, testkit.Conf{Servers: servers(t, 1)})
	a := newActor(t, h.Path("sess_u"))
	for _, s := range []string{"open", "lock", "write 0 10 97", "unlink"} {
		a.do(s, "ok")
	}
	kill(t, h)
	a.do("read", "input/output error")
	a.do("close", "ok")
	a.do("open", "ok")
	a.do("read", "nothing")
}

// While no daemon ran another host has destroyed the session, which it may: the holder's write is refused.
func TestDestroyedMeanwhile(t *testing.T) {
	c := testkit.Conf{Servers: servers(t, 2)}
	a, b := testkit.Mount(t, c), testkit.Mount(t, c)
	x := newActor(t, a.Path("sess_d"))
	for _, s := range []string{"open", "lock", "write 0 10 97"} {
		x.do(s, "ok")
	}
	keeper, daemon := a.Process().Process, a.Process().PID()
	keeper.Freeze(t)
	unix.Kill(daemon, unix.SIGKILL)
	testkit.MustRun(t, "rm", b.Path("sess_d"))
	keeper.Thaw()
	a.Process().Expect(1)
	x.do("write 0 10 98", "input/output error")
	x.do("close", "ok")
	if out, code := testkit.Run(t, "stat", b.Path("sess_d")); code == 0 {
		t.Errorf("the destroyed session is back: %s", out)
	}
}
