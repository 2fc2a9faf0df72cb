package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// delayed puts a proxy before servers, so that a round trip lasts as much longer as a scenario asks.
func (l *lab) delayed(ctx context.Context, s *scope, sc *scenario, servers ...*server) error {
	rtt := sc.rtt
	if rtt == 0 || len(servers) == 0 {
		return nil
	}
	if _, known := l.delay[rtt]; !known {
		if err := l.calibrate(ctx, rtt); err != nil {
			return fmt.Errorf("calibrating the delaying proxy: %w", err)
		}
	}
	return startProxy(ctx, s, l.delay[rtt], sc.connects, servers...)
}

func startProxy(ctx context.Context, s *scope, delay time.Duration, connects bool, servers ...*server) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args := []string{"proxy", fmt.Sprintf("-connect=%v", connects), delay.String()}
	for _, srv := range servers {
		args = append(args, srv.addr)
	}
	cmd := exec.Command(self, args...)
	out, in, err := os.Pipe()
	if err != nil {
		return err
	}
	defer out.Close()
	cmd.Stdout = in
	p, err := startProcess(cmd)
	in.Close()
	if err != nil {
		return err
	}
	s.add(func() error { return p.stop(syscall.SIGTERM) })
	lines := bufio.NewScanner(out)
	for _, srv := range servers {
		if !lines.Scan() {
			return fmt.Errorf("the delaying proxy: %s", p.log.String())
		}
		srv.via = lines.Text()
	}
	return ctx.Err()
}

// calibrate finds the delay that makes a round trip rtt longer: the proxy wakes up four times in each, and every
// wake-up takes its time. Other work on the machine must not be taken for that: the faster pings count, and no more than a
// quarter is taken off.
func (l *lab) calibrate(ctx context.Context, rtt time.Duration) (err error) {
	var s scope
	defer func() { err = errors.Join(err, s.close()) }()
	srv, err := startMemcached(ctx, &s)
	if err != nil {
		return err
	}
	delay := rtt / 2
	for range 2 {
		var one scope
		if err := startProxy(ctx, &one, delay, false, srv); err != nil {
			return errors.Join(err, one.close())
		}
		r, err := roundTrip(ctx, rtt, srv)
		if err := errors.Join(err, one.close()); err != nil {
			return err
		}
		excess := time.Duration((r.Proxy.P25-r.Direct.P25)*float64(time.Microsecond)) - rtt
		delay = max(rtt*3/8, delay-excess/2)
	}
	l.delay[rtt] = delay
	return nil
}

// rtt is what was measured between a client and a server, in microseconds.
type rtt struct {
	Asked  float64 `json:"asked_us"`
	Direct trip    `json:"direct_us"`
	Proxy  trip    `json:"proxy_us"`
}

type trip struct {
	P25    float64 `json:"p25"`
	Median float64 `json:"median"`
	P99    float64 `json:"p99"`
}

// off tells that the round trip is not what was asked for, by more than a tenth.
func (r *rtt) off() bool {
	return math.Abs(r.Proxy.Median-r.Direct.Median-r.Asked) > r.Asked/10
}

// roundTrip measures a server that is behind a proxy, and the same one directly.
func roundTrip(ctx context.Context, asked time.Duration, srv *server) (*rtt, error) {
	direct, err := ping(ctx, srv.addr)
	if err != nil {
		return nil, err
	}
	proxy, err := ping(ctx, srv.via)
	if err != nil {
		return nil, err
	}
	return &rtt{Asked: float64(asked.Microseconds()), Direct: direct, Proxy: proxy}, nil
}

const pings = 200

// ping asks a server something that it answers at once. Redis calls it an error, which takes as long.
func ping(ctx context.Context, addr string) (t trip, err error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return t, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	h := make(histogram)
	b := make([]byte, 256)
	for range pings {
		start := time.Now()
		if _, err := io.WriteString(c, "mn\r\n"); err != nil {
			return t, err
		}
		if _, err := c.Read(b); err != nil {
			return t, err
		}
		h[int(time.Since(start).Microseconds())]++
		if ctx.Err() != nil {
			return t, ctx.Err()
		}
	}
	return trip{h.quantile(0.25), h.quantile(0.5), h.quantile(0.99)}, nil
}
