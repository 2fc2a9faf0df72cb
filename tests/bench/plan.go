package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// plan is what a run consists of.
type plan struct {
	options   options
	known     []*candidate
	scenarios []planned
	counted   []planned // under strace
	memory    []*candidate
	sessions  int // of the memory test
}

type planned struct {
	*scenario
	candidates []*candidate
}

// The names that -only sees for what is no scenario; the counts are those of 1 and of 8 processes.
const (
	memoryName = "memory"
	callsName  = "syscalls-"
)

func newPlan(o options, bins []*binary) *plan {
	p := &plan{options: o, known: candidates(bins), sessions: fullMemory}
	if o.quick {
		p.sessions = quickMemory
	}
	for _, sc := range scenarios() {
		kinds := sc.kinds
		if o.quick {
			kinds = sc.quick
		}
		if some := p.pick(sc.key, kinds); len(some) > 0 {
			p.scenarios = append(p.scenarios, planned{sc, some})
		}
		// The ordinary scenarios are counted too.
		if sc.key == "8p-1k" || sc.key == "1p-1k" {
			if some := p.pick(callsName+sc.key, countedKinds); len(some) > 0 {
				p.counted = append(p.counted, planned{sc, some})
			}
		}
	}
	p.memory = p.pick(memoryName, []string{kindSessfs})
	return p
}

func (p *plan) pick(name string, kinds []string) (some []*candidate) {
	for _, c := range of(p.known, kinds) {
		if p.options.selected(name, c) {
			some = append(some, c)
		}
	}
	return some
}

// each calls f for everything that will run.
func (p *plan) each(f func(name string, c *candidate)) {
	for _, x := range p.scenarios {
		for _, c := range x.candidates {
			f(x.key, c)
		}
	}
	for _, x := range p.counted {
		for _, c := range x.candidates {
			f(callsName+x.key, c)
		}
	}
	for _, c := range p.memory {
		f(memoryName, c)
	}
}

func (p *plan) names() (all []string) {
	p.each(func(name string, c *candidate) { all = append(all, name+"/"+c.key) })
	return all
}

// used are the candidates that run somewhere, in their own order.
func (p *plan) used() []*candidate {
	run := make(map[*candidate]bool)
	p.each(func(_ string, c *candidate) { run[c] = true })
	return slices.DeleteFunc(slices.Clone(p.known), func(c *candidate) bool { return !run[c] })
}

func (p *plan) tools() []*tool {
	all := toolsOf(p.used())
	if len(p.counted) > 0 {
		all = append(all, toolStrace)
	}
	return all
}

func (p *plan) settings() (all []fact) {
	for _, c := range p.used() {
		all = append(all, fact{c.title, c.note})
	}
	return all
}

func (p *plan) leftOut(bins []*binary) (lines []string) {
	for _, b := range bins {
		if !b.keeps {
			lines = append(lines, fmt.Sprintf("left out: sessfs with lock.keep: %s does not accept %q", b.path, keepYAML))
		}
	}
	return lines
}

// run runs it all; the report has what was found even when it ends early.
func (p *plan) run(ctx context.Context, b *bench, r *report) error {
	count := b.duration + time.Second
	fill := time.Duration(p.sessions)*250*time.Microsecond + time.Second
	for _, x := range p.scenarios {
		one := time.Duration(len(x.candidates)) * b.cost(x.scenario)
		b.progress.planned += time.Duration(b.rounds) * one
		b.progress.least += one
	}
	for _, x := range p.counted {
		b.progress.planned += time.Duration(len(x.candidates)) * count
		b.progress.least += time.Duration(len(x.candidates)) * count
	}
	b.progress.planned += time.Duration(len(p.memory)) * fill
	b.progress.least += time.Duration(len(p.memory)) * fill
	for _, x := range p.scenarios {
		b.progress.least -= time.Duration(len(x.candidates)) * b.cost(x.scenario)
		res, err := b.scenario(ctx, x.scenario, x.candidates)
		r.Results = append(r.Results, res)
		if err != nil {
			return err
		}
	}
	for _, x := range p.counted {
		for _, c := range x.candidates {
			b.progress.next(count, fmt.Sprintf("system calls: %s: %s", x.title, c.title))
			r.Calls = append(r.Calls, b.count(ctx, x.scenario, c))
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	for _, c := range p.memory {
		b.progress.next(fill, fmt.Sprintf("memory: %d sessions: %s", p.sessions, c.title))
		r.Memory = append(r.Memory, b.memory(ctx, c, p.sessions))
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}
