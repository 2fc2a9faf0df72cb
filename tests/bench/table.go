package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// print writes the whole report as text.
func (r *report) print(w io.Writer, bins []*binary) {
	r.printHead(w)
	for _, res := range r.Results {
		res.print(w)
	}
	r.printCosts(w)
	r.printCalls(w)
	r.printMemory(w)
	for _, b := range bins {
		r.printJudged(w, b, len(bins) > 1)
	}
}

func newTable(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 0, 8, 2, ' ', 0) }

func (r *report) printHead(w io.Writer) {
	fmt.Fprintf(w, "sessfs bench, %s, %d rounds of %.1f s each in turn; medians with min and max\n\n", r.Started.Format("2006-01-02 15:04"), r.Rounds, r.Duration)
	t := newTable(w)
	for _, f := range r.Facts {
		fmt.Fprintf(t, "%s\t%s\n", f.Name, f.Value)
	}
	t.Flush()
	fmt.Fprintln(w)
	t = newTable(w)
	for _, f := range r.Settings {
		fmt.Fprintf(t, "%s\t%s\n", f.Name, f.Value)
	}
	t.Flush()
	for _, line := range r.LeftOut {
		fmt.Fprintln(w, line)
	}
}

func (res *result) print(w io.Writer) {
	fmt.Fprintf(w, "\n%s", res.Title)
	if res.Cut > 0 {
		fmt.Fprintf(w, " (%d rounds only: the time was short)", res.Cut)
	}
	fmt.Fprintln(w)
	if p := res.RoundTrip; p != nil {
		fmt.Fprintf(w, "round trip through the proxy: %.0f µs, 99%% within %.0f; without it: %.0f µs, 99%% within %.0f\n", p.Proxy.Median, p.Proxy.P99, p.Direct.Median, p.Direct.P99)
		if p.off() {
			fmt.Fprintln(w, "that is not what was asked for: the machine is busy, and these figures are not to be trusted")
		}
	}
	t := newTable(w)
	unit := "cycles/s"
	more := ""
	if res.scenario.hot {
		unit, more = "increments/s", "\tlongest/median wait\tlost\trefused"
	}
	fmt.Fprintf(t, "  \t%s\tmin\tmax\tsessfs is\tp50 µs\tp99 µs\tCPU µs per cycle: PHP\tdaemon\tserver%s\n", unit, more)
	for _, o := range res.Outcomes {
		if o.Failed != "" {
			fmt.Fprintf(t, "  %s\tFAILED: %s\n", o.Title, brief(o.Failed))
			continue
		}
		if len(o.Samples) == 0 {
			fmt.Fprintf(t, "  %s\tno round\n", o.Title)
			continue
		}
		ratio := ""
		if o.Ratio > 0 {
			ratio = fmt.Sprintf("%.2f ×", o.Ratio)
		}
		fmt.Fprintf(t, "  %s\t%.0f\t%.0f\t%.0f\t%s\t%.0f\t%.0f", o.Title, o.Rate.Median, o.Rate.Min, o.Rate.Max, ratio,
			o.of(func(s sample) float64 { return s.P50 }).Median, o.of(func(s sample) float64 { return s.P99 }).Median)
		for _, cpu := range []func(sample) cpuTime{func(s sample) cpuTime { return s.PHP }, func(s sample) cpuTime { return s.Daemon }, func(s sample) cpuTime { return s.Server }} {
			fmt.Fprintf(t, "\t%s", cpuText(o, cpu))
		}
		if res.scenario.hot {
			lost, refused := 0, 0
			for _, s := range o.Samples {
				lost, refused = lost+s.Lost, refused+s.Failed
			}
			fmt.Fprintf(t, "\t%.1f\t%d\t%d", o.of(longest).Median, lost, refused)
		}
		fmt.Fprintln(t)
	}
	t.Flush()
}

// cpuText is user + system time per cycle.
func cpuText(o *outcome, of func(sample) cpuTime) string {
	user := o.of(func(s sample) float64 { return of(s).User }).Median
	system := o.of(func(s sample) float64 { return of(s).System }).Median
	if user+system == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f+%.0f", user, system)
}

// brief is a reason for a table; the JSON has all of it.
func brief(s string) string {
	line, _, more := strings.Cut(strings.TrimSpace(s), "\n")
	if more {
		line += " …"
	}
	return shorten(line, 160)
}

func processesText(n int) string {
	if n == 1 {
		return "1 process"
	}
	return fmt.Sprintf("%d processes", n)
}

// printCosts shows what the daemons counted themselves.
func (r *report) printCosts(w io.Writer) {
	t := newTable(w)
	rows := 0
	for _, res := range r.Results {
		for _, o := range res.Outcomes {
			if o.candidate.binary == nil || !o.ok() {
				continue
			}
			if rows++; rows == 1 {
				fmt.Fprintf(w, "\nFUSE operations and network round trips waited for, per cycle\n")
				fmt.Fprintf(t, "  \t\tround trips\toperations\n")
			}
			fmt.Fprintf(t, "  %s\t%s\t%.2f\t%.2f\t%s\n", res.Title, o.Title, o.of(func(s sample) float64 { return s.Trips }).Median, o.of(sample.operations).Median, counts(o.operations()))
		}
	}
	t.Flush()
}

func (r *report) printCalls(w io.Writer) {
	if len(r.Calls) == 0 {
		return
	}
	fmt.Fprintf(w, "\nSystem calls of the daemon per cycle, 1 kB (under strace, not timed)\n")
	t := newTable(w)
	for _, c := range r.Calls {
		if c.Failed != "" {
			fmt.Fprintf(t, "  %s\t%s\tFAILED: %s\n", c.Title, processesText(c.Processes), brief(c.Failed))
			continue
		}
		fmt.Fprintf(t, "  %s\t%s\t%.1f\t%s\n", c.Title, processesText(c.Processes), c.Sum, counts(c.ByName))
	}
	t.Flush()
}

// counts names what happens, the most frequent first.
func counts(byName map[string]float64) string {
	names := sortedKeys(byName)
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(byName[b], byName[a]) })
	var parts []string
	for _, name := range names {
		if n := byName[name]; n >= 0.005 {
			parts = append(parts, fmt.Sprintf("%s %.2f", name, n))
		}
	}
	return strings.Join(parts, ", ")
}

func (r *report) printMemory(w io.Writer) {
	if len(r.Memory) == 0 {
		return
	}
	fmt.Fprintf(w, "\nResident memory of the daemon, different sessions of 1 kB each started, changed and closed once through one mount\n")
	t := newTable(w)
	fmt.Fprintf(t, "  \tsessions\tbefore MiB\tafter MiB\tpeak MiB\tnew sessions/s\n")
	for _, m := range r.Memory {
		if m.Failed != "" {
			fmt.Fprintf(t, "  %s\t%d\tFAILED: %s\n", m.Title, m.Sessions, brief(m.Failed))
			continue
		}
		fmt.Fprintf(t, "  %s\t%d\t%.1f\t%.1f\t%.1f\t%.0f\n", m.Title, m.Sessions, mib(m.Before), mib(m.After), mib(m.Peak), m.Rate)
	}
	t.Flush()
}

func (r *report) printJudged(w io.Writer, b *binary, several bool) {
	name := ""
	if several {
		name = " " + b.name
	}
	fmt.Fprintf(w, "\nHow sessfs%s is judged\n", name)
	t := newTable(w)
	fmt.Fprintf(t, "  \trequired\tmeasured\t\n")
	for _, row := range r.Judged[b.name] {
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\n", row.What, row.Required, brief(row.Measured), row.Verdict)
	}
	t.Flush()
}
