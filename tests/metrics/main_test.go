// Package metrics tests what monitoring sees of a real daemon: Prometheus scrapes it, promtool checks it, a browser opens its
// page, and probes ask for its health.
package metrics

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sessfs/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// site is a host with two cache servers that shows its figures at an address.
type site struct {
	*testkit.Host
	servers []*testkit.Memcached
	address string
}

func address(t *testing.T) string {
	return net.JoinHostPort("127.0.0.1", fmt.Sprint(testkit.FreePort(t)))
}

func newSite(t *testing.T) *site {
	s := &site{servers: []*testkit.Memcached{testkit.StartMemcached(t), testkit.StartMemcached(t)}, address: address(t)}
	s.Host = testkit.NewHost(t, testkit.Conf{Servers: s.servers})
	s.configure(t, s.address, "")
	s.Start()
	testkit.Until(t, 10*time.Second, "it listens at "+s.address, func() bool {
		c, err := net.Dial("tcp", s.address)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return s
}

// configure writes a configuration with that admin.metrics, and more at the top level.
func (s *site) configure(t *testing.T, metrics, more string) {
	t.Helper()
	testkit.ReplaceFile(t, s.Config, `mountpoint: %s
admin: {socket: %s, metrics: %q}
cache:
  timeout: 2s
  servers: [{name: cache1, address: %q}, {name: cache2, address: %q}]
%s`, s.Dir, s.socket(), metrics, s.servers[0].Addr, s.servers[1].Addr, more)
}

func (s *site) socket() string { return filepath.Join(filepath.Dir(s.Config), "admin.sock") }

const (
	start = testkit.PHPStart
	// busy changes sessions until it is ended.
	busy = `for ($i = 0;; $i++) { session_id("busy".($i % 20)); session_start() or exit("no session"); $_SESSION["v"] = $i; session_write_close() or exit("not written"); usleep(1000); }`
	// hold has a session for a while.
	hold = start + `echo "held\n"; usleep(1000 * (int)$argv[2]); $_SESSION["v"] = 1; session_write_close() or exit("not written"); echo "done";`
)

// load keeps a site busy until the test ends, with waits for locks.
func load(t *testing.T, s *site) {
	testkit.StartPHP(t, s.Host, nil, busy)
	testkit.StartPHP(t, s.Host, nil, `for (;;) { `+strings.ReplaceAll(hold, "$argv[1]", `"shared"`)+` }`, "", "20")
	testkit.StartPHP(t, s.Host, nil, `for (;;) { `+strings.ReplaceAll(hold, "$argv[1]", `"shared"`)+` }`, "", "20")
}

var client = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// ask sends a request, with a Host if it is not "", and returns status, headers and body.
func ask(t *testing.T, method, url, host string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	return do(t, client, req)
}

func do(t *testing.T, c *http.Client, req *http.Request) (*http.Response, string) {
	t.Helper()
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

// get returns a page that must be there.
func get(t *testing.T, url string) string {
	t.Helper()
	res, body := ask(t, "GET", url, "")
	if res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s: %s", url, res.Status, body)
	}
	return body
}

// dashboard is what of packaging/grafana-dashboard.json matters.
type dashboard struct {
	Panels []struct {
		Title   string
		Type    string
		Targets []struct{ Expr string }
	}
	Templating struct{ List []struct{ Definition string } }
}

// expressions are those of the dashboard, by "panel: expression", as Grafana asks them for all hosts and a short while.
func expressions(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile("../../packaging/grafana-dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, p := range d.Panels {
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("the panel %q asks for nothing", p.Title)
		}
		for _, q := range p.Targets {
			list = append(list, strings.NewReplacer("$instance", ".*", "$__rate_interval", "4s").Replace(q.Expr))
		}
	}
	if len(list) < 30 {
		t.Errorf("the dashboard has %d expressions", len(list))
	}
	return list
}
