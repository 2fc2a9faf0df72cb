// Package seal tests sealed sessions with PHP: what is on the servers, what becomes of a record that somebody altered, and
// how keys are introduced and changed while PHP works.
package seal

import (
	"bufio"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"sessfs/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const start = `session_id($argv[1]); session_start() or exit("no session"); `

// newKey makes a key with the command; like is the file of another one, or "".
func newKey(t *testing.T, dir, name, like string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	args := []string{"seal", "key", file}
	if like != "" {
		args = append(args, "--like", like)
	}
	testkit.MustRun(t, testkit.Binary(t), args...)
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	return file
}

// sealed is YAML for some keys, given as name, file, name, file, the first one first.
func sealed(more string, keys ...string) string {
	text := "seal:\n  keys:\n"
	for i := 0; i < len(keys); i += 2 {
		text += fmt.Sprintf("    - {name: %s, file: %s}\n", keys[i], keys[i+1])
	}
	return text + more
}

// dump is all that a server has: keys and values.
func dump(t *testing.T, m *testkit.Memcached) map[string]string {
	t.Helper()
	c, err := net.Dial("tcp", m.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	r := bufio.NewReader(c)
	line := func() string {
		l, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimRight(l, "\r\n")
	}
	var keys []string
	fmt.Fprint(c, "lru_crawler metadump hash\r\n") // the one that misses nothing
	for l := line(); l != "END"; l = line() {
		if name, ok := strings.CutPrefix(strings.Fields(l)[0], "key="); ok {
			key, err := url.PathUnescape(name)
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, key)
		}
	}
	all := make(map[string]string)
	for _, k := range keys {
		fmt.Fprintf(c, "get %s\r\n", k)
		f := strings.Fields(line())
		if f[0] == "END" {
			continue // it ended meanwhile
		}
		n, err := strconv.Atoi(f[3])
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, n+2)
		for read := 0; read < len(b); {
			i, err := r.Read(b[read:])
			if err != nil {
				t.Fatal(err)
			}
			read += i
		}
		line()
		all[k] = string(b[:n])
	}
	return all
}

// put stores a value whatever is there.
func put(t *testing.T, m *testkit.Memcached, key, value string) {
	t.Helper()
	if got := m.Command("set %s 0 0 %d\r\n%s", key, len(value), value); got != "STORED\r\n" {
		t.Fatal(got)
	}
}

// refused is how many records a host has refused because of their seal, by reason.
func refused(t *testing.T, h *testkit.Host) map[string]uint64 {
	t.Helper()
	var s struct {
		Seals struct{ Refused map[string]uint64 }
	}
	h.Status(&s)
	return s.Seals.Refused
}

// Who reads a server's memory finds neither ids nor data, and who writes there cannot forge, move or bring back a session:
// PHP gets an error each time, it is counted and logged, and the log names no id.
func TestServersAreNotTrusted(t *testing.T) {
	m := testkit.StartMemcached(t)
	key := newKey(t, testkit.Dir(t), "k1.key", "")
	conf := testkit.Conf{Servers: []*testkit.Memcached{m}, More: sealed("", "k1", key)}
	a, b := testkit.Mount(t, conf), testkit.Mount(t, conf)
	store := start + `$_SESSION['cart'] = $argv[2]; echo session_write_close() ? 'stored' : 'lost';`
	show := start + `echo $_SESSION['cart'] ?? 'nothing';`
	const id, other = "visitor0123456789abcdef", "somebodyelse0123456789a"
	testkit.Want(t, testkit.PHP(t, a, store, id, "marmalade"), "stored")
	first := dump(t, m)
	testkit.Want(t, testkit.PHP(t, b, show, id), "marmalade")
	testkit.Want(t, testkit.PHP(t, b, store, id, "marmalade and tea"), "stored")
	testkit.Want(t, testkit.PHP(t, a, store, other, "secret of another"), "stored")
	testkit.Want(t, testkit.PHP(t, a, start+`$_SESSION['x'] = str_repeat('marmalade', 300000); echo session_write_close();`, "large0123456789abcdefgh"), "1")
	now := dump(t, m)
	var own, others string // the keys of the records
	for k, v := range now {
		for _, secret := range []string{"visitor", "somebody", "large0", "marmalade", "secret of"} {
			if strings.Contains(k, secret) || strings.Contains(v, secret) {
				t.Errorf("%q is in the item %.60q", secret, k)
			}
		}
		switch {
		case !strings.HasPrefix(k, "sessfs:~"):
		case first[k] != "":
			own = k
		case len(v) < 1000:
			others = k
		}
	}
	if own == "" || others == "" {
		t.Fatalf("the records are not there: %d items", len(now))
	}
	flipped := []byte(now[own])
	flipped[len(flipped)-20] ^= 4
	for what, value := range map[string]string{
		"altered":     string(flipped),
		"swapped":     now[others],
		"rolled_back": first[own],
		"plain":       "SSFS" + strings.Repeat("x", 200),
	} {
		before := refused(t, b)
		put(t, m, own, value)
		for range 2 {
			out := testkit.PHP(t, b, show, id)
			if !strings.Contains(out, "Input/output error") || strings.Contains(out, "marmalade") || strings.Contains(out, "secret") {
				t.Errorf("%s: PHP got %s", what, out)
			}
		}
		reason := what
		if what == "swapped" {
			reason = "altered"
		}
		if after := refused(t, b); after[reason] < before[reason]+2 {
			t.Errorf("%s: counted are %v, before %v", what, after, before)
		}
	}
	put(t, m, own, now[own])
	testkit.Want(t, testkit.PHP(t, b, show, id), "marmalade and tea")
	log := b.Log()
	if !strings.Contains(log, "reason=altered") || !strings.Contains(log, "reason=rolled_back") || strings.Contains(log, "visitor") || strings.Contains(log, "marmalade") {
		t.Errorf("the log says:\n%s", log)
	}
	if out, _ := b.Sessfs("status"); !strings.Contains(out, "refused so far because of a seal") || !strings.Contains(out, "with k1") {
		t.Errorf("status says:\n%s", out)
	}
}

// A key that others can read, that is none, or that gives other names, is refused, before the start and while mounted; what
// was in use goes on.
func TestBadKeys(t *testing.T) {
	m := testkit.StartMemcached(t)
	dir := testkit.Dir(t)
	good, foreign := newKey(t, dir, "good.key", ""), newKey(t, dir, "foreign.key", "")
	open := testkit.WriteFile(t, filepath.Join(dir, "open.key"), "%s", read(t, good))
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	none := testkit.WriteFile(t, filepath.Join(dir, "none.key"), "secret\n")
	if err := os.Chmod(none, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, code := testkit.Run(t, testkit.Binary(t), "seal", "key", good); code == 0 || !strings.Contains(out, "never overwritten") {
		t.Errorf("a key was overwritten: %s", out)
	}
	h := testkit.Mount(t, testkit.Conf{Servers: []*testkit.Memcached{m}, More: sealed("", "k1", good)})
	testkit.Want(t, testkit.PHP(t, h, start+`$_SESSION['n'] = 1; echo session_write_close();`, "a"), "1")
	for text, conf := range map[string]string{
		"chmod 600":                    sealed("", "k1", open),
		"it is no key":                 sealed("", "k1", none),
		"no such file":                 sealed("", "k1", filepath.Join(dir, "missing")),
		"could not agree on locks":     sealed("", "k1", good, "k2", foreign),
		"all sessions would be lost":   sealed("", "k2", foreign),
		"is here twice":                sealed("", "k1", good, "k1", good),
		"are the same":                 sealed("", "k1", good, "k2", good),
		"needs seal.accept_plain":      sealed("  write_plain: true\n", "k1", good),
		"name of a systemd credential": sealed("", "k1", "k1"),
	} {
		c := testkit.Conf{Servers: []*testkit.Memcached{m}, More: conf}
		if text != "all sessions would be lost" {
			out, code := testkit.Run(t, testkit.Binary(t), "config", "check", testkit.NewHost(t, c).Config)
			if !strings.Contains(out, text) || code == 0 && text != "name of a systemd credential" {
				t.Errorf("%s: config check: exit %d: %s", text, code, out)
			}
		}
		h.Configure(c)
		testkit.Until(t, 10*time.Second, "the log says "+text, func() bool { return strings.Contains(h.Log(), text) })
		testkit.Want(t, testkit.PHP(t, h, start+`echo $_SESSION['n'];`, "a"), "1")
	}
	if strings.Contains(h.Log(), strings.TrimSpace(read(t, good))[20:60]) {
		t.Error("the log has a key")
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
