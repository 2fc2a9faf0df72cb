package metrics

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"sessfs"
	"sessfs/internal/testkit"
)

// overSocket is a client of the admin socket.
func overSocket(s *site) *http.Client {
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", s.socket())
		}}}
}

func askSocket(t *testing.T, s *site, path string) (int, string) {
	t.Helper()
	req, err := http.NewRequest("GET", "http://sessfs"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, body := do(t, overSocket(s), req)
	return res.StatusCode, body
}

// ready waits until /readyz has that status, and returns its text.
func ready(t *testing.T, s *site, code int) (text string) {
	t.Helper()
	testkit.Until(t, 20*time.Second, fmt.Sprintf("/readyz is %d", code), func() bool {
		res, body := ask(t, "GET", "http://"+s.address+"/readyz", "")
		text = body
		return res.StatusCode == code
	})
	return text
}

// /readyz follows the cache servers; /healthz does not.
func TestHealth(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	url := "http://" + s.address
	if got := ready(t, s, 200); got != "ok\n" {
		t.Errorf("/readyz says %q", got)
	}
	s.servers[0].Stop()
	down := func(n int) bool { // as the daemon has noticed
		return len(regexp.MustCompile(`(?m)^sessfs_server_breaker_open\{.*\} 1$`).FindAllString(get(t, url+"/metrics"), -1)) == n
	}
	use := func() { testkit.PHP(t, s.Host, start+`session_write_close();`, "probe") }
	use()
	testkit.Until(t, 20*time.Second, "one is down", func() bool { return down(1) })
	ready(t, s, 200) // one of two is enough, unless quorum says majority
	s.configure(t, s.address, "  quorum: majority\n")
	got := ready(t, s, 503)
	if want := "1 of 2 cache servers are down (cache1), 0 may be: sessions fail: cache servers unavailable\n"; got != want {
		t.Errorf("/readyz says %q, not %q", got, want)
	}
	s.servers[1].Stop()
	use()
	testkit.Until(t, 20*time.Second, "both are down", func() bool {
		return strings.Contains(ready(t, s, 503), "2 of 2 cache servers are down (cache1, cache2)")
	})
	testkit.Until(t, 10*time.Second, "metrics and page show it", func() bool { // the servers' own figures are two seconds old at most
		text, page := get(t, url+"/metrics"), get(t, url+"/")
		return strings.Contains(text, "\nsessfs_ready 0\n") && strings.Contains(text, "\nsessfs_mounted 1\n") && !strings.Contains(text, "\nsessfs_server_items{") &&
			strings.Contains(page, "Not ready: sessfs on") && strings.Contains(page, "0 of 2")
	})
	if got := get(t, url+"/healthz"); got != "ok\n" {
		t.Errorf("/healthz says %q", got)
	}
	if code, body := askSocket(t, s, "/readyz"); code != 503 || !strings.Contains(body, "2 of 2") {
		t.Errorf("over the socket: %d %s", code, body)
	}
	s.servers[0].Start()
	s.servers[1].Start()
	ready(t, s, 200)
}

// On the address there is what everybody may see, read-only, and nothing of a single session; pprof is on the socket.
func TestPublicAddress(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	url := "http://" + s.address
	const id = "sess_visitor4711"
	p := testkit.StartPHP(t, s.Host, nil, hold, "visitor4711", "60000")
	testkit.Until(t, 10*time.Second, "it is held", func() bool { return strings.Contains(p.Output(), "held") })
	for _, path := range []string{"/", "/metrics", "/healthz", "/readyz", "/style.css", "/live.js", "/icon.svg"} {
		res, body := ask(t, "GET", url+path, "")
		hash := sessfs.ID(id).Hash()
		if res.StatusCode != 200 || strings.Contains(body, "visitor4711") || strings.Contains(body, hash) || strings.Contains(body, hash[:6]) {
			t.Errorf("%s: %s, or a session in it", path, res.Status)
		}
		if csp := res.Header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") || res.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: headers %v", path, res.Header)
		}
		for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS"} {
			if res, _ := ask(t, method, url+path, ""); res.StatusCode != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %s", method, path, res.Status)
			}
		}
		if res, _ := ask(t, "GET", url+path, "evil.example:9115"); res.StatusCode != http.StatusMisdirectedRequest {
			t.Errorf("%s for another host: %s", path, res.Status)
		}
	}
	if page := get(t, url+"/"); !strings.Contains(page, fmt.Sprintf("<td>%d</td><td>exclusive</td>", p.PID())) {
		t.Error("the page does not show who holds a lock")
	}
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"localhost", "LOCALHOST:9115", "127.0.0.1:1", "[::1]:9115", "10.1.2.3", hostname} {
		if res, _ := ask(t, "GET", url+"/", host); res.StatusCode != 200 {
			t.Errorf("for %s: %s", host, res.Status)
		}
	}
	for _, path := range []string{"/status", "/sessions", "/session?id=" + id, "/rebalance", "/debug/pprof/", "/debug/pprof/heap", "/debug/vars", "/../status", "//status"} {
		if res, _ := ask(t, "GET", url+path, ""); res.StatusCode == 200 {
			t.Errorf("%s is there", path)
		}
		if res, _ := ask(t, "DELETE", url+path, ""); res.StatusCode < 400 {
			t.Errorf("DELETE %s: %s", path, res.Status)
		}
	}
	for path, want := range map[string]string{"/metrics": "sessfs_ready 1", "/healthz": "ok", "/readyz": "ok", "/debug/pprof/": "goroutine", "/debug/pprof/goroutine?debug=1": "goroutine profile: total", "/debug/pprof/profile?seconds=1": ""} {
		if code, body := askSocket(t, s, path); code != 200 || !strings.Contains(body, want) || body == "" {
			t.Errorf("over the socket %s: %d %.100s", path, code, body)
		}
	}
	if code, _ := askSocket(t, s, "/"); code != 404 {
		t.Errorf("the page over the socket: %d", code)
	}
}

// Where the address is not a loopback one, machines may call the host as they like, browsers may not; and it is warned of.
func TestOpenAddress(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	_, port, _ := net.SplitHostPort(s.address)
	s.configure(t, "0.0.0.0:"+port, "")
	logged(t, s, "is no loopback address")
	var to string // an address of this machine that is not loopback
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
			to = n.IP.String()
		}
	}
	if to == "" {
		t.Fatal("this machine has no address but loopback ones")
	}
	for path, code := range map[string]int{"/metrics": 200, "/healthz": 200, "/readyz": 200, "/": 421, "/live.js": 421} {
		var res *http.Response
		testkit.Until(t, 10*time.Second, "it listens", func() bool {
			c, err := net.Dial("tcp", to+":"+port)
			if err == nil {
				c.Close()
			}
			return err == nil
		})
		if res, _ = ask(t, "GET", "http://"+to+":"+port+path, "web1.example"); res.StatusCode != code {
			t.Errorf("%s: %s, not %d", path, res.Status, code)
		}
	}
	if out, code := testkit.Run(t, testkit.Binary(t), "config", "check", s.Config); code != 0 || !strings.Contains(out, "warning: admin.metrics") {
		t.Errorf("config check: exit %d: %s", code, out)
	}
}

func logged(t *testing.T, s *site, text string) {
	t.Helper()
	testkit.Until(t, 20*time.Second, "the log says "+text, func() bool { return strings.Contains(s.Log(), text) })
}

// The address may be changed while mounted. One that is taken costs metrics, not sessions, and is tried again.
func TestAddressChanges(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	s := newSite(t)
	first := s.address
	get(t, "http://"+first+"/healthz")
	s.configure(t, "", "")
	logged(t, s, "keys=admin.metrics")
	testkit.Until(t, 10*time.Second, "nobody listens", func() bool { _, err := net.Dial("tcp", first); return err != nil })
	s.configure(t, taken.Addr().String(), "")
	logged(t, s, "cannot be had at their address")
	if out := testkit.PHP(t, s.Host, hold, "served", "1"); !strings.HasSuffix(out, "done") {
		t.Errorf("sessions are not served: %s", out)
	}
	taken.Close()
	testkit.Until(t, 20*time.Second, "it is tried again", func() bool {
		res, err := client.Get("http://" + taken.Addr().String() + "/healthz")
		if err == nil {
			res.Body.Close()
		}
		return err == nil
	})
	value := func(name string) string {
		m := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindStringSubmatch(get(t, "http://"+taken.Addr().String()+"/metrics"))
		if m == nil {
			t.Fatalf("there is no %s", name)
		}
		return m[1]
	}
	if value("sessfs_config_last_reload_successful") != "1" || value("sessfs_config_pending_remount_keys") != "0" {
		t.Error("the last reload was not good")
	}
	at := value("sessfs_config_last_reload_success_timestamp_seconds")
	s.configure(t, taken.Addr().String(), "  bogus: 1\n")
	testkit.Until(t, 10*time.Second, "the reload failed", func() bool { return value("sessfs_config_last_reload_successful") == "0" })
	if value("sessfs_config_last_reload_success_timestamp_seconds") != at {
		t.Error("a reload that failed has a time of success")
	}
	s.configure(t, taken.Addr().String(), "  connections: 2\ndepth: 1\n")
	testkit.Until(t, 10*time.Second, "two keys wait", func() bool { return value("sessfs_config_pending_remount_keys") == "2" })
	if value("sessfs_config_last_reload_successful") != "1" {
		t.Error("the last reload was good")
	}
}
