package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"
)

// footprint is what a daemon needs after many different sessions went through its mount.
type footprint struct {
	Candidate string  `json:"candidate"`
	Title     string  `json:"title"`
	Sessions  int     `json:"sessions"`
	Before    int64   `json:"rss_before_bytes"`
	After     int64   `json:"rss_after_bytes"`
	Peak      int64   `json:"rss_peak_bytes"`
	Rate      float64 `json:"per_second"`
	Failed    string  `json:"failed,omitempty"`
}

// As many as keep a small machine busy.
const memoryProcesses = 4

// memory starts, changes and closes many sessions of 1 kB, each once.
func (b *bench) memory(ctx context.Context, c *candidate, sessions int) footprint {
	out := footprint{Candidate: c.key, Title: c.title, Sessions: sessions}
	var s scope
	if err := errors.Join(b.memoryIn(ctx, &s, c, &out), s.close()); err != nil {
		out.Failed = err.Error()
	}
	return out
}

func (b *bench) memoryIn(ctx context.Context, s *scope, c *candidate, out *footprint) error {
	t, err := c.start(ctx, s, b.lab, &scenario{})
	if err != nil {
		return err
	}
	var workers []worker
	for i := range memoryProcesses {
		n := out.Sessions*(i+1)/memoryProcesses - out.Sessions*i/memoryProcesses
		workers = append(workers, worker{t.places[0], []string{cycleFile, "0", strconv.Itoa(n), "1024", "many" + string(rune('a'+i)), "once"}})
	}
	read := func(line string, to *int64) func() error {
		return func() (err error) {
			*to, err = memoryOf(t.hosts[0].pid(), line)
			return err
		}
	}
	watching, stop := context.WithCancel(ctx)
	var watcher sync.WaitGroup
	defer watcher.Wait()
	defer stop()
	watcher.Go(func() { b.watch(watching, t, out.Sessions, c.title) })
	answers, err := run(ctx, b.lab.dir, 15*time.Minute, workers, read("VmRSS", &out.Before), read("VmRSS", &out.After))
	stop()
	if err != nil {
		return err
	}
	done := 0
	for _, a := range answers {
		if a.Reason != "" {
			return errors.New(a.Reason)
		}
		done += a.Done
		out.Rate += float64(a.Done) / a.Seconds
	}
	if done != out.Sessions {
		return fmt.Errorf("%d sessions of %d", done, out.Sessions)
	}
	return read("VmHWM", &out.Peak)()
}

// watch shows every few seconds how many sessions were stored.
func (b *bench) watch(ctx context.Context, t *target, sessions int, title string) {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if f, err := figuresOf(ctx, t.hosts); err == nil {
			b.progress.show(fmt.Sprintf("memory: %.0f of %d sessions: %s", f.operations["WRITE"], sessions, title))
		}
	}
}
