package top

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	"sessfs/internal/status"
)

// Options say what to show, and how.
type Options struct {
	Ask      func(context.Context) (*status.Report, error) // the daemon
	Interval time.Duration                                 // between two questions
	Colour   bool
}

// Terminal is what Live shows its lines on.
type Terminal interface {
	// Enter makes the terminal show what is written here alone, and send keys one by one; Leave makes it as it was.
	Enter() error
	Leave()
	io.Writer
	Size() (width, height int) // in columns and lines
	Keys() <-chan []byte       // what is typed; closed where nothing can be any more
	Resized() <-chan struct{}
}

// patience is after which time without an answer that is said.
const patience = 3 * time.Second

// answer is the daemon's. panicked is what Ask panicked with.
type answer struct {
	report   *status.Report
	err      error
	panicked any
}

// live is a run of Live.
type live struct {
	Options
	t       Terminal
	v       View
	asked   time.Time // when the question was sent that has no answer yet; zero: there is none
	answers chan answer
	asking  sync.WaitGroup
}

// Live shows the daemon's state until q is typed or ctx ends. It goes on while the daemon does not answer. The terminal
// is left as it was found, whatever happens.
func Live(ctx context.Context, t Terminal, o Options) error {
	ctx, end := context.WithCancel(ctx)
	l := &live{Options: o, t: t, answers: make(chan answer, 1), v: View{Interval: o.Interval}}
	defer l.asking.Wait()
	defer end()
	if err := t.Enter(); err != nil {
		return err
	}
	defer t.Leave()
	tick := time.NewTicker(o.Interval)
	defer tick.Stop()
	l.ask(ctx)
	l.draw()
	for {
		select {
		case <-ctx.Done():
			return nil
		case keys, ok := <-t.Keys():
			if !ok || l.typed(keys) {
				return nil
			}
		case <-t.Resized():
		case a := <-l.answers:
			if a.panicked != nil {
				panic(a.panicked)
			}
			l.answered(a)
		case <-tick.C:
			if !l.v.Paused {
				l.ask(ctx)
			}
		}
		l.draw()
	}
}

// ask sends a question, where none is under way.
func (l *live) ask(ctx context.Context) {
	if !l.asked.IsZero() {
		return
	}
	l.asked = time.Now()
	l.asking.Go(func() {
		var a answer
		defer func() {
			if p := recover(); p != nil {
				a.panicked = p
			}
			l.answers <- a
		}()
		ctx, end := context.WithTimeout(ctx, time.Minute)
		defer end()
		a.report, a.err = l.Ask(ctx)
	})
}

func (l *live) answered(a answer) {
	if l.v.Gone == nil {
		l.v.Since = l.asked
	}
	l.asked = time.Time{}
	if l.v.Gone = a.err; a.err == nil && !l.v.Paused {
		l.v.Before, l.v.Last, l.v.Asked = l.v.Last, a.report, time.Now()
	}
}

var errSilent = errors.New("no answer to the last question yet")

// draw puts the view on the terminal, in one write.
func (l *live) draw() {
	v := l.v
	v.Now = time.Now()
	if v.Gone == nil && !l.asked.IsZero() && v.Now.Sub(l.asked) > patience {
		v.Gone, v.Since = errSilent, l.asked
	}
	if v.Paused && v.Last != nil {
		v.Now = v.Asked // ages stand still, too
	}
	width, height := l.t.Size()
	var b strings.Builder
	b.WriteString("\x1b[H") // home; a line is cleared before it is written, as after its last column it could not be
	for i, line := range Frame(v, width, height) {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString("\x1b[2K" + line.ansi(l.Colour))
	}
	b.WriteString("\x1b[J")
	io.WriteString(l.t, b.String()) // a terminal that is gone ends its keys
}

// typed does what keys say and reports whether that is the end.
func (l *live) typed(keys []byte) bool {
	if len(keys) > 1 && keys[0] == '\x1b' { // an arrow or the like
		return false
	}
	for _, k := range keys {
		switch k {
		case 'q', 'Q', 'C' - '@', 'D' - '@':
			if l.v.Help && k == 'q' {
				l.v.Help = false
				continue
			}
			return true
		case '\x1b':
			l.v.Help = false
		case 'h', 'H', '?':
			l.v.Help = !l.v.Help
		case 'p', 'P', ' ':
			l.v.Paused = !l.v.Paused
		case 's', 'S':
			l.v.Sort = (l.v.Sort + 1) % sorts
		}
	}
	return false
}

// Batch writes n plain snapshots without a terminal, each over one interval. While the daemon does not answer it says so
// in their place; the error is that of the first question, or of the last.
func Batch(ctx context.Context, out io.Writer, o Options, n, width int) error {
	last, err := o.Ask(ctx)
	if err != nil {
		return err
	}
	v := View{Last: last, Interval: o.Interval, Asked: time.Now()}
	tick := time.NewTicker(o.Interval)
	defer tick.Stop()
	for i := range n {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		asked := time.Now()
		report, err := o.Ask(ctx)
		if v.Gone == nil {
			v.Since = asked
		}
		v.Gone, v.Now = err, time.Now()
		if err == nil {
			v.Before, v.Last, v.Asked = v.Last, report, v.Now
		}
		shown := v
		if err != nil {
			shown.Last = nil // old figures are no snapshot
		}
		var b strings.Builder
		if i > 0 {
			b.WriteString("\n")
		}
		for _, line := range Frame(shown, width, 0) {
			b.WriteString(line.String() + "\n")
		}
		if _, err := io.WriteString(out, b.String()); err != nil {
			return err
		}
	}
	return v.Gone
}
