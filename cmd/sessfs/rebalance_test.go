package main

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"sessfs"
	"sessfs/backend"
)

// bar is a progress bar over a clock that the test moves.
func bar(terminal bool, width int) (*progressBar, *bytes.Buffer, *time.Time) {
	var out bytes.Buffer
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	p := &progressBar{out: &out, terminal: terminal, width: func() int { return width }, clock: func() time.Time { return now }, begun: now}
	return p, &out, &now
}

func TestProgressOnATerminal(t *testing.T) {
	p, out, now := bar(true, 100)
	p.show(0, 400, "cache1: 0 moved")
	*now = now.Add(10 * time.Second)
	p.show(100, 400, "cache1: 7 moved")
	p.show(400, 400, "cache2: 9 moved")
	p.show(500, 400, "") // what servers hold grows meanwhile
	p.show(0, 0, "")
	p.end()
	want := "\r\x1b[K[--------------------]   0 %  0 of 400  cache1: 0 moved" +
		"\r\x1b[K[#####---------------]  25 %  100 of 400  30s left  cache1: 7 moved" +
		"\r\x1b[K[####################] 100 %  400 of 400  cache2: 9 moved" +
		"\r\x1b[K[####################] 100 %  500 of 500  " +
		"\r\x1b[K[####################] 100 %  0 of 0  " +
		"\r\x1b[K"
	if got := out.String(); got != want {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
	for _, width := range []int{1, 10, 47} {
		p, out, _ := bar(true, width)
		p.show(0, 400, "ümläüt: 0 moved")
		line := strings.TrimPrefix(out.String(), "\r\x1b[K")
		if len(line) > width-1 || strings.ToValidUTF8(line, "?") != line {
			t.Errorf("%d columns: %q", width, line)
		}
	}
}

func TestProgressElsewhere(t *testing.T) {
	p, out, now := bar(false, 0)
	for range 12 { // seconds
		p.show(50, 100, "cache1: 3 moved")
		*now = now.Add(time.Second)
	}
	p.end()
	want := " 50 %  50 of 100  cache1: 3 moved\n 50 %  50 of 100  5s left  cache1: 3 moved\n 50 %  50 of 100  10s left  cache1: 3 moved\n"
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestRebalanceTable(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)
	r := backend.RebalanceReport{Sessions: 500, Moved: 120, Busy: 2, Failed: 1, Servers: []backend.RebalanceServer{
		{Name: "cache1", Address: "10.0.0.1:11211", Sessions: 330, Off: now},
		{Name: "cache2", Address: "10.0.0.2:11211", Sessions: 340, Present: true},
		{Name: "cache3", Address: "10.0.0.3:11211", Sessions: 10, Off: now.Add(time.Hour), Why: "a host has it in its list"},
		{Name: "ca\x1bche4", Address: "10.0.0.4:11211", Why: "it did not answer"},
	}}
	var out bytes.Buffer
	if err := printRebalance(&out, r, now); err != nil {
		t.Fatal(err)
	}
	want := `500 sessions, 120 were moved, 2 were locked all the time, 1 could not be moved

SERVER        ADDRESS         LIST     SESSIONS  SWITCH OFF
cache1        10.0.0.1:11211  removed  330       now
cache2        10.0.0.2:11211  present  340       no
cache3        10.0.0.3:11211  removed  10        from 2026-01-02 04:04:05: a host has it in its list
"ca\x1bche4"  10.0.0.4:11211  removed  0         not yet: it did not answer
`
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	out.Reset()
	if err := printRebalance(&out, backend.RebalanceReport{Sessions: 500, Moved: 120, DryRun: true}, now); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.HasPrefix(got, "500 sessions, 120 would be moved\n") {
		t.Errorf("a dry run prints\n%s", got)
	}
}

func TestRebalanceExitCodes(t *testing.T) {
	interrupted, interrupt := context.WithCancel(context.Background())
	interrupt()
	for _, tc := range []struct {
		what   string
		ctx    context.Context
		report backend.RebalanceReport
		err    error
		code   int
		says   string
	}{
		{"all moved", context.Background(), backend.RebalanceReport{Sessions: 3, Moved: 3}, nil, 0, ""},
		{"nothing to move", context.Background(), backend.RebalanceReport{}, nil, 0, ""},
		{"a dry run", context.Background(), backend.RebalanceReport{Sessions: 3, Moved: 3, DryRun: true}, nil, 0, ""},
		{"locked ones are left", context.Background(), backend.RebalanceReport{Sessions: 3, Moved: 2, Busy: 1}, nil, exitFailed, "1 sessions are not where they belong"},
		{"some failed", context.Background(), backend.RebalanceReport{Sessions: 3, Failed: 2}, nil, exitFailed, "2 sessions are not where they belong"},
		{"no servers", context.Background(), backend.RebalanceReport{}, sessfs.ErrUnavailable, exitUnreachable, "unavailable"},
		{"another error", context.Background(), backend.RebalanceReport{}, errors.New("no"), exitFailed, "no"},
		{"interrupted", interrupted, backend.RebalanceReport{}, context.Canceled, exitFailed, "run it again for the rest"},
	} {
		p, progress, _ := bar(true, 200)
		var out bytes.Buffer
		r := rebalanceRequest{options: backend.RebalanceOptions{Rate: 7, DryRun: tc.report.DryRun}, bar: p, out: &out}
		err := r.run(tc.ctx, func(_ context.Context, o backend.RebalanceOptions, fn func(backend.RebalanceProgress)) (backend.RebalanceReport, error) {
			if o != r.options {
				t.Errorf("%s: asked with %+v", tc.what, o)
			}
			fn(backend.RebalanceProgress{Server: "cache1", Done: 1, Total: 2, Moved: 1, Busy: 3, Failed: 4, Text: "locked sessions are tried again"})
			return tc.report, tc.err
		})
		if code := exitCode(err, true); code != tc.code || err != nil && !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: exit %d: %v", tc.what, code, err)
		}
		if !strings.Contains(progress.String(), "cache1: 1 moved, 3 locked, 4 failed; locked sessions are tried again") || !strings.HasSuffix(progress.String(), "\r\x1b[K") {
			t.Errorf("%s: progress %q", tc.what, progress)
		}
		if printed := strings.Contains(out.String(), "SWITCH OFF"); printed != (tc.err == nil) {
			t.Errorf("%s: printed %q", tc.what, &out)
		}
	}
}

// With --wait it comes again when that may help, and only then.
func TestRebalanceWaits(t *testing.T) {
	p, progress, now := bar(true, 200)
	first := now.Add(3 * time.Second)
	reports := []backend.RebalanceReport{
		{Servers: []backend.RebalanceServer{{Name: "a", Again: first}, {Name: "b", Again: first.Add(-time.Second)}}},
		{Servers: []backend.RebalanceServer{{Name: "a", Again: first.Add(10 * time.Second)}}}, // a host had it still
		{Sessions: 3, Servers: []backend.RebalanceServer{{Name: "a", Off: first.Add(30 * time.Second), Why: "hosts learn it"}, {Name: "b", Off: first}, {Name: "c", Present: true}}},
	}
	var at []time.Duration
	begun := *now
	rebalance := func(context.Context, backend.RebalanceOptions, func(backend.RebalanceProgress)) (backend.RebalanceReport, error) {
		at = append(at, now.Sub(begun))
		return reports[min(len(at), len(reports))-1], nil
	}
	var out bytes.Buffer
	r := rebalanceRequest{bar: p, out: &out, wait: true, sleep: func(_ context.Context, d time.Duration) error {
		*now = now.Add(d)
		return nil
	}}
	if err := r.run(context.Background(), rebalance); err != nil {
		t.Fatal(err)
	}
	if want := []time.Duration{0, 3 * time.Second, 13 * time.Second}; !slices.Equal(at, want) {
		t.Errorf("it came at %v, want %v", at, want)
	}
	if end := now.Sub(begun); end != 33*time.Second || strings.Contains(out.String(), "hosts learn it") {
		t.Errorf("it ended after %v, before the last server may be switched off:\n%s", end, &out)
	}
	if !strings.Contains(progress.String(), "1 of 3  2s left") || !strings.Contains(progress.String(), "4 of 10  6s left") || strings.Count(out.String(), "SWITCH OFF") != 1 || !strings.Contains(out.String(), "3 sessions") {
		t.Errorf("progress\n%q\noutput\n%s", progress, &out)
	}
	reports = append([]backend.RebalanceReport{{Failed: 1, Servers: []backend.RebalanceServer{{Name: "a", Off: now.Add(time.Hour)}}}}, reports...)
	at = nil
	if err := r.run(context.Background(), rebalance); err == nil || len(at) != 1 || now.Sub(begun) != 33*time.Second {
		t.Errorf("some failed: it came at %v, and ended %v after that: %v", at, now.Sub(begun), err)
	}
	reports = reports[1:]
	for _, r := range []rebalanceRequest{{bar: p, out: &out}, {bar: p, out: &out, wait: true, options: backend.RebalanceOptions{DryRun: true}}} {
		at = nil
		if err := r.run(context.Background(), rebalance); err != nil || len(at) != 1 {
			t.Errorf("%+v: it came at %v: %v", r, at, err)
		}
	}
	at, *now = nil, begun
	r.sleep = func(context.Context, time.Duration) error { return context.Canceled }
	if err := r.run(context.Background(), rebalance); !errors.Is(err, context.Canceled) || len(at) != 1 {
		t.Errorf("interrupted while it waits: %v after %v", err, at)
	}
}

func TestRebalanceForPrograms(t *testing.T) {
	p, _, _ := bar(false, 0)
	var out bytes.Buffer
	r := rebalanceRequest{bar: p, out: &out, asJSON: true}
	err := r.run(context.Background(), func(context.Context, backend.RebalanceOptions, func(backend.RebalanceProgress)) (backend.RebalanceReport, error) {
		return backend.RebalanceReport{Sessions: 5, Servers: []backend.RebalanceServer{{Name: "a", Sessions: 5, Present: true}}}, nil
	})
	if err != nil || !strings.Contains(out.String(), `"sessions": 5`) || !strings.Contains(out.String(), `"present": true`) || strings.Contains(out.String(), `"off"`) {
		t.Errorf("%v\n%s", err, &out)
	}
}
