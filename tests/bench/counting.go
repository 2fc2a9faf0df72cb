package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// calls are the system calls of a daemon per cycle, counted in a run of its own: strace slows it, and with that changes
// how much it finds to do when it wakes up.
type calls struct {
	Candidate string             `json:"candidate"`
	Title     string             `json:"title"`
	Processes int                `json:"processes"`
	Sum       float64            `json:"per_cycle"`
	ByName    map[string]float64 `json:"by_name"`
	Failed    string             `json:"failed,omitempty"`
}

// countedKinds are the candidates with a daemon of ours that are counted.
var countedKinds = []string{kindSessfs, kindKeep, kindEmbedded}

func sortedKeys(m map[string]float64) []string { return slices.Sorted(maps.Keys(m)) }

// count runs a scenario once under strace.
func (b *bench) count(ctx context.Context, sc *scenario, c *candidate) calls {
	out := calls{Candidate: c.key, Title: c.title, Processes: sc.processes}
	var s scope
	byName, err := b.countIn(ctx, &s, sc, c)
	if err := errors.Join(err, s.close()); err != nil {
		out.Failed = err.Error()
	}
	out.ByName = byName
	for _, n := range byName {
		out.Sum += n
	}
	return out
}

func (b *bench) countIn(ctx context.Context, s *scope, sc *scenario, c *candidate) (map[string]float64, error) {
	t, err := c.start(ctx, s, b.lab, sc)
	if err != nil {
		return nil, err
	}
	table := filepath.Join(b.lab.dir, "strace")
	var tracer *process
	begin := func() (err error) {
		tracer, err = startProcess(exec.Command("strace", "-f", "-c", "-o", table, "-p", strconv.Itoa(t.hosts[0].pid())))
		if err != nil {
			return err
		}
		s.add(func() error { return tracer.stop(syscall.SIGINT) })
		return tracer.until(ctx, 10*time.Second, "it was attached", func() bool { return traced(t.hosts[0].pid()) })
	}
	end := func() error { return tracer.stop(syscall.SIGINT) }
	answers, err := run(ctx, b.lab.dir, b.duration+2*time.Minute, sc.loadOf(t, b.duration, ""), begin, end)
	if err != nil {
		return nil, err
	}
	done := 0
	for _, a := range answers {
		if a.Reason != "" {
			return nil, errors.New(a.Reason)
		}
		done += a.Done
	}
	text, err := os.ReadFile(table)
	if err != nil {
		return nil, err
	}
	byName, err := parseStrace(text)
	if err != nil {
		return nil, err
	}
	if done == 0 || len(byName) == 0 {
		return nil, fmt.Errorf("%d cycles, and strace counted: %s %s", done, text, tracer.log.String())
	}
	for name := range byName {
		byName[name] /= float64(done)
	}
	return byName, nil
}

// traced tells whether all threads of a process have a tracer.
func traced(pid int) bool {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	for _, name := range tasks {
		b, err := os.ReadFile(name)
		if err == nil && bytes.Contains(b, []byte("\nTracerPid:\t0\n")) {
			return false
		}
	}
	return len(tasks) > 0
}

// parseStrace reads the table of strace -c: % time, seconds, usecs/call, calls, errors or nothing, name.
func parseStrace(text []byte) (map[string]float64, error) {
	byName := make(map[string]float64)
	lines := bufio.NewScanner(bytes.NewReader(text))
	rules := 0
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "------") {
			rules++
			continue
		}
		if rules != 1 {
			continue
		}
		f := strings.Fields(line)
		if len(f) < 5 {
			return nil, fmt.Errorf("a line of strace that is not understood: %q", line)
		}
		n, err := strconv.ParseFloat(f[3], 64)
		if err != nil {
			return nil, fmt.Errorf("a line of strace that is not understood: %q", line)
		}
		byName[f[len(f)-1]] += n
	}
	return byName, lines.Err()
}
