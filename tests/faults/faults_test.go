// Package faults tests what PHP and its users see when servers or processes fail.
package faults

import (
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"sessfs"
	"sessfs/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const (
	start = testkit.PHPStart
	write = testkit.PHPWrite
	read  = testkit.PHPRead
)

func one(t *testing.T, more, cache string) (*testkit.Host, *testkit.Memcached) {
	t.Helper()
	m := testkit.StartMemcached(t)
	return testkit.Mount(t, testkit.Conf{Servers: []*testkit.Memcached{m}, More: more, Cache: cache}), m
}

// memcached stopped: every session_start fails with PHP's warning within twice the timeout, 20 at once; an id lately
// seen survives strict mode; the server back, the mount works within retry_interval.
func TestServerStopped(t *testing.T) { testkit.EachKeep(t, testServerStopped) }

func testServerStopped(t *testing.T, k testkit.Keep) {
	for _, how := range []string{"killed", "hangs"} {
		t.Run(how, func(t *testing.T) {
			h, m := one(t, k.Lock(""), "  timeout: 2s\n  retry_interval: 3s\n")
			testkit.Want(t, testkit.PHP(t, h, write, "known", "x"), "ok")
			if how == "killed" {
				m.Stop()
			} else {
				m.Process().Freeze(t)
			}
			var procs []*testkit.Process
			for i := range 20 {
				procs = append(procs, testkit.StartPHP(t, h, nil, `$t = microtime(true); session_id($argv[1]); $ok = session_start(); printf("\n%s %.3f", $ok ? 'started' : 'false', microtime(true) - $t);`, fmt.Sprint("out", i)))
			}
			for _, p := range procs {
				p.Wait(t, 30*time.Second)
				var sec float64
				out := p.Output()
				if _, err := fmt.Sscanf(out[strings.LastIndex(out, "\n")+1:], "false %f", &sec); err != nil || !strings.Contains(out, "O_RDWR) failed: Input/output error") {
					t.Errorf("PHP printed %s", out)
				}
				if sec > 4 {
					t.Errorf("session_start took %.3f s with a timeout of 2 s", sec)
				}
			}
			// PHP goes on with the client's id, and fails to open it; a new id would log the user out.
			strict := testkit.PHPWith(t, h, []string{"session.use_strict_mode=1"}, `session_id($argv[1]); echo session_start() ? 'started' : 'false';`, "known")
			if !strings.Contains(strict, "sess_known, O_RDWR) failed: Input/output error") || !strings.Contains(strict, "false") {
				t.Errorf("strict mode in an outage: %s", strict)
			}
			out, code := h.Sessfs("status")
			if code != 4 || !strings.Contains(out, "DOWN") {
				t.Errorf("status in an outage: exit %d\n%s", code, out)
			}
			if how == "killed" {
				m.Start()
			} else {
				m.Process().Thaw()
			}
			back := time.Now()
			testkit.Until(t, 10*time.Second, "the mount works again", func() bool {
				return strings.TrimSpace(testkit.PHP(t, h, write, "again", "y")) == "ok"
			})
			if d := time.Since(back); d > 6*time.Second { // 3 s, and PHP's start under the race detector
				t.Errorf("it took %v to work again with a retry_interval of 3 s", d)
			}
			if how == "hangs" {
				testkit.Want(t, testkit.PHP(t, h, read, "known"), "x")
			}
		})
	}
}

// A server that restarts while connections to it are idle: their end is no failure. It may have been missed while it was
// away (an unlock after PHP's close), and is then asked again within a second.
func TestServerRestarted(t *testing.T) { testkit.EachKeep(t, testServerRestarted) }

func testServerRestarted(t *testing.T, k testkit.Keep) {
	h, m := one(t, k.Lock(""), "")
	for i := range 3 {
		testkit.Want(t, testkit.PHP(t, h, write, fmt.Sprint("r", i), "x"), "ok")
		m.Stop()
		m.Start()
		testkit.Until(t, 10*time.Second, "the restarted server is used", func() bool {
			return testkit.PHP(t, h, write, fmt.Sprint("r", i), "y") == "ok"
		})
		testkit.Want(t, testkit.PHP(t, h, read, fmt.Sprint("r", i)), "y")
	}
}

// The session is held open over a restart of the server: what is written is whole, or PHP is told.
func TestServerRestartedUnderALock(t *testing.T) { testkit.EachKeep(t, testServerRestartedUnderALock) }

func testServerRestartedUnderALock(t *testing.T, k testkit.Keep) {
	h, m := one(t, k.Lock(""), "")
	testkit.Want(t, testkit.PHP(t, h, write, "u", "old"), "ok")
	restarted := testkit.NewGate(t)
	p := testkit.StartPHP(t, h, nil, start+`echo "held\n"; `+restarted.PHP()+`$_SESSION['v'] = 'new'; session_write_close(); echo "end";`, "u")
	testkit.Until(t, 10*time.Second, "the lock is held", func() bool { return strings.Contains(p.Output(), "held") })
	m.Stop()
	m.Start()
	restarted.Open()
	p.Wait(t, 30*time.Second)
	got := strings.TrimSpace(testkit.PHP(t, h, read, "u"))
	failed := strings.Contains(p.Output(), "Failed to write session data")
	if failed == (got == "new") {
		t.Errorf("PHP said %q, the session says %q", p.Output(), got)
	}
}

// P3: a PHP process killed between truncation and write, or in the middle of a large write: the old session stays.
func TestKilledInTheMiddle(t *testing.T) { testkit.EachKeep(t, testKilledInTheMiddle) }

func testKilledInTheMiddle(t *testing.T, k testkit.Keep) {
	h, _ := one(t, k.Lock(""), "")
	for name, code := range map[string]string{
		"after ftruncate":  `$f = fopen($argv[1], 'r+'); flock($f, LOCK_EX); ftruncate($f, 0); echo "cut\n"; sleep(60);`,
		"after fopen w":    `$f = fopen($argv[1], 'w'); flock($f, LOCK_EX); echo "cut\n"; sleep(60);`,
		"after a cut":      `$f = fopen($argv[1], 'r+'); flock($f, LOCK_EX); ftruncate($f, 3); echo "cut\n"; sleep(60);`,
		"in a large write": `$f = fopen($argv[1], 'r+'); stream_set_write_buffer($f, 0); flock($f, LOCK_EX); ftruncate($f, 0); fwrite($f, str_repeat('n', 1044481)); echo "cut\n"; sleep(60);`,
		"order 3":          `$f = fopen($argv[1], 'r+'); stream_set_write_buffer($f, 0); flock($f, LOCK_EX); fwrite($f, 'n'); echo "cut\n"; sleep(60);`,
	} {
		t.Run(name, func(t *testing.T) {
			id := strings.ReplaceAll(name, " ", "-")
			testkit.Want(t, testkit.PHP(t, h, write, id, "old"), "ok")
			p := testkit.StartPHP(t, h, nil, code, h.Path("sess_"+id))
			testkit.Until(t, 10*time.Second, "it has begun", func() bool { return strings.Contains(p.Output(), "cut") })
			p.Signal(syscall.SIGKILL)
			testkit.Want(t, testkit.PHP(t, h, read, id), "old")
		})
	}
}

// The same with PHP's own handler, killed at any moment of a 5 MB write.
func TestKilledWhileWriting(t *testing.T) { testkit.EachKeep(t, testKilledWhileWriting) }

func testKilledWhileWriting(t *testing.T, k testkit.Keep) {
	h, _ := one(t, k.Lock(""), "")
	for i := range 12 {
		id := fmt.Sprint("kw", i)
		testkit.Want(t, testkit.PHP(t, h, write, id, "old"), "ok")
		p := testkit.StartPHP(t, h, nil, start+`$_SESSION['v'] = str_repeat('n', 5000000); echo "begin\n"; session_write_close(); echo "end\n"; sleep(60);`, id)
		testkit.Until(t, 20*time.Second, "it has begun", func() bool { return strings.Contains(p.Output(), "begin") })
		time.Sleep(time.Duration(i) * 3 * time.Millisecond)
		p.Signal(syscall.SIGKILL)
		<-p.Done()
		got := strings.TrimSpace(testkit.PHP(t, h, start+`echo $_SESSION['v'] === 'old' ? 'old' : (strlen($_SESSION['v']) == 5000000 ? 'new' : 'broken');`, id))
		if got == "broken" || got == "old" && strings.Contains(p.Output(), "end") {
			t.Errorf("killed after %d ms, printed %q: the session is %s", i*3, p.Output(), got)
		}
	}
}

// Damaged records: EIO and a log line that names hash and server; never a crash or a foreign session.
func TestDamagedRecords(t *testing.T) { testkit.EachKeep(t, testDamagedRecords) }

func testDamagedRecords(t *testing.T, k testkit.Keep) {
	h, m := one(t, k.Lock(""), "")
	testkit.Want(t, testkit.PHP(t, h, write, "good", "mine"), "ok")
	testkit.Want(t, testkit.PHP(t, h, write, "other", "foreign"), "ok")
	good, other := get(t, m, "sessfs:sess_good"), get(t, m, "sessfs:sess_other")
	damages := map[string]string{"foreign": other, "text": "hello", "none": "", "doubled": good + good}
	for _, n := range []int{1, 10, len(good) / 2, len(good) - 1} {
		damages[fmt.Sprint("cut to ", n)] = good[:n]
		b := []byte(good)
		b[n] ^= 0x10
		damages[fmt.Sprint("flipped at ", n)] = string(b)
	}
	testkit.Until(t, 10*time.Second, "nothing is served from memory", func() bool {
		out, _ := h.Sessfs("status")
		return strings.Contains(out, " 0 kept,")
	})
	for name, value := range damages {
		set(t, m, "sessfs:sess_good", value)
		out := testkit.PHP(t, h, read, "good")
		if !strings.Contains(out, "Input/output error") || strings.Contains(out, "mine") || strings.Contains(out, "foreign") {
			t.Errorf("%s: PHP printed %s", name, out)
		}
	}
	named := regexp.MustCompile(sessfs.ID("sess_good").Hash() + `.*` + regexp.QuoteMeta(m.Addr) + `.*damaged`)
	if log := h.Log(); len(named.FindAllString(log, -1)) < len(damages) || strings.Contains(log, "sess_good") {
		t.Errorf("for each of %d damages the log should name server and hash, and no id:\n%s", len(damages), log)
	}
	set(t, m, "sessfs:sess_good", good)
	testkit.Want(t, testkit.PHP(t, h, read, "good"), "mine")
	// One that is damaged can be taken away.
	set(t, m, "sessfs:sess_good", "garbage")
	if out, code := h.Sessfs("rm", "sess_good"); code != 0 {
		t.Errorf("rm of a damaged session: exit %d: %s", code, out)
	}
	testkit.Want(t, testkit.PHP(t, h, read, "good"), "-")
}

func get(t *testing.T, m *testkit.Memcached, key string) string {
	t.Helper()
	out, err := exec.Command("memccat", "--servers="+m.Addr, key).Output()
	if err != nil {
		t.Fatalf("memccat: %v", err)
	}
	return strings.TrimSuffix(string(out), "\n")
}

func set(t *testing.T, m *testkit.Memcached, key, value string) {
	t.Helper()
	if out := m.Command("set %s 0 0 %d\r\n%s", key, len(value), value); !strings.HasPrefix(out, "STORED") {
		t.Fatalf("set: %s", out)
	}
}

// Mounting while a server is down: loud, but up; with --require-servers exit 4.
func TestMountWithoutServers(t *testing.T) { testkit.EachKeep(t, testMountWithoutServers) }

func testMountWithoutServers(t *testing.T, k testkit.Keep) {
	m := testkit.StartMemcached(t)
	m.Stop()
	h := testkit.NewHost(t, testkit.Conf{Servers: []*testkit.Memcached{m}, Cache: "  retry_interval: 1s\n"})
	out, code := h.Sessfs("mount", "--foreground", "--require-servers")
	if code != 4 || !strings.Contains(out, m.Addr) {
		t.Errorf("--require-servers: exit %d: %s", code, out)
	}
	h.Start()
	testkit.Until(t, 10*time.Second, "the warning is logged", func() bool { return strings.Contains(h.Log(), "mounting although") })
	m.Start()
	testkit.Until(t, 10*time.Second, "the mount works", func() bool { return testkit.PHP(t, h, write, "late", "x") == "ok" })
}

// A worker's exit in the middle of a request frees its lock and keeps the old session.
func TestWorkerEndsWithoutClosing(t *testing.T) { testkit.EachKeep(t, testWorkerEndsWithoutClosing) }

func testWorkerEndsWithoutClosing(t *testing.T, k testkit.Keep) {
	h, _ := one(t, k.Lock(""), "")
	testkit.Want(t, testkit.PHP(t, h, write, "exit", "old"), "ok")
	p := testkit.StartPHP(t, h, nil, start+`$_SESSION['v'] = 'new'; exec('kill -9 '.getmypid()); sleep(60);`, "exit")
	p.Wait(t, 10*time.Second)
	testkit.Want(t, testkit.PHP(t, h, read, "exit"), "old")
}
