// Package tls tests that sessions, their ids and the passwords go over the wire to nobody but those whom they are for.
package tls

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sessfs/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const (
	start = `session_id($argv[1]); session_start() or exit("no session"); `
	write = start + `$_SESSION['v'] = $argv[2]; session_write_close() or exit("not written"); echo "ok";`
	read  = start + `echo $_SESSION['v'] ?? '-';`
)

// The marks of what must not be seen.
const (
	id   = "secretsessionidsecretsessionid"
	data = "what the visitor has in his cart"
)

func wantPHP(t *testing.T, h *testkit.Host, want, code string, args ...string) {
	t.Helper()
	if got := strings.TrimSpace(testkit.PHP(t, h, code, args...)); got != want {
		t.Fatalf("PHP printed %s, not %s; the log:\n%s", got, want, h.Log())
	}
}

// hidden fails where a text is in what somebody may read.
func hidden(t *testing.T, what, text string) {
	t.Helper()
	for _, s := range []string{testkit.SafePassword, "wrong-horse", id, data} {
		if strings.Contains(text, s) {
			t.Errorf("%s has %q: %s", what, s, text)
		}
	}
}

func (c *capture) wantNothing() {
	c.t.Helper()
	c.settle()
	for _, s := range []string{testkit.SafePassword, "wrong-horse", testkit.SafeUser + " ", id, data, "sessfs:", "version"} {
		if c.sees(s) {
			c.t.Errorf("%q is seen on the wire", s)
		}
	}
}

// With TLS nothing is seen on the wire, neither by the pipelined connections nor by those that look at the servers; without
// TLS all is, by the same capture.
func TestNothingInTheClear(t *testing.T) {
	use := func(m *testkit.Memcached) (*testkit.Host, *capture) {
		c := listenTo(t, m.Addr)
		h := testkit.Mount(t, testkit.Conf{Servers: []*testkit.Memcached{m}})
		wantPHP(t, h, "ok", write, id, data)
		wantPHP(t, h, data, read, id)
		for _, args := range [][]string{{"ls"}, {"show", "sess_" + id}, {"status"}, {"doctor", "--verbose"}} {
			h.Sessfs(args...)
		}
		return h, c
	}
	_, c := use(testkit.StartMemcached(t))
	c.settle()
	if os.Getenv(testkit.SafeEnv) != "1" {
		for _, s := range []string{id, data, "version"} {
			if !c.sees(s) {
				t.Fatalf("without TLS the capture does not see %q", s)
			}
		}
	}
	safe := testkit.NewSafe(t)
	h, c := use(testkit.StartSafe(t, safe))
	c.wantNothing()
	if out, code := h.Sessfs("status"); code != 0 || !strings.Contains(out, "up (meta, TLS 1.3, login)") {
		t.Errorf("status: exit %d: %s", code, out)
	}
	hidden(t, "the log", h.Log())
	out, _ := h.Sessfs("status", "--json")
	hidden(t, "status --json", strings.ReplaceAll(out, safe.Password, ""))
	out, _ = h.Sessfs("config", "check", h.Config)
	hidden(t, "config check", out)
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", h.Process().PID()))
	if err != nil {
		t.Fatal(err)
	}
	hidden(t, "the command line", string(cmdline))
}

// Whoever is not who he should be is refused at once, however long the timeout is, with the reason, and before anything was
// said to him.
func TestRefused(t *testing.T) {
	good, other := testkit.NewSafe(t), testkit.NewAuthority(t, "other")
	past := time.Now().Add(-time.Minute)
	with := func(c testkit.Certificate) *testkit.Memcached {
		s := *good
		s.Server = c
		return testkit.StartSafe(t, &s)
	}
	for name, tc := range map[string]struct {
		server       *testkit.Memcached
		change       func(yaml string) string
		reason, code string
	}{
		"unknown authority": {with(other.Valid(t, "127.0.0.1")), nil, "signed by", "server-certificate"},
		"another name":      {with(good.CA.Valid(t, "cache.example")), nil, "it is that of cache.example, and not of 127.0.0.1", "server-certificate"},
		"expired":           {with(good.CA.Issue(t, past.Add(-time.Hour), past, "127.0.0.1")), nil, "it has expired at 20", "server-certificate"},
		"wrong password": {testkit.StartSafe(t, good), func(yaml string) string {
			return strings.Replace(yaml, good.Password, testkit.Secret(t, "wrong-horse\n"), 1)
		}, "it does not take the password of user web", "server-password"},
	} {
		t.Run(name, func(t *testing.T) {
			c := listenTo(t, tc.server.Addr)
			yaml := tc.server.Safe.YAML()
			if tc.change != nil {
				yaml = tc.change(yaml)
			}
			h := testkit.NewHost(t, testkit.Conf{Servers: []*testkit.Memcached{tc.server}, More: "lock: {lease: 10m}", Cache: "  timeout: 1m\n" + yaml})
			out, code := testkit.Run(t, h.Binary, "mount", "--foreground", "--require-servers", "--config", h.Config)
			if code != 4 || !strings.Contains(out, tc.reason) {
				t.Errorf("mount --require-servers: exit %d: %s", code, out)
			}
			hidden(t, "what it says", out)
			h.Start()
			if out := testkit.PHP(t, h, write, id, data); !strings.Contains(out, "Input/output error") {
				t.Errorf("PHP printed %s", out)
			}
			if !strings.Contains(h.Log(), tc.reason) {
				t.Errorf("the log does not say %q:\n%s", tc.reason, h.Log())
			}
			if out, code := h.Sessfs("doctor"); code != 4 || !strings.Contains(out, tc.code) || !strings.Contains(out, tc.reason) {
				t.Errorf("doctor: exit %d: %s", code, out)
			}
			c.wantNothing()
			hidden(t, "the log", h.Log())
		})
	}
}

func replace(t *testing.T, path, from string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	tmp := path + ".new"
	if err = os.WriteFile(tmp, b, 0o600); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Certificates, keys and passwords are replaced under a mount that stands, as by certbot or a configuration manager.
func TestFilesAreReplaced(t *testing.T) {
	old, next := testkit.NewSafe(t), testkit.NewSafe(t)
	m := testkit.StartSafe(t, old)
	h := testkit.Mount(t, testkit.Conf{Servers: []*testkit.Memcached{m}})
	wantPHP(t, h, "ok", write, "a", "1")
	for _, f := range [][2]string{{old.CA.File, next.CA.File}, {old.Server.Cert, next.Server.Cert}, {old.Server.Key, next.Server.Key},
		{old.Client.Cert, next.Client.Cert}, {old.Client.Key, next.Client.Key}} {
		replace(t, f[0], f[1])
	}
	wantPHP(t, h, "1", read, "a") // over the connection that stands
	m.Stop()
	m.Start()
	testkit.Until(t, 20*time.Second, "the server is used again", func() bool { return strings.TrimSpace(testkit.PHP(t, h, write, "b", "2")) == "ok" })
	// Another password in another file: that is a change of the configuration, and takes effect without a remount.
	yaml := strings.Replace(old.YAML(), old.Password, testkit.Secret(t, "wrong-horse"), 1)
	h.Configure(testkit.Conf{Servers: []*testkit.Memcached{m}, Cache: "  timeout: 4s\n" + yaml})
	testkit.Until(t, 20*time.Second, "the wrong password is refused", func() bool { return strings.Contains(h.Log(), "it does not take the password") })
	h.Configure(testkit.Conf{Servers: []*testkit.Memcached{m}, Cache: "  timeout: 4s\n" + old.YAML()})
	testkit.Until(t, 20*time.Second, "the right one is taken", func() bool { return strings.TrimSpace(testkit.PHP(t, h, read, "b")) == "2" })
	hidden(t, "the log", h.Log())
	// A file that others may read is no secret: the configuration is refused.
	if err := os.Chmod(old.Password, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, code := h.Sessfs("status"); code != 0 {
		t.Errorf("status: %s", out)
	}
	out, code := testkit.Run(t, h.Binary, "config", "check", h.Config)
	if code != 3 || !strings.Contains(out, "chmod 600 "+old.Password) {
		t.Errorf("config check: exit %d: %s", code, out)
	}
	if out, code := testkit.Run(t, h.Binary, "mount", "--foreground", "--config", h.Config, testkit.Dir(t)); code != 3 || !strings.Contains(out, "chmod 600 "+old.Password) {
		t.Errorf("mount: exit %d: %s", code, out)
	}
}

// Secrets may be systemd's: names that are looked up where the service has them.
func TestCredentials(t *testing.T) {
	safe := testkit.NewSafe(t)
	dir := testkit.Dir(t)
	yaml := safe.YAML()
	for name, file := range map[string]string{"ca.pem": safe.CA.File, "cert.pem": safe.Client.Cert, "key.pem": safe.Client.Key, "password": safe.Password} {
		replace(t, filepath.Join(dir, name), file)
		yaml = strings.Replace(yaml, file, name, 1)
	}
	m := testkit.StartSafe(t, safe)
	h := testkit.NewHost(t, testkit.Conf{Servers: []*testkit.Memcached{m}, Cache: "  timeout: 4s\n" + yaml})
	if out, code := testkit.Run(t, h.Binary, "mount", "--foreground", "--config", h.Config); code != 3 || !strings.Contains(out, "LoadCredential=") {
		t.Errorf("mount without credentials: exit %d: %s", code, out)
	}
	if out, code := testkit.Run(t, h.Binary, "config", "check", h.Config); code != 0 || !strings.Contains(out, "not checked") {
		t.Errorf("config check without credentials: exit %d: %s", code, out)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	h.Start()
	wantPHP(t, h, "ok", write, "a", "1")
	wantPHP(t, h, "1", read, "a")
}

// Servers that have SASL alone work, and what they cannot do is said.
func TestSASL(t *testing.T) {
	m := testkit.StartSASL(t)
	h := testkit.Mount(t, testkit.Conf{Servers: []*testkit.Memcached{m},
		Cache: fmt.Sprintf("  timeout: 4s\n  auth: {user: %q, password_file: %s}\n", testkit.SASLUser, testkit.Secret(t, testkit.SASLPassword))})
	wantPHP(t, h, "ok", write, "a", strings.Repeat("x", 100_000))
	wantPHP(t, h, strings.Repeat("x", 100_000), read, "a")
	for _, args := range [][]string{{"ls"}, {"rebalance"}, {"export", testkit.Dir(t)}} {
		if out, code := h.Sessfs(args...); code == 0 || !strings.Contains(out, "started with -S") {
			t.Errorf("%s: exit %d: %s", args[0], code, out)
		}
	}
	if out, _ := h.Sessfs("doctor"); !strings.Contains(out, "server-no-listing") {
		t.Errorf("doctor: %s", out)
	}
	if out, _ := h.Sessfs("status"); !strings.Contains(out, "up (classic, login)") {
		t.Errorf("status: %s", out)
	}
}
