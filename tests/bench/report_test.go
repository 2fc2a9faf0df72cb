package main

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var testBinary = &binary{name: "sessfs", path: "/sessfs", keeps: true, copies: true, seals: true}

// fullReport is that of a run in which everything ran; rate gives the medians.
func fullReport(t *testing.T, quick bool, rate func(scenario, kind string) float64) *report {
	t.Helper()
	p := newPlan(options{quick: quick, only: regexp.MustCompile("")}, []*binary{testBinary})
	r := &report{Rounds: 1, Memory: []footprint{{Candidate: kindSessfs, Sessions: p.sessions, After: 30 << 20}}, Settings: p.settings()}
	for _, x := range p.scenarios {
		res := &result{Key: x.key, Title: x.title, scenario: x.scenario}
		for _, c := range x.candidates {
			n := rate(x.key, c.kind)
			o := &outcome{Candidate: c.key, Title: c.title, candidate: c, Samples: []sample{{Rate: n, P50: 100, Max: 400, Trips: 1, Done: 9}}}
			o.Rate = o.of(func(s sample) float64 { return s.Rate })
			res.Outcomes = append(res.Outcomes, o)
		}
		r.Results = append(r.Results, res)
	}
	return r
}

func verdicts(rows []row) (all []string) {
	for _, row := range rows {
		all = append(all, row.Verdict)
	}
	return all
}

func TestEveryDemandIsMeasured(t *testing.T) {
	for _, quick := range []bool{false, true} {
		r := fullReport(t, quick, func(_, kind string) float64 {
			if strings.HasPrefix(kind, "sessfs") {
				return 200
			}
			return 100
		})
		for _, row := range r.judge(testBinary, false) {
			if quick && strings.Contains(row.What, "memory") {
				continue // it takes too long
			}
			if row.Verdict != met {
				t.Errorf("quick %v: %+v", quick, row)
			}
		}
	}
}

func TestJudging(t *testing.T) {
	even := func(string, string) float64 { return 100 }
	r := fullReport(t, false, even)
	r.Memory[0].After = 65 << 20
	hot := r.Results[slices.IndexFunc(r.Results, func(res *result) bool { return res.Key == "hot" })]
	hot.outcome(kindSessfs).Samples = []sample{{Rate: 100, P50: 100, Max: 501, Lost: 1, Done: 9}}
	r.Results[0].outcome(kindPecl).Failed = "nobody answers"
	r.Results[0].outcome(kindRedis).Samples = nil
	want := []string{notMet, notMeasured, notMeasured, notMet, notMet, met, notMet, met, met, notMet, notMet, met, met, notMet, met, met, met, met, met, met}
	if got := verdicts(r.judge(testBinary, false)); !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	// What fails here is no excuse.
	r.Results[0].outcome(kindSessfs).Failed = "no session"
	if row := r.judge(testBinary, false)[0]; row.Verdict != notMet || !strings.Contains(row.Measured, "no session") {
		t.Errorf("a sessfs that failed: %+v", row)
	}
	old := &binary{name: "old"}
	for _, row := range r.judge(old, true) {
		if row.Verdict != notMeasured {
			t.Errorf("a binary that did not run: %+v", row)
		}
	}
}

func TestSeveralBinariesAreComparedWithTheFirst(t *testing.T) {
	bins := []*binary{{name: "old"}, {name: "new"}}
	res := &result{}
	for _, c := range of(candidates(bins), []string{kindSessfs, kindEmbedded, kindLocked}) {
		res.Outcomes = append(res.Outcomes, &outcome{Candidate: c.key, candidate: c})
	}
	for key, base := range map[string]string{"sessfs@old": "sessfs@old", "sessfs@new": "sessfs@old", "sessfs-embedded@old": "sessfs@old",
		"sessfs-embedded@new": "sessfs@new", kindLocked: "sessfs@old"} {
		o := res.outcome(key)
		if o == nil {
			t.Fatalf("there is no %s", key)
		}
		if got := res.base(o); got == nil || got.Candidate != base {
			t.Errorf("%s is compared with %+v, not with %s", key, got, base)
		}
	}
}

func TestChartIsWellFormed(t *testing.T) {
	r := fullReport(t, false, func(_, kind string) float64 {
		if kind == kindTmpfs {
			return 90_000
		}
		return 5000
	})
	r.Facts = []fact{{"CPU", `<"fast" & small>`}}
	r.Results[0].Outcomes[2].Failed = "read <nothing> & ended"
	text := chart(r)
	d := xml.NewDecoder(strings.NewReader(text))
	words, bars := "", 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		switch v := token.(type) {
		case xml.CharData:
			words += string(v) + "\n"
		case xml.StartElement:
			if v.Name.Local == "rect" {
				bars++
			}
		}
	}
	outcomes := 0
	for _, res := range r.Results {
		outcomes += len(res.Outcomes)
		if !strings.Contains(words, res.Title+"\n") {
			t.Errorf("no panel %q", res.Title)
		}
	}
	if want := outcomes - 1 + 1; bars != want { // one failed; one is the background
		t.Errorf("%d rectangles for %d outcomes, want %d", bars, outcomes, want)
	}
	for _, want := range []string{`<"fast" & small>`, "failed: read <nothing> & ended", "90000"} {
		if !strings.Contains(words, want) {
			t.Errorf("the chart does not say %q", want)
		}
	}
	if res := r.Results[0]; res.widest() != 7000 {
		t.Errorf("the longest bar stands for %v: what is not shared must not set the scale", res.widest())
	}
}

func TestReportIsWritten(t *testing.T) {
	r := fullReport(t, true, func(string, string) float64 { return 100 })
	r.Judged = map[string][]row{testBinary.name: r.judge(testBinary, false)}
	var text strings.Builder
	r.print(&text, []*binary{testBinary})
	for _, res := range r.Results {
		if !strings.Contains(text.String(), "\n"+res.Title+"\n") {
			t.Errorf("the text has no table %q", res.Title)
		}
	}
	if n := strings.Count(text.String(), notMet); n != strings.Count(strings.Join(verdicts(r.judge(testBinary, false)), " "), notMet) || n == 0 {
		t.Errorf("%q stands there %d times", notMet, n)
	}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back report
	if err := json.Unmarshal(b, &back); err != nil || len(back.Results) != len(r.Results) || back.Results[0].Outcomes[0].Rate.Median != 100 {
		t.Errorf("%v: %s", err, b)
	}
}

func TestScenarios(t *testing.T) {
	known := make(map[string]bool)
	for _, c := range candidates([]*binary{testBinary}) {
		known[c.kind] = true
	}
	seen := make(map[string]bool)
	for _, sc := range scenarios() {
		if seen[sc.key] {
			t.Errorf("two scenarios are called %s", sc.key)
		}
		seen[sc.key] = true
		for _, kind := range append(slices.Clone(sc.kinds), sc.quick...) {
			if !known[kind] || !slices.Contains(sc.kinds, kind) {
				t.Errorf("%s has a candidate %s that is unknown, or in its short form alone", sc.key, kind)
			}
		}
	}
}

func TestOnlyPicks(t *testing.T) {
	o := options{only: regexp.MustCompile("^(8p-1m/php-memcached$|memory/)")}
	p := newPlan(o, []*binary{testBinary})
	if got, want := p.names(), []string{"8p-1m/php-memcached", "memory/sessfs"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if slices.Contains(p.tools(), toolStrace) || !slices.Contains(p.tools(), toolPHPMemcached) {
		t.Error("the tools are not those of what was picked")
	}
}

func TestLateStopsRounds(t *testing.T) {
	p := &progress{start: time.Now(), least: time.Minute}
	if p.late() {
		t.Error("late without a deadline")
	}
	p.deadline = time.Now().Add(30 * time.Second)
	if !p.late() {
		t.Error("a minute is still to come, and the end is in 30 s")
	}
	p.deadline = time.Now().Add(time.Hour)
	if p.late() {
		t.Error("late an hour before the end")
	}
}
