package metrics

import (
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"sessfs/internal/testkit"
)

// family is a metric as it is exported or documented.
type family struct{ kind, labels string }

var (
	typeLine   = regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)$`)
	sampleLine = regexp.MustCompile(`(?m)^([a-z_:]+)(?:\{([^}]*)\})? \S+$`)
	labelName  = regexp.MustCompile(`([a-z_]+)="(?:[^"\\]|\\.)*"`)
	docLine    = regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (\\w+) \\| ?([a-z, ]*?) ?\\| (\\S.*?) \\|")
)

// exported are the metrics in the text format, with their labels.
func exported(text string) map[string]family {
	all := make(map[string]family)
	for _, m := range typeLine.FindAllStringSubmatch(text, -1) {
		all[m[1]] = family{kind: m[2]}
	}
	for _, m := range sampleLine.FindAllStringSubmatch(text, -1) {
		name := familyOf(m[1], all)
		var labels []string
		for _, l := range labelName.FindAllStringSubmatch(m[2], -1) {
			if l[1] != "le" {
				labels = append(labels, l[1])
			}
		}
		slices.Sort(labels)
		if f := all[name]; len(f.labels) == 0 { // a summary's sum and count have none
			all[name] = family{f.kind, strings.Join(labels, ",")}
		}
	}
	return all
}

// familyOf is the metric that a series belongs to.
func familyOf(series string, all map[string]family) string {
	if _, is := all[series]; is {
		return series
	}
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if base, has := strings.CutSuffix(series, suffix); has {
			if f := all[base]; f.kind == "histogram" || f.kind == "summary" {
				return base
			}
		}
	}
	return series
}

// docs/metrics.md lists exactly what is exported: name, type and labels.
func checkDocs(t *testing.T, all map[string]family) {
	b, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := make(map[string]family)
	for _, m := range docLine.FindAllStringSubmatch(string(b), -1) {
		labels := strings.Split(strings.ReplaceAll(m[3], " ", ""), ",")
		slices.Sort(labels)
		if _, twice := documented[m[1]]; twice {
			t.Errorf("docs/metrics.md has %s twice", m[1])
		}
		documented[m[1]] = family{m[2], strings.Join(labels, ",")}
	}
	for name, f := range all {
		if d, is := documented[name]; !is {
			t.Errorf("docs/metrics.md lacks %s (%s, labels %s)", name, f.kind, f.labels)
		} else if d != f {
			t.Errorf("docs/metrics.md says of %s %+v, it is %+v", name, d, f)
		}
	}
	for name := range documented {
		if _, is := all[name]; !is {
			t.Errorf("docs/metrics.md has %s, which is not exported", name)
		}
	}
}

type alerts struct {
	Groups []struct {
		Rules []struct {
			Alert, Expr string
			Annotations map[string]string
		}
	}
}

func readAlerts(t *testing.T) (a alerts) {
	b, err := os.ReadFile("../../packaging/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(b, &a); err != nil {
		t.Fatal(err)
	}
	return a
}

var metricName = regexp.MustCompile(`\b(?:sessfs|go|process)_[a-z_]+`)

// Dashboard, alerts and the operations manual name only metrics that exist.
func checkNames(t *testing.T, all map[string]family) {
	for _, file := range []string{"packaging/grafana-dashboard.json", "packaging/alerts.yaml", "docs/operations.md", "README.md"} {
		b, err := os.ReadFile("../../" + file)
		if err != nil {
			t.Fatal(err)
		}
		names := metricName.FindAllString(string(b), -1)
		for _, name := range names {
			if _, is := all[familyOf(name, all)]; !is {
				t.Errorf("%s names %s, which is not exported", file, name)
			}
		}
		if strings.HasPrefix(file, "packaging") && len(names) < 15 {
			t.Errorf("%s names %d metrics", file, len(names))
		}
	}
	for _, r := range readAlerts(t).Groups[0].Rules {
		if len(r.Annotations["runbook"]) < 40 || r.Annotations["summary"] == "" {
			t.Errorf("the alert %s does not say what to do", r.Alert)
		}
	}
}

// prometheus is a real one that scrapes a site every second.
type prometheus struct{ url string }

func startPrometheus(t *testing.T, target string) *prometheus {
	dir := testkit.Dir(t)
	rules, err := filepath.Abs("../../packaging/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	config := testkit.WriteFile(t, filepath.Join(dir, "prometheus.yml"), `
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%s]
scrape_configs:
  - job_name: sessfs
    static_configs: [{targets: [%q]}]
`, rules, target)
	p := &prometheus{"http://" + address(t)}
	testkit.Start(t, "prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+strings.TrimPrefix(p.url, "http://"), "--log.level=warn")
	testkit.Until(t, 30*time.Second, "prometheus is ready", func() bool {
		res, err := client.Get(p.url + "/-/ready")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
	return p
}

// query returns the values of an expression now.
func (p *prometheus) query(t *testing.T, expr string) (values []string) {
	t.Helper()
	_, body := ask(t, "GET", p.url+"/api/v1/query?query="+url.QueryEscape(expr), "")
	var answer struct {
		Status, Error string
		Data          struct{ Result []struct{ Value [2]any } }
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || answer.Status != "success" {
		t.Fatalf("%s: %v %s", expr, err, body)
	}
	for _, r := range answer.Data.Result {
		values = append(values, r.Value[1].(string))
	}
	return values
}

// A real Prometheus scrapes a real daemon under load: all that the dashboard asks for is there, no alert fires, and
// promtool finds nothing to say about the metrics and the rules. What is exported is what is documented.
func TestPrometheus(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	load(t, s)
	p := startPrometheus(t, s.address)
	testkit.Until(t, 30*time.Second, "some scrapes are done", func() bool {
		v := p.query(t, `sum(rate(sessfs_lock_wait_duration_seconds_count[4s])) > 0 and count_over_time(sum(sessfs_ready)[10s:1s]) > 4`)
		return len(v) > 0
	})
	for _, expr := range expressions(t) {
		values := p.query(t, expr)
		if len(values) == 0 || slices.Contains(values, "NaN") && len(values) == 1 && !strings.Contains(expr, "_seconds_bucket") {
			t.Errorf("no data for %s: %v", expr, values)
		}
	}
	for expr, want := range map[string]string{
		`sum(rate(sessfs_fuse_requests_total{operation="OPEN"}[5s])) > bool 20`:                                  "1",
		`histogram_quantile(0.5, sum by (le) (rate(sessfs_lock_wait_duration_seconds_bucket[5s]))) > bool 0.002`: "1",
		`count(sessfs_server_up == 1)`: "2", `sessfs_replicas`: "2", `sum(sessfs_lost_changes_total)`: "0", `up`: "1",
	} {
		if got := p.query(t, expr); len(got) != 1 || got[0] != want {
			t.Errorf("%s is %v, not %s", expr, got, want)
		}
	}
	checkRules(t, p)

	text := get(t, "http://"+s.address+"/metrics")
	all := exported(text)
	checkDocs(t, all)
	checkNames(t, all)
	if strings.Contains(text, "busy1") || strings.Contains(text, "sess_") {
		t.Error("a session's id is in the metrics")
	}
	if n := strings.Count(text, "\n"); n > 1500 {
		t.Errorf("%d lines of metrics", n)
	}
	cmd := exec.Command("promtool", "check", "metrics")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// checkRules sees that the alerts were evaluated without error, and are silent.
func checkRules(t *testing.T, p *prometheus) {
	var answer struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Health, State, LastError string }
			}
		}
	}
	if err := json.Unmarshal([]byte(get(t, p.url+"/api/v1/rules")), &answer); err != nil || len(answer.Data.Groups) != 1 {
		t.Fatalf("rules: %v, %d groups", err, len(answer.Data.Groups))
	}
	if n := len(answer.Data.Groups[0].Rules); n != len(readAlerts(t).Groups[0].Rules) {
		t.Errorf("%d rules are loaded", n)
	}
	for _, r := range answer.Data.Groups[0].Rules {
		if r.Health != "ok" || r.State != "inactive" {
			t.Errorf("the alert %s is %s, %s: %s", r.Name, r.Health, r.State, r.LastError)
		}
	}
}

// Each alert fires when what it is for happens: promtool plays the cases of alerts_test.yaml.
func TestAlerts(t *testing.T) {
	t.Parallel()
	testkit.MustRun(t, "promtool", "check", "rules", "../../packaging/alerts.yaml")
	out := testkit.MustRun(t, "promtool", "test", "rules", "alerts_test.yaml")
	if !strings.Contains(out, "SUCCESS") {
		t.Error(out)
	}
	b, err := os.ReadFile("alerts_test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range readAlerts(t).Groups[0].Rules {
		if !strings.Contains(string(b), `alertname="`+r.Alert+`"`) {
			t.Errorf("alerts_test.yaml has no case of %s", r.Alert)
		}
	}
}
