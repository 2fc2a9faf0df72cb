// Command bench measures sessfs beside the other ways to keep PHP's sessions, with real PHP processes on this machine,
// in turn. docs/performance.md says what the rows mean.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options are the command line.
type options struct {
	quick    bool
	list     bool
	rounds   int
	duration time.Duration
	only     *regexp.Regexp
	sessfs   []string
	out      string
	disk     string
}

const (
	fullMemory  = 100_000
	quickMemory = 10_000
	quickLimit  = 105 * time.Second // for the rounds; with what comes after it the short form ends within two minutes
)

func parse(args []string) (o options, err error) {
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.BoolVar(&o.quick, "quick", false, "the short form: what is judged, within two minutes")
	f.BoolVar(&o.list, "list", false, "list what would run, as -only names it")
	f.IntVar(&o.rounds, "rounds", 0, "rounds of each scenario (5; 3 with -quick)")
	f.DurationVar(&o.duration, "duration", 0, "time of each run (1.5s; 500ms with -quick)")
	only := f.String("only", "", "run only what this regular expression finds in SCENARIO/CANDIDATE")
	f.Func("sessfs", "a binary to measure, PATH or NAME=PATH; may be repeated (bin/sessfs)", func(s string) error {
		o.sessfs = append(o.sessfs, s)
		return nil
	})
	f.StringVar(&o.out, "out", "bench-results", "directory for "+strings.Join([]string{textFile, jsonFile, svgFile}, ", "))
	f.StringVar(&o.disk, "disk", "/var/tmp", "where files are kept, not in memory")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unknown argument %q", f.Arg(0))
	}
	if o.rounds == 0 {
		o.rounds = 5
		if o.quick {
			o.rounds = 3
		}
	}
	if o.duration == 0 {
		o.duration = 1500 * time.Millisecond
		if o.quick {
			o.duration = 500 * time.Millisecond
		}
	}
	if o.rounds < 0 || o.duration < 0 {
		return o, errors.New("-rounds and -duration are above 0")
	}
	o.only, err = regexp.Compile(*only)
	return o, err
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "proxy" {
		exit(proxyMain(os.Args[2:]))
	}
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(0)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	// A reader of its output that goes away must not end it in the middle, with everything mounted.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	exit(measure(ctx, o))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// measure runs everything and leaves nothing behind.
func measure(ctx context.Context, o options) (err error) {
	if os.Getuid() != 0 {
		return errors.New("filesystems are mounted: run it as root")
	}
	bins, err := binaries(ctx, o.sessfs)
	if err != nil {
		return err
	}
	p := newPlan(o, bins)
	if o.list {
		for _, name := range p.names() {
			fmt.Println(name)
		}
		return nil
	}
	if len(p.names()) == 0 {
		return errors.New("nothing to run: see -list")
	}
	if lines := missing(ctx, p.tools()); len(lines) > 0 {
		return errors.New(strings.Join(lines, "\n"))
	}
	var s scope
	l, err := newLab(o.disk, &s)
	defer func() {
		err = errors.Join(err, s.close())
		if l != nil {
			if left := leftovers(l.dir); len(left) > 0 {
				err = errors.Join(err, fmt.Errorf("left behind: %s", strings.Join(left, ", ")))
			}
		}
	}()
	if err != nil {
		return err
	}
	if err := writeDrivers(l.dir); err != nil {
		return err
	}
	r := &report{Started: time.Now(), Quick: o.quick, Rounds: o.rounds, Duration: o.duration.Seconds(), Judged: make(map[string][]row),
		Facts: facts(ctx, l, bins, p.tools()), Settings: p.settings(), LeftOut: p.leftOut(bins)}
	b := &bench{lab: l, rounds: o.rounds, duration: o.duration, progress: &progress{out: os.Stderr, terminal: isTerminal(2), start: time.Now()}}
	if o.quick {
		b.progress.deadline = time.Now().Add(quickLimit)
	}
	err = p.run(ctx, b, r)
	b.progress.end()
	if ctx.Err() != nil {
		return errors.New("stopped")
	}
	if err != nil {
		return err
	}
	r.Seconds = time.Since(r.Started).Seconds()
	for _, bin := range bins {
		r.Judged[bin.name] = r.judge(bin, len(bins) > 1)
	}
	var text strings.Builder
	r.print(io.MultiWriter(os.Stdout, &text), bins)
	if err := r.write(o.out, text.String()); err != nil {
		return err
	}
	fmt.Printf("\n%.0f s; %s, %s and %s are in %s\n", r.Seconds, textFile, jsonFile, svgFile, filepath.Clean(o.out))
	if r.failed() {
		return errors.New("a candidate failed: see the table")
	}
	return nil
}

// selected tells whether -only lets a run pass.
func (o *options) selected(scenario string, c *candidate) bool {
	return o.only.MatchString(scenario + "/" + c.key)
}

// of picks the candidates of some kinds, in the order of the kinds, those of several binaries beside each other.
func of(all []*candidate, kinds []string) (some []*candidate) {
	for _, kind := range kinds {
		for _, c := range all {
			if c.kind == kind {
				some = append(some, c)
			}
		}
	}
	return slices.Clip(some)
}
