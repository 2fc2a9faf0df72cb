package doctor

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// plant makes files below a directory; "-> " begins what a link leads to.
func plant(t *testing.T, files map[string]string) tree {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		err := os.WriteFile(path, []byte(text), 0o644)
		if target, isLink := strings.CutPrefix(text, "-> "); isLink {
			os.Remove(path)
			err = os.Symlink(target, path)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return tree{root}
}

// The tree of a container, or of RHEL: settings are found there and nowhere else, also by links with absolute targets.
func TestSettingsOfATree(t *testing.T) {
	t1 := plant(t, map[string]string{
		"/etc/php.ini":                  "session.gc_maxlifetime = 1440\nsession.save_path = \"/a\"\n",
		"/etc/php.d/20-x.ini":           "-> /etc/more/x.ini",
		"/etc/more/x.ini":               "session.gc_maxlifetime = 2K\n[HOST=example.org]\nsession.save_path = /only-there\n",
		"/etc/php-fpm.conf":             "include=/etc/php-fpm.d/*.conf\n[global]\npid = x\n",
		"/etc/php-fpm.d/shop.conf":      "[shop]\nuser = $pool\nphp_admin_value[session.save_path] = /b/$pool\nphp_value[session.save_path] = /not-this\nphp_flag[session.lazy_write] = off\n",
		"/etc/php-fpm.d/www.conf":       "[www]\nchroot = /srv\nphp_value[session.save_path] = /var/lib/php/session\n",
		"/etc/httpd/conf/httpd.conf":    "Include conf.d/*.conf\n",
		"/etc/httpd/modules/libphp.so":  "",
		"/etc/httpd/conf.d/php.conf":    "<IfModule mod_php.c>\n  php_value session.save_path \"/var/lib/php/session\"\n</IfModule>\n",
		"/etc/httpd/conf.d/a-site.conf": "<VirtualHost *:80>\n<Directory /srv/a>\n# php_value session.save_path /no\nphp_admin_flag session.lazy_write Off\n</Directory>\nphp_admin_value session.gc_maxlifetime 60\n</VirtualHost>\n",
	})
	type want struct {
		path, life, lazy, user string
	}
	wanted := map[string]want{
		"php on the command line": {"/a", "2K", "1", ""},
		"php-fpm, pool shop":      {"/b/shop", "2K", "", "shop"},
		"php-fpm, pool www":       {"/srv/var/lib/php/session", "2K", "1", ""},
		"Apache's PHP":            {"/var/lib/php/session", "2K", "1", ""},
		"Apache's PHP, <VirtualHost *:80> (" + t1.show("/etc/httpd/conf.d/a-site.conf") + ":1)": {"/var/lib/php/session", "60", "1", ""},
		"Apache's PHP, <VirtualHost *:80> (" + t1.show("/etc/httpd/conf.d/a-site.conf") + ":1) <Directory /srv/a> (" +
			t1.show("/etc/httpd/conf.d/a-site.conf") + ":2)": {"/var/lib/php/session", "2K", "0", ""},
	}
	found := gatherPHP(context.Background(), t1)
	for _, p := range found {
		_, dir := p.savePath()
		if got := (want{dir, p.value("gc_maxlifetime"), p.value("lazy_write"), p.User}); got != wanted[p.Name] {
			t.Errorf("%s has %+v, not %+v", p.Name, got, wanted[p.Name])
		}
		if p.number("gc_maxlifetime") != 60 && p.number("gc_maxlifetime") != 2048 {
			t.Errorf("%s has a lifetime of %d", p.Name, p.number("gc_maxlifetime"))
		}
	}
	if len(found) != len(wanted) {
		t.Errorf("%d were found, not %d", len(found), len(wanted))
	}
}

func TestLineOfTheConfiguration(t *testing.T) {
	l := findLines([]byte("depth: 0   # none\nsession: {lifetime: 24m, max_size: 16MiB}\ndirectory:\n  mode: \"1733\"\ncache:\n  servers: []\n"))
	for _, tc := range []struct {
		key, value, want string
		line             int
	}{
		{"depth", "2", "depth: 2   # none", 1},
		{"session.lifetime", "1h", "session: {lifetime: 1h, max_size: 16MiB}", 2},
		{"session.max_size", "1MiB", "session: {lifetime: 24m, max_size: 1MiB}", 2},
		{"directory.mode", `"0700"`, `mode: "0700"`, 4},
		{"lock.lease", "20s", "lock: {lease: 20s}", 0},
		{"owner", "www-data", "owner: www-data", 0},
	} {
		if got := l.with(tc.key, tc.value); got != tc.want || l.of(tc.key).number != tc.line {
			t.Errorf("%s: line %d, %q; not line %d, %q", tc.key, l.of(tc.key).number, got, tc.line, tc.want)
		}
	}
}

// What servers and hosts say cannot command the terminal.
func TestPrintIsHarmless(t *testing.T) {
	var b bytes.Buffer
	r := NewReport([]Finding{{Code: "x", Severity: Error, Subject: "s\x1b[2J", What: "w\r", Why: "y\u202e", File: "/f", New: "one\ntwo", Do: "d"}, {Code: "n", Severity: Note}})
	if err := r.Print(&b, false); err != nil {
		t.Fatal(err)
	}
	want := "ERROR x: s?[2J w?\n    why   y?\n    file  /f\n    add   one\n          two\n    do    d\n"
	if b.String() != want || r.Summary() != "1 error found" {
		t.Errorf("got\n%q, %s\nnot\n%q", b.String(), r.Summary(), want)
	}
}

func TestMountUnit(t *testing.T) {
	for dir, want := range map[string]string{"/var/lib/php/sessions": "var-lib-php-sessions.mount", "/a-b/.c": `a\x2db-.c.mount`} {
		if got := mountUnit(dir); got != want {
			t.Errorf("%s is %s, not %s", dir, got, want)
		}
	}
}
