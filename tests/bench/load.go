package main

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The drivers, written beside the sessions so that the program runs from anywhere.
var (
	//go:embed cycle.php
	cycleDriver string
	//go:embed contend.php
	contendDriver string
)

const (
	cycleFile   = "cycle.php"
	contendFile = "contend.php"
)

func writeDrivers(dir string) error {
	for name, text := range map[string]string{cycleFile: cycleDriver, contendFile: contendDriver} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// phpSettings: nothing of the machine's php.ini; no cookies, which a command line has not; Debian's session.gc_probability.
var phpSettings = []string{"-n", "-d", "session.use_cookies=0", "-d", "session.use_only_cookies=0", "-d", "session.cache_limiter=",
	"-d", "session.gc_probability=0", "-d", "session.lazy_write=1", "-d", "display_errors=stderr", "-d", "html_errors=0", "-d", "memory_limit=1G"}

// worker is one PHP process of a load.
type worker struct {
	place place
	args  []string // the driver's file and its arguments
}

// answer is what a driver says at its end.
type answer struct {
	Done    int            `json:"done"`
	Seconds float64        `json:"seconds"`
	Failed  int            `json:"failed"`
	Reason  string         `json:"reason"`
	Value   int            `json:"value"`
	Times   map[string]int `json:"times"` // how many took so many microseconds
	User    float64        `json:"user"`
	System  float64        `json:"system"`
}

// running is a worker's process.
type running struct {
	*process
	in, pipe *os.File
	out      *bufio.Reader
}

func (r *running) end() {
	r.kill()
	r.in.Close()
	r.pipe.Close()
}

func (r *running) expect(word string) error {
	line, err := r.out.ReadString('\n')
	if err != nil {
		<-r.done
		return fmt.Errorf("php ended: %v: %s %s", r.err, strings.TrimSpace(line), r.log.String())
	}
	if strings.TrimSpace(line) != word {
		return fmt.Errorf("php said %q, not %q", strings.TrimSpace(line), word)
	}
	return nil
}

// tell lets all go on.
func tell(all []*running) error {
	for _, r := range all {
		if _, err := io.WriteString(r.in, "go\n"); err != nil {
			return err
		}
	}
	return nil
}

// run lets workers begin together and waits for their answers. before is called when all are ready, after when the
// time of all is over.
func run(ctx context.Context, dir string, limit time.Duration, workers []worker, before, after func() error) (answers []answer, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("PHP did not end within %v", limit))
	defer cancel()
	var all []*running
	defer func() {
		for _, r := range all {
			r.end()
		}
	}()
	for _, w := range workers {
		args := append([]string{}, phpSettings...)
		for _, s := range w.place {
			args = append(args, "-d", s)
		}
		cmd := exec.Command("php", append(args, w.args...)...)
		cmd.Dir = dir
		r, err := startWorker(cmd)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	// Reads end when the processes do.
	stop := context.AfterFunc(ctx, func() {
		for _, r := range all {
			r.cmd.Process.Kill()
		}
	})
	defer stop()
	defer func() {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
	}()
	for _, r := range all {
		if err := r.expect("ready"); err != nil {
			return nil, err
		}
	}
	if err := before(); err != nil {
		return nil, err
	}
	if err := tell(all); err != nil {
		return nil, err
	}
	for _, r := range all {
		if err := r.expect("done"); err != nil {
			return nil, err
		}
	}
	if err := after(); err != nil {
		return nil, err
	}
	if err := tell(all); err != nil {
		return nil, err
	}
	for _, r := range all {
		line, err := r.out.ReadBytes('\n')
		if err != nil {
			return nil, fmt.Errorf("php said nothing at its end: %w: %s", err, r.log.String())
		}
		var a answer
		if err := json.Unmarshal(line, &a); err != nil {
			return nil, fmt.Errorf("%w in %.200q", err, line)
		}
		answers = append(answers, a)
		<-r.done
	}
	return answers, nil
}

func startWorker(cmd *exec.Cmd) (*running, error) {
	outRead, outWrite, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	inRead, inWrite, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, outRead.Close(), outWrite.Close())
	}
	cmd.Stdin, cmd.Stdout = inRead, outWrite
	p, err := startProcess(cmd)
	inRead.Close()
	outWrite.Close()
	if err != nil {
		return nil, errors.Join(err, outRead.Close(), inWrite.Close())
	}
	return &running{process: p, in: inWrite, pipe: outRead, out: bufio.NewReader(outRead)}, nil
}

// loadOf is the workers of a scenario; id tells rounds of a hot session apart.
func (sc *scenario) loadOf(t *target, d time.Duration, id string) (all []worker) {
	seconds := strconv.FormatFloat(d.Seconds(), 'f', 3, 64)
	for i := range sc.processes {
		w := worker{place: t.places[i%len(t.places)]}
		if sc.hot {
			w.args = []string{contendFile, seconds, strconv.FormatInt(hotHold.Microseconds(), 10), id}
		} else {
			mode := "change"
			if sc.keep {
				mode = "keep"
			}
			w.args = []string{cycleFile, seconds, strconv.Itoa(sc.sessions), strconv.Itoa(sc.bytes), "bench" + string(rune('a'+i)), mode}
		}
		all = append(all, w)
	}
	return all
}
