package main

import (
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"
)

// progress says on standard error what runs, how far it is and how long it will take.
type progress struct {
	out      io.Writer
	terminal bool
	start    time.Time
	deadline time.Time     // no further rounds after it; zero: none
	planned  time.Duration // of everything
	least    time.Duration // planned for what has not begun, if it has one round each
	passed   time.Duration // planned for what has ended
	step     time.Duration // planned for what runs
}

func isTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil
}

// columns is the width of the terminal.
func columns() int {
	size, err := unix.IoctlGetWinsize(2, unix.TIOCGWINSZ)
	if err != nil || size.Col < 20 {
		return 80
	}
	return int(size.Col)
}

// next begins a run for which cost is planned.
func (p *progress) next(cost time.Duration, what string) {
	p.passed += p.step
	p.step = cost
	p.show(what)
}

// show says how far what runs has come.
func (p *progress) show(what string) {
	done := float64(p.passed) / float64(max(p.planned, 1))
	text := fmt.Sprintf("%3.0f %%  %s left  %s", 100*done, p.left().Round(time.Second), what)
	if p.terminal {
		fmt.Fprintf(p.out, "\r\x1b[K%s", shorten(text, columns()-1))
	} else {
		fmt.Fprintln(p.out, text)
	}
}

// left is what is planned for the rest, stretched as what has ended was.
func (p *progress) left() time.Duration {
	rest := p.planned - p.passed
	if p.passed > 0 {
		rest = time.Duration(float64(rest) * float64(time.Since(p.start)) / float64(p.passed))
	}
	return max(0, rest)
}

// say writes a line that stays.
func (p *progress) say(format string, args ...any) {
	if p.terminal {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
	fmt.Fprintf(p.out, format+"\n", args...)
}

// late tells that another round would leave too little time for what has not begun.
func (p *progress) late() bool {
	if p.deadline.IsZero() {
		return false
	}
	stretch := 1.0
	if p.passed > 0 {
		stretch = max(1, float64(time.Since(p.start))/float64(p.passed))
	}
	return time.Now().Add(time.Duration(stretch * float64(p.least))).After(p.deadline)
}

// drop takes something that will not run off the plan.
func (p *progress) drop(cost time.Duration) { p.planned -= cost }

// end clears the line.
func (p *progress) end() {
	if p.terminal {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}
