package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"time"
)

// sample is one run of one candidate; what is "per cycle" is divided by the cycles (or increments) of all processes.
type sample struct {
	Rate       float64            `json:"per_second"`
	P50        float64            `json:"p50_us"`
	P99        float64            `json:"p99_us"`
	Max        float64            `json:"max_us"`
	PHP        cpuTime            `json:"php_cpu_us"`    // per cycle
	Daemon     cpuTime            `json:"daemon_cpu_us"` // per cycle
	Server     cpuTime            `json:"server_cpu_us"` // per cycle
	Operations map[string]float64 `json:"fuse_operations,omitempty"`
	Trips      float64            `json:"round_trips_waited,omitempty"`
	Done       int                `json:"done"`
	Lost       int                `json:"lost"`   // increments of a hot session that are not in it
	Failed     int                `json:"failed"` // starts of a hot session that failed
	Reason     string             `json:"reason,omitempty"`
}

func (s sample) operations() (sum float64) {
	for _, n := range s.Operations {
		sum += n
	}
	return sum
}

// figures are sums over a target's daemons.
type figures struct {
	operations map[string]float64
	trips      float64
	leases     int // that are held or kept now
}

// figuresOf asks the daemons.
func figuresOf(ctx context.Context, hosts []*host) (f figures, err error) {
	f.operations = make(map[string]float64)
	for _, h := range hosts {
		out, err := exec.CommandContext(ctx, h.binary, "status", "--json", "--config", h.config).Output()
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
		}
		if err != nil {
			return f, fmt.Errorf("sessfs status: %w", err)
		}
		if err := f.add(out); err != nil {
			return f, err
		}
	}
	return f, nil
}

func (f *figures) add(status []byte) error {
	var s struct {
		Files struct {
			Operations map[string]float64 `json:"operations"`
		} `json:"files"`
		Locking struct {
			Leases int `json:"leases"`
		} `json:"locking"`
		Trips *float64 `json:"round_trips_waited"`
	}
	if err := json.Unmarshal(status, &s); err != nil {
		return fmt.Errorf("sessfs status: %w", err)
	}
	if s.Trips == nil || s.Files.Operations == nil {
		return fmt.Errorf("sessfs status has no files.operations or no round_trips_waited: %.200s", status)
	}
	for op, n := range s.Files.Operations {
		f.operations[op] += n
	}
	f.trips += *s.Trips
	f.leases += s.Locking.Leases
	return nil
}

// rest waits until the daemons have given back what they keep: the next candidate shall not pay for the leases of one with
// lock.keep, which go back when their time is over.
func (t *target) rest(ctx context.Context) {
	for end := time.Now().Add(restAfter); time.Now().Before(end); {
		if f, err := figuresOf(ctx, t.hosts); err != nil || f.leases == 0 {
			return // the next measurement finds out what is wrong
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// restAfter is longer than lock.keep in any candidate, in which its leases go back.
const restAfter = 5 * time.Second

// meter reads what a target has used when the load begins and ends.
type meter struct {
	t              *target
	before, after  figures
	daemon, server cpuTime
}

func (t *target) pids() (daemons, servers []int) {
	for _, h := range t.hosts {
		daemons = append(daemons, h.pid())
	}
	for _, s := range t.servers {
		servers = append(servers, s.pid())
	}
	return daemons, servers
}

func (m *meter) begin(ctx context.Context) (err error) {
	if m.before, err = figuresOf(ctx, m.t.hosts); err != nil {
		return err
	}
	daemon, server, err := m.cpu()
	m.daemon, m.server = cpuTime{}.minus(daemon), cpuTime{}.minus(server)
	return err
}

func (m *meter) end(ctx context.Context) error {
	daemon, server, err := m.cpu()
	if err != nil {
		return err
	}
	m.daemon, m.server = m.daemon.plus(daemon), m.server.plus(server)
	m.after, err = figuresOf(ctx, m.t.hosts)
	return err
}

func (m *meter) cpu() (daemon, server cpuTime, err error) {
	daemons, servers := m.t.pids()
	if daemon, err = cpuOf(daemons); err != nil {
		return daemon, server, fmt.Errorf("the daemon is gone: %w", err)
	}
	if server, err = cpuOf(servers); err != nil {
		return daemon, server, fmt.Errorf("the server is gone: %w", err)
	}
	return daemon, server, nil
}

// sum makes a sample of what the workers say.
func (m *meter) sum(answers []answer) (s sample, err error) {
	times := make(histogram)
	var php cpuTime
	for _, a := range answers {
		if a.Seconds > 0 {
			s.Rate += float64(a.Done) / a.Seconds
		}
		s.Done += a.Done
		s.Failed += a.Failed
		if s.Reason == "" {
			s.Reason = a.Reason
		}
		php = php.plus(cpuTime{a.User, a.System})
		if err := times.add(a.Times); err != nil {
			return s, err
		}
	}
	if s.Done == 0 {
		return s, fmt.Errorf("nothing was done: %s", s.Reason)
	}
	n := float64(s.Done)
	s.P50, s.P99, s.Max = times.quantile(0.5), times.quantile(0.99), times.quantile(1)
	s.PHP, s.Daemon, s.Server = php.over(n), m.daemon.over(n), m.server.over(n)
	if len(m.t.hosts) > 0 {
		s.Operations = make(map[string]float64)
		for op, total := range m.after.operations {
			if d := total - m.before.operations[op]; d > 0 {
				s.Operations[op] = d / n
			}
		}
		s.Trips = (m.after.trips - m.before.trips) / n
	}
	return s, nil
}

// measure runs a scenario once. id tells the rounds of a hot session apart. What daemons and servers said last stands
// behind an error.
func (t *target) measure(ctx context.Context, l *lab, sc *scenario, d time.Duration, id string) (sample, error) {
	s, err := t.load(ctx, l, sc, d, id)
	if err == nil || ctx.Err() != nil {
		return s, err
	}
	for _, h := range t.hosts {
		err = withLog(err, h.process)
	}
	for _, srv := range t.servers {
		err = withLog(err, srv.process)
	}
	return s, err
}

func withLog(err error, p *process) error {
	if text := p.log.String(); text != "" {
		return fmt.Errorf("%w\n%s: %s", err, p.name, text)
	}
	return err
}

func (t *target) load(ctx context.Context, l *lab, sc *scenario, d time.Duration, id string) (sample, error) {
	m := &meter{t: t}
	answers, err := run(ctx, l.dir, d+time.Minute, sc.loadOf(t, d, id), func() error { return m.begin(ctx) }, func() error { return m.end(ctx) })
	if err != nil {
		return sample{}, err
	}
	s, err := m.sum(answers)
	if err != nil {
		return s, err
	}
	if !sc.hot {
		if s.Reason != "" {
			return s, errors.New(s.Reason)
		}
		return s, nil
	}
	look := []worker{{t.places[0], []string{contendFile, "0", "0", id}}}
	nothing := func() error { return nil }
	if answers, err = run(ctx, l.dir, time.Minute, look, nothing, nothing); err != nil {
		return s, err
	}
	s.Lost = s.Done - answers[0].Value
	return s, nil
}
