package main

import (
	"context"
	"fmt"
	"time"
)

// outcome is what one candidate did in one scenario.
type outcome struct {
	Candidate string   `json:"candidate"`
	Title     string   `json:"title"`
	Samples   []sample `json:"rounds"`
	Failed    string   `json:"failed,omitempty"`
	Rate      spread   `json:"per_second"`
	Ratio     float64  `json:"sessfs_is_times,omitempty"` // sessfs's median over this one's
	candidate *candidate
}

func (o *outcome) of(value func(sample) float64) spread {
	s, _ := spreadOf(o.Samples, value)
	return s
}

// operations are the medians of each FUSE operation.
func (o *outcome) operations() map[string]float64 {
	all := make(map[string]float64)
	for _, s := range o.Samples {
		for name := range s.Operations {
			all[name] = o.of(func(s sample) float64 { return s.Operations[name] }).Median
		}
	}
	return all
}

// ok tells whether there is something to compare.
func (o *outcome) ok() bool { return o.Failed == "" && len(o.Samples) > 0 }

// result is a scenario with its outcomes.
type result struct {
	Key       string     `json:"scenario"`
	Title     string     `json:"title"`
	RoundTrip *rtt       `json:"round_trip,omitempty"`
	Cut       int        `json:"rounds_only,omitempty"` // the time was short
	Outcomes  []*outcome `json:"outcomes"`
	scenario  *scenario
}

func (r *result) outcome(key string) *outcome {
	for _, o := range r.Outcomes {
		if o.Candidate == key {
			return o
		}
	}
	return nil
}

// bench is one run of the program.
type bench struct {
	lab      *lab
	rounds   int
	duration time.Duration
	progress *progress
}

// cost is what one run is planned to take, with the start of PHP and the sessions that are made before.
func (b *bench) cost(sc *scenario) time.Duration {
	return b.duration + 250*time.Millisecond + time.Duration(sc.processes*sc.sessions*sc.bytes>>10)*20*time.Microsecond
}

// scenario runs candidates in turn, A B A B …; one that fails is out of the later rounds.
func (b *bench) scenario(ctx context.Context, sc *scenario, candidates []*candidate) (*result, error) {
	res := &result{Key: sc.key, Title: sc.title, scenario: sc}
	targets := make(map[*outcome]*target)
	for _, c := range candidates {
		o := &outcome{Candidate: c.key, Title: c.title, candidate: c}
		res.Outcomes = append(res.Outcomes, o)
		var s scope
		defer func() {
			if err := s.close(); err != nil {
				b.fail(o, sc, fmt.Errorf("at its end: %w", err))
			}
		}()
		t, err := c.start(ctx, &s, b.lab, sc)
		if ctx.Err() != nil {
			return res, ctx.Err()
		}
		if err != nil {
			b.fail(o, sc, err)
			continue
		}
		targets[o] = t
		if sc.rtt > 0 && res.RoundTrip == nil {
			if res.RoundTrip, err = roundTrip(ctx, sc.rtt, t.servers[0]); err != nil {
				return res, fmt.Errorf("measuring the round trip: %w", err)
			}
		}
	}
	for round := range b.rounds {
		if round > 0 && b.progress.late() {
			res.Cut = round
			b.progress.drop(time.Duration((b.rounds-round)*len(candidates)) * b.cost(sc))
			break
		}
		for _, o := range res.Outcomes {
			if o.Failed != "" {
				b.progress.drop(b.cost(sc))
				continue
			}
			b.progress.next(b.cost(sc), fmt.Sprintf("%s: round %d of %d: %s", sc.title, round+1, b.rounds, o.Title))
			got, err := targets[o].measure(ctx, b.lab, sc, b.duration, fmt.Sprintf("hot-%d", round))
			if ctx.Err() != nil {
				return res, ctx.Err()
			}
			if err != nil {
				b.fail(o, sc, err)
				continue
			}
			o.Samples = append(o.Samples, got)
			targets[o].rest(ctx)
		}
	}
	for _, o := range res.Outcomes {
		o.Rate = o.of(func(s sample) float64 { return s.Rate })
	}
	for _, o := range res.Outcomes {
		if base := res.base(o); base != nil && base.ok() && o.ok() {
			o.Ratio = base.Rate.Median / o.Rate.Median
		}
	}
	return res, nil
}

// fail takes a candidate out of the rounds, with the reason.
func (b *bench) fail(o *outcome, sc *scenario, err error) {
	if o.Failed != "" {
		err = fmt.Errorf("%s\n%w", o.Failed, err)
	}
	o.Failed = err.Error()
	b.progress.say("%s: %s failed: %s", sc.title, o.Title, brief(o.Failed))
}

// base is the sessfs that a candidate is compared with: of several binaries the first, which the others' sessfs are
// compared with too; what else a binary can do is compared with its own.
func (r *result) base(o *outcome) *outcome {
	for _, other := range r.Outcomes {
		if other.candidate.kind == kindSessfs && (o.candidate.binary == nil || o.candidate.kind == kindSessfs || o.candidate.binary == other.candidate.binary) {
			return other
		}
	}
	return nil
}
