package confine

import (
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sessfs/internal/testkit"
)

const (
	secretID   = "9f3b7c1de5a24680"       // in all ids
	secretData = "correct-horse-battery_" // in all that is stored
)

// whatGoesWrong has PHP do what is logged: sessions that are too large, locks that are waited for, killed processes, emptied
// sessions, destroyed ones.
const whatGoesWrong = `$id = $argv[1] . $argv[2]; $data = $argv[3];
	session_id($id); session_start(); $_SESSION['v'] = str_repeat($data, 100); session_write_close();
	session_id($id); session_start(); $_SESSION['v'] = str_repeat($data, 10000); @session_write_close();
	session_id($id); session_start(); session_destroy();
	session_id($id . 'n'); session_start(); $_SESSION['v'] = $data; session_write_close();
	$f = fopen(ini_get('session.save_path') . "/sess_{$id}k", 'c+'); flock($f, LOCK_EX); fwrite($f, $data);
	touch(ini_get('session.save_path') . "/sess_{$id}k"); @file_put_contents(ini_get('session.save_path') . "/other_$id", $data);
	@rename(ini_get('session.save_path') . "/sess_{$id}n", ini_get('session.save_path') . "/sess_{$id}m");
	echo 'done';`

// Nothing that the daemon says has a session's id or data: not at debug level, under load, while servers fail, nor when it
// dies. What stands for a session is a hash.
func TestSaysNothingOfSessions(t *testing.T) {
	address := fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
	servers := []*testkit.Memcached{testkit.StartMemcached(t), testkit.StartMemcached(t)}
	h := testkit.NewHost(t, testkit.Conf{Servers: servers, More: "log: {level: debug}\nsession: {max_size: 100kB}\nlock: {lease: 4s, keep: 200ms}\n", Cache: "  timeout: 1s\n  retry_interval: 1s\n"})
	testkit.ReplaceFile(t, h.Config, "%s", strings.Replace(string(readFile(t, h.Config)), "admin: {", "admin: {metrics: \""+address+"\", ", 1))
	h.Start()
	load := func(n string) {
		t.Helper()
		for i := range 3 {
			testkit.PHP(t, h, whatGoesWrong, secretID, fmt.Sprint(n, "x", i), secretData)
		}
	}
	var told strings.Builder
	ask := func(what string) {
		t.Helper()
		for _, args := range [][]string{{"status"}, {"status", "--json"}} {
			out, _ := h.Sessfs(args...)
			told.WriteString(out)
		}
		for _, path := range []string{"/metrics", "/healthz", "/readyz", "/"} {
			res, err := http.Get("http://" + address + path)
			if err != nil {
				t.Fatal(what, err)
			}
			res.Write(&told)
			res.Body.Close()
		}
	}
	load("a")
	// Held and waited for, beyond the time after which that is logged, and while the daemon is asked.
	far := testkit.Mount(t, testkit.Conf{Servers: servers, More: "lock: {lease: 4s, keep: 200ms}\n", Cache: "  timeout: 1s\n"})
	holder := testkit.StartPHP(t, far, nil, `session_id($argv[1]); session_start(); $_SESSION['v'] = $argv[2]; echo "held\n"; sleep(600);`, secretID+"held", secretData)
	testkit.Until(t, 10*time.Second, "it is held", func() bool { return strings.Contains(holder.Output(), "held") })
	waiter := testkit.StartPHP(t, h, nil, `session_id($argv[1]); session_start(); echo "had";`, secretID+"held")
	testkit.Until(t, 20*time.Second, "the wait is logged", func() bool { return strings.Contains(h.Log(), "lock is waited for") })
	ask("while a lock is held")
	holder.Kill()
	far.Stop()
	waiter.Wait(t, time.Minute)
	// A server that damages what it has, and one that is gone.
	damage(t, servers)
	load("b")
	servers[0].Stop()
	load("c")
	ask("with a server down")
	servers[1].Stop()
	load("d")
	ask("with no server")
	for _, s := range servers {
		s.Start()
	}
	testkit.Until(t, 30*time.Second, "the servers are there again", func() bool { return testkit.PHP(t, h, write, secretID+"again", secretData) == "ok" })
	// The daemon dies with sessions in its hands, and says what it died of.
	open := testkit.StartPHP(t, h, nil, `session_id($argv[1]); session_start(); $_SESSION['v'] = str_repeat($argv[2], 1000); echo "held\n"; sleep(600);`, secretID+"open", secretData)
	testkit.Until(t, 10*time.Second, "it is open", func() bool { return strings.Contains(open.Output(), "held") })
	h.Process().Expect(1)
	kill(t, h, func(pid int) { unix.Kill(pid, unix.SIGABRT) })
	if !strings.Contains(h.Log(), "SIGABRT") || !strings.Contains(h.Log(), "goroutine ") {
		t.Errorf("the daemon did not say what it died of:\n%s", h.Log())
	}
	ask("after a crash")
	open.Kill()
	process := h.Process()
	h.Stop()
	all := told.String() + process.Output()
	for _, secret := range []string{secretID, secretData, hex.EncodeToString([]byte(secretID)), hex.EncodeToString([]byte(secretData)),
		reversedWord(secretID), reversedWord(secretData)} {
		if at := strings.Index(all, secret); at >= 0 {
			t.Errorf("%q was said: …%s…", secret, all[max(0, at-300):min(len(all), at+300)])
		}
	}
}

// reversedWord is how the first eight bytes of a string look in a register.
func reversedWord(s string) string {
	b := []byte(s[:8])
	for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
		b[i], b[j] = b[j], b[i]
	}
	return hex.EncodeToString(b)
}

// damage changes every session that the servers have into something that is none.
func damage(t *testing.T, servers []*testkit.Memcached) {
	t.Helper()
	n := 0
	for _, s := range servers {
		for line := range strings.Lines(s.Dump()) {
			key, _, _ := strings.Cut(strings.TrimPrefix(line, "key="), " ")
			if strings.Contains(key, secretID) && !strings.Contains(key, "@") {
				s.Command("set %s 0 60 %d\r\n%s", strings.ReplaceAll(key, "%3A", ":"), len(secretData), secretData)
				n++
			}
		}
	}
	if n == 0 {
		t.Fatal("the servers have no session")
	}
}
