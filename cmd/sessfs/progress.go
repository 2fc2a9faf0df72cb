package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// progressEvery is how often a line is written where there is no terminal.
const progressEvery = 5 * time.Second

// progressBar says how far something is: on a terminal in one line that changes, else with a line every few seconds.
type progressBar struct {
	out      io.Writer
	terminal bool
	width    func() int // of the terminal, in columns
	clock    func() time.Time
	begun    time.Time
	last     time.Time // when a line was written
}

// newProgressBar writes to standard error.
func newProgressBar() *progressBar {
	fd := int(os.Stderr.Fd())
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	p := &progressBar{out: os.Stderr, terminal: err == nil, clock: time.Now, begun: time.Now()}
	p.width = func() int {
		if size, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ); err == nil && size.Col > 0 {
			return int(size.Col)
		}
		return 80
	}
	return p
}

// begin starts the reckoning of how much time is left.
func (p *progressBar) begin() { p.begun = p.clock() }

// show shows that done of total are done, and what else there is to say.
func (p *progressBar) show(done, total uint64, text string) {
	now := p.clock()
	if !p.terminal {
		if now.Sub(p.last) >= progressEvery {
			p.last = now
			fmt.Fprintf(p.out, "%s  %s\n", p.figures(now, done, total), text)
		}
		return
	}
	const width = 20
	full := int(float64(width) * share(done, total))
	line := fmt.Sprintf("[%s%s] %s  %s", strings.Repeat("#", full), strings.Repeat("-", width-full), p.figures(now, done, total), text)
	if room := p.width() - 1; len(line) > room { // ASCII, but for the names of servers
		line = strings.ToValidUTF8(line[:max(room, 0)], "")
	}
	fmt.Fprintf(p.out, "\r\x1b[K%s", line)
}

// end leaves the terminal's line for what comes next.
func (p *progressBar) end() {
	if p.terminal {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}

func (p *progressBar) figures(now time.Time, done, total uint64) string {
	text := fmt.Sprintf("%3.0f %%  %d of %d", 100*share(done, total), done, max(done, total))
	if spent := now.Sub(p.begun); done > 0 && done < total && spent >= time.Second {
		left := time.Duration(float64(spent) * float64(total-done) / float64(done))
		text += fmt.Sprintf("  %v left", left.Round(time.Second))
	}
	return text
}

func share(done, total uint64) float64 {
	if done >= total {
		return 1
	}
	return float64(done) / float64(total)
}
