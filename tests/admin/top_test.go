package admin

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sessfs"
	"sessfs/internal/testkit"
)

// pane is a terminal of 80 by 24: tmux.
type pane struct {
	t    *testing.T
	sock string
}

// newPane runs a shell command in a terminal of its own; when it has ended, the terminal says so and stays.
func newPane(t *testing.T, command string) *pane {
	t.Helper()
	p := &pane{t, filepath.Join(testkit.Dir(t), "tmux")}
	testkit.Start(t, "tmux", "-S", p.sock, "-f", "/dev/null", "-D") // in the foreground: it ends with the test
	testkit.Until(t, 10*time.Second, "tmux answers", func() bool { _, code := testkit.Run(t, "tmux", "-S", p.sock, "show", "-g", "prefix"); return code == 0 })
	t.Cleanup(func() { p.tmux("kill-server") })
	p.tmux("new-session", "-d", "-x", "80", "-y", "24", command+`; echo "ended with $?"; stty -a; sleep 600`)
	return p
}

func (p *pane) tmux(args ...string) string {
	p.t.Helper()
	return testkit.MustRun(p.t, "tmux", append([]string{"-S", p.sock}, args...)...)
}

// text is what the terminal shows.
func (p *pane) text() string { return p.tmux("capture-pane", "-p") }

func (p *pane) keys(keys ...string) { p.tmux(append([]string{"send-keys"}, keys...)...) }

// shows waits until the terminal shows what a pattern matches, and returns that.
func (p *pane) shows(pattern string) string {
	p.t.Helper()
	re, last, found := regexp.MustCompile(pattern), "", ""
	end := time.Now().Add(15 * time.Second)
	for found == "" {
		last = p.text()
		found = re.FindString(last)
		if found == "" && time.Now().After(end) {
			p.t.Fatalf("the terminal does not show %q:\n%s", pattern, last)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return found
}

// left checks that top has ended so, and has left the terminal as it was.
func (p *pane) left(code int) {
	p.t.Helper()
	p.shows(fmt.Sprintf(`(?s)ended with %d\n.*line = `, code))
	text := p.text()
	for _, mode := range []string{" icanon", " isig", " echo ", " opost", " icrnl"} {
		if !strings.Contains(strings.ReplaceAll(text, "\n", " "), mode) {
			p.t.Errorf("the terminal has no%s any more:\n%s", mode, text)
		}
	}
	if got := strings.TrimSpace(p.tmux("display-message", "-p", "#{alternate_on} #{cursor_flag}")); got != "0 1" {
		p.t.Errorf("alternate screen and cursor: %s, not 0 1", got)
	}
}

// figures are the part of `status --json` that top shows, too.
type figures struct {
	PID     int `json:"pid"`
	Servers []struct {
		Name string `json:"name"`
		Up   bool   `json:"up"`
	} `json:"servers"`
	Files struct {
		OpenSessions int `json:"open_sessions"`
		Errors       int `json:"errors"`
		Operations   map[string]int
	} `json:"files"`
	Locking struct {
		Leases, Kept, Waiting int
	} `json:"locking"`
	Contention struct {
		Held []struct {
			Session, Process string
			PID, Waiters     int
		}
		Elsewhere []struct {
			Session, Host string
			PID, Waiters  int
		}
		Waits []struct {
			Session string
			PID     int
		}
	} `json:"contention"`
	Hottest []struct {
		Session  string
		Requests int
	} `json:"hottest"`
}

func statusFigures(t *testing.T, h *testkit.Host) (f figures) {
	t.Helper()
	out, _ := exec.Command(testkit.Binary(t), "status", "--json", "--config", h.Config).Output() // 4: a server is down
	if err := json.Unmarshal(out, &f); err != nil {
		t.Fatalf("status: %v\n%s", err, out)
	}
	return f
}

// rows are the words of the lines of a section, which ends where another one begins.
func rows(text, heading string) (list [][]string) {
	inside := false
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, heading):
			inside = true
		case len(words) == 0, regexp.MustCompile(`^(SERVER|LONG LOCK|WAITING|OPERATION|HOT SESSION|q quit) `).MatchString(line):
			inside = false
		case inside:
			list = append(list, words)
		}
	}
	return list
}

// differs tells where what the terminal shows is not what status says; "": nowhere.
func differs(text string, f figures) string {
	var wrong []string
	check := func(what string, got, want any) {
		if fmt.Sprint(got) != fmt.Sprint(want) {
			wrong = append(wrong, fmt.Sprintf("%s: top has %v, status %v", what, got, want))
		}
	}
	head := fmt.Sprintf("sessions %d open  locks %d held, %d kept  waiting %d", f.Files.OpenSessions, f.Locking.Leases-f.Locking.Kept, f.Locking.Kept, f.Locking.Waiting)
	check("the head has "+head, strings.Contains(text, head), true)
	check("errors", strings.Contains(text, fmt.Sprintf("errors %d ", f.Files.Errors)), true)
	states, want := make(map[string]string), make(map[string]string)
	for _, r := range rows(text, "SERVER") {
		states[r[0]] = strings.TrimSuffix(r[1], ",")
	}
	for _, s := range f.Servers {
		want[s.Name] = map[bool]string{true: "up", false: "DOWN"}[s.Up]
	}
	check("servers", states, want)
	var locks, wantLocks []string
	for _, r := range rows(text, "LONG LOCK") {
		if slices.Contains(r, "elsewhere") { // hash, pid, N, of, host, -, elsewhere, held, waiting, longest
			locks = append(locks, fmt.Sprint(r[0], " ", r[2], " ", r[4], " ", r[8]))
		} else { // hash, pid, N, process, kind, held, waiting, longest
			locks = append(locks, fmt.Sprint(r[0], " ", r[2], " ", r[3], " ", r[6]))
		}
	}
	for _, l := range f.Contention.Held {
		wantLocks = append(wantLocks, fmt.Sprint(l.Session, " ", l.PID, " ", l.Process, " ", l.Waiters))
	}
	for _, l := range f.Contention.Elsewhere {
		wantLocks = append(wantLocks, fmt.Sprint(l.Session, " ", l.PID, " ", l.Host, " ", l.Waiters))
	}
	slices.Sort(locks)
	slices.Sort(wantLocks)
	check("long locks", locks, wantLocks)
	var hot, wantHot []string
	for i, r := range rows(text, "HOT SESSION") {
		hot = append(hot, r[0]+" "+r[1])
		if i < len(f.Hottest) {
			wantHot = append(wantHot, f.Hottest[i].Session+" "+strconv.Itoa(f.Hottest[i].Requests))
		}
	}
	check("there are hot sessions", len(hot) > 0, true)
	check("hot sessions", hot, wantHot)
	for _, r := range rows(text, "WAITING") {
		check("it waits", slices.ContainsFunc(f.Contention.Waits, func(w struct {
			Session string
			PID     int
		}) bool {
			return w.Session == r[0] && strconv.Itoa(w.PID) == r[1]
		}), true)
	}
	ops := rows(text, "OPERATION")
	check("there are operations", len(ops) > 0, true)
	for _, r := range ops {
		check(r[0], r[len(r)-1], f.Files.Operations[r[0]])
	}
	return strings.Join(wrong, "\n")
}

func TestTop(t *testing.T) {
	servers := []*testkit.Memcached{testkit.StartMemcached(t), testkit.StartMemcached(t), testkit.StartMemcached(t)}
	h, other := testkit.Mount(t, testkit.Conf{Servers: servers}), testkit.Mount(t, testkit.Conf{Servers: servers})
	top := testkit.Binary(t) + " top --interval 200ms " + h.Dir
	p := newPane(t, top)
	p.shows(`(?m)^all well`)

	const request = `session_id($argv[1]); session_start() or exit("no session"); $_SESSION['n'] = $i; session_write_close() or exit("not written"); `
	enough := filepath.Join(testkit.Dir(t), "enough")
	hot := testkit.StartPHP(t, h, nil, `for ($i = 0; $i < 30 || !file_exists($argv[2]); $i++) { `+request+`usleep(4000); clearstatcache(); } echo $i;`, "hot", enough)
	p.shows(`requests [1-9]\S*/s`)
	p.shows(`(?m)^WRITE +[1-9]\S* +[1-9]\S*[um]s +[1-9]\S*s `)
	p.shows(`(?m)^127\.0\.0\.1:\d+ +up.* [1-9]\S*[um]s +[1-9]`) // perhaps "just started"
	testkit.WriteFile(t, enough, "")
	hot.Wait(t, 20*time.Second)
	loops, err := strconv.Atoi(hot.Output())
	if err != nil {
		t.Fatalf("the load: %s", hot.Output())
	}
	testkit.Want(t, testkit.PHP(t, h, `for ($i = 0; $i < 20; $i++) { `+request+`}`, "warm"), "")
	const hold = start + `$_SESSION['v'] = 'x'; echo "held\n"; sleep(120);`
	holds := func(h *testkit.Host, id string) *testkit.Process {
		p := testkit.StartPHP(t, h, nil, hold, id)
		testkit.Until(t, 10*time.Second, id+" is held", func() bool { return strings.Contains(p.Output(), "held") })
		return p
	}
	holder, there := holds(h, "held"), holds(other, "there")
	for _, id := range []string{"held", "held", "there"} {
		testkit.StartPHP(t, h, nil, hold, id)
	}
	servers[2].Stop()
	p.shows(`(?m)^! cache server ` + servers[2].Addr + ` is down for `)
	p.shows(`(?m)^\S+ +DOWN `)

	// The load is over, and figures stand still.
	hash := func(id string) string { return sessfs.ID("sess_" + id).Hash() }
	p.shows(fmt.Sprintf(`(?m)^%s +pid %d +php +exclusive +\S+s +2 +\S+s$`, hash("held"), holder.PID()))
	p.shows(fmt.Sprintf(`(?m)^%s +pid %d of \S+ +- +elsewhere +\S+s +1 +\S+s$`, hash("there"), there.PID()))
	text, wrong, end := "", "", time.Now().Add(8*time.Second)
	testkit.Until(t, 20*time.Second, "top and status say the same", func() bool {
		text = p.text()
		wrong = differs(text, statusFigures(t, h))
		return wrong == "" || time.Now().After(end)
	})
	if wrong != "" {
		t.Fatalf("top and status do not say the same:\n%s\n%s", wrong, text)
	}
	f := statusFigures(t, h)
	if f.Locking.Waiting != 3 || f.Files.OpenSessions != 2 || len(f.Contention.Held) != 1 || len(f.Contention.Elsewhere) != 1 || f.Contention.Held[0].Process != "php" ||
		len(f.Hottest) < 4 || f.Hottest[0].Session != hash("hot") || f.Hottest[0].Requests != loops || f.Hottest[1].Session != hash("warm") || f.Hottest[1].Requests != 20 {
		t.Errorf("status: %+v", f)
	}
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if len(lines) != 24 || !strings.Contains(lines[0], h.Dir+" ") || !strings.HasPrefix(lines[23], "q quit") {
		t.Errorf("%d lines:\n%s", len(lines), text)
	}

	p.tmux("resize-window", "-x", "50", "-y", "12")
	p.shows(`\A\S*sessions .*\n! (?:.*\n){10}q quit.*\n\z`)
	p.tmux("resize-window", "-x", "80", "-y", "24")
	p.keys("h")
	p.shows("this help")
	p.keys("h")
	p.shows("LONG LOCK")
	p.keys("p")
	p.shows("PAUSED")
	p.keys("p")

	// What status says first, and how the session is found.
	out, code := h.Sessfs("status")
	if first, _, _ := strings.Cut(out, "\n"); code != 4 || !strings.HasPrefix(first, "PROBLEM: cache server "+servers[2].Addr+" is down for ") {
		t.Errorf("status: exit %d\n%s", code, out)
	}
	logged(t, h, "session="+hash("there")) // of the wait, after 5 s
	testkit.Until(t, 10*time.Second, "status says who holds the lock", func() bool {
		out, _ := h.Sessfs("status")
		return strings.Contains(out, fmt.Sprintf("PROBLEM: session %s is locked by pid %d (php) for ", hash("held"), holder.PID())) &&
			strings.Contains(out, fmt.Sprintf("PROBLEM: session %s is locked by pid %d of ", hash("there"), there.PID()))
	})
	out, _ = h.Sessfs("ls")
	if !regexp.MustCompile(`(?m) ` + hash("hot") + `  sess_hot$`).MatchString(out) {
		t.Errorf("ls does not say which session %s is:\n%s", hash("hot"), out)
	}

	// One that is in no list yet is found by its hash, too, and its lock can be broken.
	if out, code = h.Sessfs("show", hash("held")); code != 1 || !strings.Contains(out, fmt.Sprintf("is missing (ID is the file's name as ls shows it, such as sess_4fb1…); its lock is held by pid %d of ", holder.PID())) {
		t.Errorf("show by hash: exit %d: %s", code, out)
	}
	if out, code = h.Sessfs("show", hash("hot")); code != 1 || !strings.Contains(out, "is missing") {
		t.Errorf("show of one that is not in use: exit %d: %s", code, out)
	}
	if out, code = h.Sessfs("unlock", hash("there")); code != 0 || !strings.Contains(out, fmt.Sprintf("broken; it was held by pid %d of ", there.PID())) {
		t.Errorf("unlock by hash: exit %d: %s", code, out)
	}

	// Another daemon goes on with the mount, and with the locks.
	h.Process().KillDaemon()
	p.shows(fmt.Sprintf(`(?m)^%s +pid %d +php +exclusive +[2-4]\S*s +2 `, hash("held"), holder.PID())) // since it was taken over

	// The mount goes, and comes back.
	h.Process().Kill()
	p.shows(`(?m)^! the daemon does not answer for `)
	h.Start()
	p.shows(`(?m)^! cache server ` + servers[2].Addr + ` is down for `)
	p.keys("q")
	p.left(0)
}

// Whatever ends it, the terminal is as it was; and there are no colours for whom they are not wanted.
func TestTopEnds(t *testing.T) {
	h := testkit.Mount(t, testkit.Conf{Servers: []*testkit.Memcached{testkit.StartMemcached(t)}})
	top := "exec " + testkit.Binary(t) + " top " + h.Dir
	colour := regexp.MustCompile("\x1b\\[[0-9;]*3[0-7]m")
	for how, end := range map[string]func(p *pane, pid int){
		"Ctrl-C":  func(p *pane, _ int) { p.keys("C-c") },
		"SIGINT":  func(_ *pane, pid int) { syscall.Kill(pid, syscall.SIGINT) },
		"SIGTERM": func(_ *pane, pid int) { syscall.Kill(pid, syscall.SIGTERM) },
	} {
		t.Run(how, func(t *testing.T) {
			env := ""
			if how == "SIGTERM" {
				env = "NO_COLOR=1 "
			}
			pidFile := filepath.Join(testkit.Dir(t), "pid")
			p := newPane(t, env+"sh -c 'echo $$ > "+pidFile+"; "+top+"'")
			p.shows(`(?m)^all well`)
			if got := colour.MatchString(p.tmux("capture-pane", "-p", "-e")); got != (env == "") {
				t.Errorf("colours: %v with %q", got, env)
			}
			pid, err := strconv.Atoi(strings.TrimSpace(testkit.MustRun(t, "cat", pidFile)))
			if err != nil {
				t.Fatal(err)
			}
			end(p, pid)
			p.left(0)
		})
	}
}

// Without a terminal there are plain snapshots.
func TestTopInBatch(t *testing.T) {
	h, other := testkit.Mount(t, testkit.Conf{}), testkit.Mount(t, testkit.Conf{})
	testkit.Want(t, testkit.PHP(t, h, write, "b", "x"), "ok")
	for _, args := range [][]string{{}, {"--once"}, {"--batch", "3"}} {
		out, code := testkit.Run(t, testkit.Binary(t), append([]string{"top", "--interval", "100ms", h.Dir}, args...)...)
		n := max(1, len(args)*2-1)
		if code != 0 || strings.Count(out, "\nall well\n") != n || strings.Count(out, sessfs.ID("sess_b").Hash()) != n || strings.ContainsAny(out, "\x1b\r") {
			t.Errorf("top %v: exit %d\n%s", args, code, out)
		}
	}
	for _, tc := range []struct {
		args []string
		code int
		says string
	}{
		{nil, 2, h.Dir},
		{nil, 2, other.Dir},
		{[]string{"--interval", "1ms", h.Dir}, 2, "--interval: 100ms"},
		{[]string{"--batch", "0", h.Dir}, 2, "--batch"},
		{[]string{"--once", "--batch", "2", h.Dir}, 2, "only one"},
		{[]string{filepath.Dir(h.Dir)}, 1, "not a mount of sessfs"},
	} {
		if out, code := testkit.Run(t, testkit.Binary(t), append([]string{"top"}, tc.args...)...); code != tc.code || !strings.Contains(out, tc.says) {
			t.Errorf("top %v: exit %d, not %d with %q: %s", tc.args, code, tc.code, tc.says, out)
		}
	}
}
