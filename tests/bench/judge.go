package main

import (
	"fmt"
	"strings"
)

// row is one demand on sessfs.
type row struct {
	What     string `json:"what"`
	Required string `json:"required"`
	Measured string `json:"measured"`
	Verdict  string `json:"verdict"`
}

const (
	met         = "met"
	notMet      = "NOT MET"
	notMeasured = "not measured"
)

// verdict of a value; missing says why there is none.
func verdict(what, required, measured string, ok bool, missing string) row {
	r := row{what, required, measured, notMet}
	switch {
	case missing != "":
		r.Measured, r.Verdict = missing, notMeasured
		if strings.HasPrefix(missing, "failed") {
			r.Verdict = notMet
		}
	case ok:
		r.Verdict = met
	}
	return r
}

// find is a candidate's outcome in a scenario, or why there is none.
func (r *report) find(scenario, key string) (*outcome, string) {
	for _, res := range r.Results {
		if res.Key != scenario {
			continue
		}
		o := res.outcome(key)
		switch {
		case o == nil:
			return nil, "not run"
		case o.Failed != "":
			return nil, "failed: " + o.Failed
		case len(o.Samples) == 0:
			return nil, "not run"
		}
		return o, ""
	}
	return nil, "not run"
}

// compare demands that the median of one candidate is at least so many times that of another.
func (r *report) compare(what, scenario, ours, theirs string, least float64) row {
	required := fmt.Sprintf("at least %.1f ×", least)
	a, why := r.find(scenario, ours)
	if why != "" {
		return verdict(what, required, "", false, why)
	}
	b, why := r.find(scenario, theirs)
	if why != "" {
		return verdict(what, required, "", false, strings.Replace(why, "failed", "the other failed", 1))
	}
	ratio := a.Rate.Median / b.Rate.Median
	return verdict(what, required, fmt.Sprintf("%.2f × (%.0f : %.0f)", ratio, a.Rate.Median, b.Rate.Median), ratio >= least, "")
}

// judge fills the table of what is demanded of one sessfs.
func (r *report) judge(b *binary, several bool) (rows []row) {
	key := func(kind string) string {
		if several {
			return kind + "@" + b.name
		}
		return kind
	}
	ours, kept := key(kindSessfs), key(kindKeep)
	keep := func(what string, row row) row {
		if !b.keeps {
			row.What, row.Measured, row.Verdict = what, "this sessfs has no lock.keep", notMeasured
		}
		return row
	}
	copies := func(what string, judge func(string) row) row {
		if !b.copies {
			return row{What: what, Measured: "this sessfs has no copies", Verdict: notMeasured}
		}
		return judge(what)
	}
	seals := func(what, scenario string) row {
		if !b.seals {
			return row{What: what, Measured: "this sessfs does not seal", Verdict: notMeasured}
		}
		return r.compare(what, scenario, key(kindSealed), ours, 0.9)
	}
	rows = append(rows,
		r.compare("8 processes, 1 kB: against php-memcached locked", "8p-1k", ours, kindLocked, 1.3),
		r.compare("the same: against pecl-memcache", "8p-1k", ours, kindPecl, 1.1),
		r.compare("the same: against phpredis locked", "8p-1k", ours, kindRedis, 1.1),
		r.compare("1 process, 1 kB: against php-memcached locked", "1p-1k", ours, kindLocked, 1.2),
		r.compare("1 process, round trip 1 ms: against php-memcached locked", "1p-1k-1ms", ours, kindLocked, 1.9),
		r.compare("the same: against pecl-memcache", "1p-1k-1ms", ours, kindPecl, 1.0),
		keep("the same, lock.keep: against pecl-memcache", r.compare("the same, lock.keep: against pecl-memcache", "1p-1k-1ms", kept, kindPecl, 1.6)),
		r.compare("8 processes, 1 kB: against its own embedded floor", "8p-1k", ours, key(kindEmbedded), 0.7),
		r.compare("one hot session, two mounts: against files on tmpfs", "hot", ours, kindTmpfs, 0.7),
		r.lost(ours), r.waits(ours),
		r.compare("8 processes, 1 MB, item limit 1 MiB: against php-memcached with 4 MiB", "8p-1m", ours, kindLocked, 1.0),
		r.compare("the same, both with 4 MiB", "8p-1m", key(kindLarge), kindLocked, 1.0),
		r.resident(ours),
		copies("8 processes, 1 kB, 2 copies: against 1 copy on the same 2 servers", func(what string) row { return r.compare(what, "8p-1k", key(kindCopies), key(kindTwo), 0.8) }),
		copies("round trips waited for in a warm request with 2 copies", func(what string) row { return r.trips(what, key(kindCopies), 2) }),
		seals("8 processes, 1 kB, sealed: against not sealed", "8p-1k"),
		seals("8 processes, 64 kB, sealed: against not sealed", "8p-64k"),
		r.trips("round trips waited for in a warm request", ours, 2),
		keep("the same, lock.keep", r.trips("the same, lock.keep", kept, 1)))
	return rows
}

func (r *report) lost(key string) row {
	const what, required = "one hot session: increments lost or refused", "0"
	o, why := r.find("hot", key)
	if why != "" {
		return verdict(what, required, "", false, why)
	}
	lost, failed, done := 0, 0, 0
	for _, s := range o.Samples {
		lost, failed, done = lost+s.Lost, failed+s.Failed, done+s.Done
	}
	return verdict(what, required, fmt.Sprintf("%d lost, %d refused of %d", lost, failed, done+failed), lost == 0 && failed == 0, "")
}

// longest is the longest wait over the median wait.
func longest(s sample) float64 { return s.Max / max(1, s.P50) }

func (r *report) waits(key string) row {
	const what, required = "one hot session: longest wait over median wait", "at most 5"
	o, why := r.find("hot", key)
	if why != "" {
		return verdict(what, required, "", false, why)
	}
	w := o.of(longest)
	return verdict(what, required, fmt.Sprintf("%.1f (%.1f to %.1f)", w.Median, w.Min, w.Max), w.Median <= 5, "")
}

func (r *report) resident(key string) row {
	const limit = 64 << 20
	const what, required = "resident memory after 100,000 sessions", "at most 64 MiB"
	for _, m := range r.Memory {
		switch {
		case m.Candidate != key:
		case m.Failed != "":
			return verdict(what, required, "", false, "failed: "+m.Failed)
		case m.Sessions < fullMemory:
			return verdict(what, required, "", false, fmt.Sprintf("%.1f MiB after only %d", mib(m.After), m.Sessions))
		default:
			return verdict(what, required, fmt.Sprintf("%.1f MiB (peak %.1f)", mib(m.After), mib(m.Peak)), m.After <= limit, "")
		}
	}
	return verdict(what, required, "", false, "not run")
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// trips are those of one process alone, which waits for each of them.
func (r *report) trips(what, key string, most float64) row {
	required := fmt.Sprintf("%.0f", most)
	o, why := r.find("1p-1k", key)
	if why != "" {
		return verdict(what, required, "", false, why)
	}
	n := o.of(func(s sample) float64 { return s.Trips })
	// A renewal or a re-read of a statistic may fall into the time measured.
	return verdict(what, required, fmt.Sprintf("%.2f", n.Median), n.Median < most+0.05, "")
}
