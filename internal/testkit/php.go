package testkit

import (
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What tests have PHP do with the session that the first argument names: start begins, write stores the second argument
// and prints "ok", read prints it again, or "-".
const (
	PHPStart = `session_id($argv[1]); session_start() or exit("no session"); `
	PHPWrite = PHPStart + `$_SESSION['v'] = $argv[2]; session_write_close() or exit("not written"); echo "ok";`
	PHPRead  = PHPStart + `echo $_SESSION['v'] ?? '-';`
)

// Want fails the test where a program printed something else, but for white space around it.
func Want(t testing.TB, got, wanted string) {
	t.Helper()
	if got = strings.TrimSpace(got); got != wanted {
		t.Fatalf("got\n%s\nnot\n%s", got, wanted)
	}
}

// phpSettings: nothing of the machine's php.ini, sessions without cookies, errors on standard output.
var phpSettings = []string{"-n", "-d", "session.use_cookies=0", "-d", "session.use_only_cookies=0", "-d", "session.cache_limiter=",
	"-d", "display_errors=stdout", "-d", "html_errors=0", "-d", "error_reporting=-1", "-d", "session.gc_probability=0", "-d", "memory_limit=512M"}

// PHPCommand is a run of php with code (without <?php) and arguments ($argv[1]…) on a host's session directory.
func PHPCommand(h *Host, settings []string, code string, args ...string) *exec.Cmd {
	all := append(append([]string{}, phpSettings...), "-d", "session.save_path="+h.Dir)
	for _, s := range settings {
		all = append(all, "-d", s)
	}
	return exec.Command("php", append(append(all, "-r", code, "--"), args...)...)
}

// PHP runs code to its end and returns what it printed, warnings included.
func PHP(t testing.TB, h *Host, code string, args ...string) string {
	t.Helper()
	return PHPWith(t, h, nil, code, args...)
}

// PHPWith is PHP with more settings, such as "session.use_strict_mode=1".
func PHPWith(t testing.TB, h *Host, settings []string, code string, args ...string) string {
	t.Helper()
	p := StartPHP(t, h, settings, code, args...)
	p.Wait(t, time.Minute)
	return p.Output()
}

// StartPHP runs code beside the test.
func StartPHP(t testing.TB, h *Host, settings []string, code string, args ...string) *Process {
	t.Helper()
	return StartCmd(t, PHPCommand(h, settings, code, args...))
}

// PHPAs is PHPWith as another user.
func PHPAs(t testing.TB, h *Host, uid uint32, settings []string, code string, args ...string) string {
	t.Helper()
	cmd := PHPCommand(h, settings, code, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	p := StartCmd(t, cmd)
	p.Wait(t, time.Minute)
	return p.Output()
}

// Web is a host's php-fpm behind nginx.
type Web struct {
	URL string
	fpm *Process
}

// StartWeb serves the PHP files of root with php-fpm (as www-data, with workers children) behind nginx, with the
// session directory of h.
func StartWeb(t testing.TB, h *Host, root string, workers int, settings ...string) *Web {
	t.Helper()
	dir := Dir(t)
	port := FreePort(t)
	sock := filepath.Join(dir, "fpm.sock")
	var more strings.Builder
	for _, s := range settings {
		k, v, _ := strings.Cut(s, "=")
		fmt.Fprintf(&more, "php_admin_value[%s] = %q\n", k, v)
	}
	fpm := WriteFile(t, filepath.Join(dir, "fpm.conf"), `[global]
error_log = /dev/stderr
daemonize = no
[www]
user = www-data
group = www-data
listen = %s
listen.mode = 0666
pm = static
pm.max_children = %d
catch_workers_output = yes
php_admin_value[session.save_path] = %s
php_admin_value[session.gc_probability] = 0
php_admin_value[display_errors] = stdout
php_admin_value[html_errors] = 0
%s`, sock, workers, h.Dir, more.String())
	nginx := WriteFile(t, filepath.Join(dir, "nginx.conf"), `daemon off;
master_process off;
pid %[1]s/nginx.pid;
error_log stderr warn;
events {}
http {
  access_log off;
  client_body_temp_path %[1]s/body;
  client_max_body_size 64m;
  fastcgi_temp_path %[1]s/fastcgi;
  proxy_temp_path %[1]s/proxy;
  scgi_temp_path %[1]s/scgi;
  uwsgi_temp_path %[1]s/uwsgi;
  server {
    listen 127.0.0.1:%[2]d;
    root %[3]s;
    location ~ \.php$ {
      include /etc/nginx/fastcgi_params;
      fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;
      fastcgi_request_buffering off;
      fastcgi_pass unix:%[4]s;
      fastcgi_read_timeout 120s;
    }
  }
}
`, dir, port, root, sock)
	w := &Web{URL: "http://127.0.0.1:" + strconv.Itoa(port), fpm: start(t, exec.Command(FPMBinary(t), "-n", "-y", fpm, "-F", "-R"))}
	t.Cleanup(func() { w.fpm.Stop() }) // its children end with it only when it is asked to end
	Start(t, "nginx", "-c", nginx)
	Until(t, 20*time.Second, "php-fpm and nginx answer", func() bool {
		res, err := http.Get(w.URL + "/nothing-here.php")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusNotFound
	})
	return w
}

// FPMBinary finds php-fpm, which distributions name after its version.
func FPMBinary(t testing.TB) string {
	t.Helper()
	found, _ := filepath.Glob("/usr/sbin/php-fpm*")
	if len(found) == 0 {
		t.Fatal("php-fpm is not installed (apt-get install php-fpm)")
	}
	return found[0]
}

// Get fetches a page with a session cookie and returns its text.
func (w *Web) Get(t testing.TB, path, session string) string {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, w.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if session != "" {
		req.AddCookie(&http.Cookie{Name: "PHPSESSID", Value: session})
	}
	res, err := (&http.Client{Timeout: time.Minute}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
