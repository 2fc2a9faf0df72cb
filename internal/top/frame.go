// Package top shows what a mount does, live in a terminal or as plain snapshots: `sessfs top`.
//
// What is shown is a pure function of two reports and a size (Frame); the rest asks the daemon, looks after the terminal
// and puts lines on it.
package top

import (
	"fmt"
	"strings"
	"time"

	"sessfs/internal/status"
)

// View is what there is to show.
type View struct {
	Now time.Time
	// Last is the newest report; nil: none yet. Before is the one before it, for what is by second.
	Last, Before *status.Report
	// Gone says why the daemon does not answer, since Since; nil: it does.
	Gone     error
	Since    time.Time
	Asked    time.Time // when Last came
	Interval time.Duration
	Paused   bool
	Help     bool
	Sort     Sort
}

const (
	endless   = 1 << 20 // lines that are as many as one likes
	plainRows = 15      // of a section where there are
)

// Frame lays a view out in width columns and height lines at most; height 0: as long as it takes,
// with the first rows of each section.
func Frame(v View, width, height int) []Line {
	if width < 1 || height < 0 {
		return nil
	}
	var foot []Line
	if height >= 8 {
		foot = []Line{v.keys(width)}
	}
	room := height - len(foot)
	unlimited := height == 0
	if unlimited {
		room = endless
	}
	all := v.head(width, room)
	switch {
	case v.Help:
		all = append(all, help()...)
	case v.Last != nil:
		all = append(all, v.body(width, room-len(all))...)
	}
	all = all[:min(len(all), room)]
	if !unlimited {
		for len(foot) > 0 && len(all) < room {
			all = append(all, nil)
		}
	}
	all = append(all, foot...)
	for i := range all {
		all[i] = cutLine(all[i], width)
	}
	return all
}

// head is the title, what is not well, and the counts.
func (v View) head(width, room int) []Line {
	all := []Line{v.title(width)}
	problems := v.problems()
	show := len(problems)
	if room < endless {
		show = min(show, 1+room/12) // one in a small window, three in one of 24 lines
	}
	for i, p := range problems[:show] {
		more := ""
		if rest := len(problems) - show; rest > 0 && i == show-1 {
			more = fmt.Sprintf(" (+%d more: sessfs status)", rest)
		}
		all = append(all, Line{{cut("! "+p.What, max(width-len(more), 0)) + more, Bad}})
		if i == 0 && p.Do != "" && room >= 12 {
			all = append(all, Line{{Text: "  do: " + p.Do}})
		}
	}
	if len(problems) == 0 && v.Last != nil {
		all = append(all, Line{{"all well", Good}})
	}
	if v.Last != nil {
		lines := 2
		if room < 10 {
			lines = 1
		}
		all = append(all, flow(between(v.Last, v.Before).figures(), width, lines)...)
	}
	return all
}

// title says whose figures these are: host and mount point, and at the right version, uptime and time of day, as far as
// there is room.
func (v View) title(width int) Line {
	left, right := "sessfs top", []string{v.Now.Format(time.TimeOnly)}
	if r := v.Last; r != nil {
		left = status.Printable(r.Host + ":" + r.Mountpoint)
		right = append(right, "up "+status.Age(r.Uptime), status.Printable(r.Version))
	}
	if v.Paused {
		right = append([]string{"PAUSED"}, right...)
	}
	text := ""
	for _, part := range right {
		if longer := "  " + part + text; len(longer)+min(len(left), 20) <= width {
			text = longer
		}
	}
	left = cutFront(left, max(width-len(text), 0))
	return Line{{left, Strong}, {Text: strings.Repeat(" ", max(width-len(left)-len(text), 0)) + text}}
}

// problems are those of the report, or that there is none.
func (v View) problems() []status.Problem {
	if v.Gone != nil {
		p := status.Problem{What: fmt.Sprintf("the daemon does not answer for %s: %s", status.Age(max(v.Now.Sub(v.Since), 0)), status.Printable(v.Gone.Error())),
			Do: "wait, it is asked again; see its log"}
		if v.Last != nil {
			p.Do += ". These are the figures of " + v.Asked.Format(time.TimeOnly)
		}
		return []status.Problem{p}
	}
	if v.Last == nil {
		return nil
	}
	return v.Last.Problems(v.Now)
}

// body shares the lines that are left among the sections: first what each of them needs, the most important first, then
// what is left, one line after the other.
func (v View) body(width, room int) []Line {
	s := between(v.Last, v.Before)
	sections := []*table{s.servers(v.Now), s.longLocks(v.Now), s.waits(), s.operations(v.Sort), s.hottest()}
	rank := []int{0, 1, 3, 4, 2} // what gets its lines first
	most := make([]int, len(sections))
	for i, t := range sections {
		most[i] = len(t.rows)
		if room > endless/2 {
			most[i] = min(most[i], plainRows)
		}
	}
	rows := make([]int, len(sections))
	shown := make([]bool, len(sections))
	left := room
	for _, i := range rank {
		t := sections[i]
		need := min(most[i], t.needs)
		if left < 1+min(need, 1) {
			continue
		}
		shown[i] = true
		rows[i] = min(need, left-1)
		left -= 1 + rows[i]
	}
	blank := left >= len(sections)
	if blank {
		left -= len(sections)
	}
	for grew := true; grew && left > 0; {
		grew = false
		for _, i := range rank {
			if shown[i] && left > 0 && rows[i] < most[i] {
				rows[i]++
				left--
				grew = true
			}
		}
	}
	var all []Line
	for i, t := range sections {
		if !shown[i] {
			continue
		}
		if blank {
			all = append(all, nil)
		}
		all = append(all, t.lines(width, rows[i])...)
	}
	return all
}

func (v View) keys(width int) Line {
	pause := "p pause"
	if v.Paused {
		pause = "p go on"
	}
	l := flow([]Span{{Text: "q quit"}, {Text: pause}, {Text: "h help"}, {Text: "s sort: " + v.Sort.String()}, {Text: "every " + v.Interval.String()}}, width, 1)[0]
	for i := range l {
		l[i].Style = Faint
	}
	return l
}

func help() []Line {
	var all []Line
	for line := range strings.Lines(helpText) {
		all = append(all, Line{{Text: strings.TrimSuffix(line, "\n")}})
	}
	return all
}

const helpText = `
q, Ctrl-C  quit        p, space  pause and go on
h, ?       this help   s         sort the operations by rate, p99 or name

SESSIONS stand here by the hash that the log has, too: sessfs show HASH,
           sessfs unlock HASH. The name of one: sessfs ls | grep HASH
RATE/s, P50, P99 are of the last interval; TOTAL and EVICTED since the start.
SERVER     P50 and P99 are of the round trips that this host waited for, RATE/s
           its requests; HITS/s are those of all hosts
LONG LOCK  held for 2s or longer; "elsewhere": by another host, while this one
           waits. WAITING: requests of this host, UP TO: the longest of them
OPERATION  what the kernel asks for. SETLKW has the waits for locks in it
HOT SESSION  opened most in the last minute, on this host; ">=": or more
`
