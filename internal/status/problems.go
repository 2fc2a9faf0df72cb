package status

import (
	"fmt"
	"strings"
	"time"

	"sessfs"
	"sessfs/locking"
)

// Problem is something that is not well, and what to do.
type Problem struct {
	What string
	Do   string
}

const (
	recently = 10 * time.Minute // within which something that went wrong is still a problem
	tooLong  = 5 * time.Second  // of a lock that others wait for: as long as until the log speaks of it
)

// Problems tells what is not well as of now, the worst first: the servers, what failed lately, and locks that others wait
// for.
func (r *Report) Problems(now time.Time) (list []Problem) {
	add := func(do, what string, args ...any) { list = append(list, Problem{fmt.Sprintf(what, args...), do}) }
	for _, s := range r.Servers {
		if !s.Up {
			add(r.whenDown(), "cache server %s is down%s%s", Printable(s.Name), since(s.DownSince, now), because(s.LastError))
		}
	}
	if f := r.Files; lately(f.LastLost, now) {
		add("see the log for which sessions; their next request fails once",
			"changes of sessions could not be stored after close (%d so far), the last %s ago", f.LostStores, ago(*f.LastLost, now))
	}
	if f := r.Files; lately(f.LastError, now) {
		add("see the log for the reason: a server that did not answer, a lost lock",
			"PHP got %s so far, the last %s ago", count(f.Errors, "error"), ago(*f.LastError, now))
	}
	if r.Seals != nil {
		n := uint64(0)
		for _, refused := range r.Seals.Refused {
			n += refused
		}
		if n > 0 {
			add("see the log for which and why: hosts with other seal.keys, or somebody who writes on the servers",
				"%s refused so far because of a seal", were(n, "record"))
		}
	}
	if lately(r.LastLost, now) {
		add("see the log: a paused host, sessfs unlock, or a server that was restarted",
			"%s lost under their holders so far, the last %s ago", were(r.Locking.LocksLost, "lock"), ago(*r.LastLost, now))
	}
	for _, s := range r.Servers {
		switch {
		case s.Up && s.ToMend > 0:
			add("wait, and restart no other server before that is done", "cache server %s is back and gets its copies: %d sessions to look at", Printable(s.Name), s.ToMend)
		case s.Up && s.ToMend < 0:
			add("wait, and restart no other server before that is done", "cache server %s is back and is to get its copies", Printable(s.Name))
		}
		if s.Evictions > 0 {
			add("give memcached more memory (-m); 'stats reset' on the server begins the count anew",
				"cache server %s has thrown %s away for want of memory: users were logged out", Printable(s.Name), count(s.Evictions, "item"))
		}
	}
	return append(list, r.slowLocks(now)...)
}

// maxSlow is how many locks are named as problems; the others are counted.
const maxSlow = 3

func (r *Report) slowLocks(now time.Time) (list []Problem) {
	const cure = "look at that process%s; sessfs unlock %s frees it"
	for _, l := range r.Contention.Held {
		if l.Waiters > 0 && l.For >= tooLong {
			list = append(list, Problem{fmt.Sprintf("session %s is locked by %s for %s, and %s", l.Session, process(l.PID, l.Process), Age(l.For), wait(l.Waiters)),
				fmt.Sprintf(cure, "", l.Session)})
		}
	}
	for _, l := range r.Contention.Elsewhere {
		if l.Longest >= tooLong {
			list = append(list, Problem{fmt.Sprintf("session %s is locked by %s for %s, and %s here for up to %s", l.Session, Holder(l), Age(HeldFor(l, now)), wait(l.Waiters), Age(l.Longest)),
				fmt.Sprintf(cure, " on "+Printable(l.Host), l.Session)})
		}
	}
	if more := len(list) - maxSlow; more > 1 {
		list = append(list[:maxSlow], Problem{fmt.Sprintf("%d more sessions are locked for long while others wait", more), "sessfs top lists them"})
	}
	return list
}

// whenDown is what to do when a server is down, and how urgent it is.
func (r *Report) whenDown() string {
	do := "start it, or correct cache.servers"
	up := 0
	for _, s := range r.Servers {
		if s.Up {
			up++
		}
	}
	switch {
	case up == 0:
		return do + "; until then no session can be opened"
	case r.Copies == nil || r.Copies.Replicas < 2:
		return do + "; until then its sessions fail"
	case up < r.Copies.Replicas && len(r.Servers) > 2:
		return do + "; too few are left for all sessions"
	}
	return do + "; no second one may fail until then"
}

// Holder names who holds a lock of another host.
func Holder(l locking.RemoteLock) string { return process(l.PID, "") + " of " + Printable(l.Host) }

// HeldFor is for how long another host has had a lock, as far as its clock and this one agree.
func HeldFor(l locking.RemoteLock, now time.Time) time.Duration { return max(now.Sub(l.Since), 0) }

func process(pid uint32, name string) string {
	switch {
	case pid == 0:
		return "a process that is not known"
	case name == "":
		return fmt.Sprintf("pid %d", pid)
	}
	return fmt.Sprintf("pid %d (%s)", pid, Printable(name))
}

func wait(n int) string {
	if n == 1 {
		return "1 request waits"
	}
	return fmt.Sprintf("%d requests wait", n)
}

func count(n uint64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func were(n uint64, noun string) string {
	if n == 1 {
		return "1 " + noun + " was"
	}
	return fmt.Sprintf("%d %ss were", n, noun)
}

func because(err string) string {
	if err == "" {
		return ""
	}
	return ": " + Printable(err)
}

func since(t *time.Time, now time.Time) string {
	if t == nil {
		return ""
	}
	return " for " + ago(*t, now)
}

func lately(t *time.Time, now time.Time) bool { return t != nil && now.Sub(*t) < recently }

func ago(t, now time.Time) string { return Age(max(now.Sub(t), 0)) }

// Age is a duration for people, in two units at most: 350ms, 4.2s, 3m20s, 5h12m, 3d4h.
func Age(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Minute:
		return d.Round(time.Second).String()
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}

// Printable makes a text fit for a terminal, a column for each byte: what others have chosen (names of processes, of
// hosts) may hold control bytes.
func Printable(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return '?'
		}
		return c
	}, s)
}

// Protection is how the connections to a server are protected, as it stands behind their protocol.
func Protection(s sessfs.ServerStatus) (text string) {
	if s.TLS != "" {
		text += ", TLS " + s.TLS
	}
	if s.Login != "" {
		text += ", login"
	}
	return text
}

// Trouble is what is not well with a server beside being down, as it stands behind its state.
func Trouble(s sessfs.ServerStatus) (text string) {
	switch {
	case s.ToMend > 0:
		text += fmt.Sprintf(", %d to mend", s.ToMend)
	case s.ToMend < 0:
		text += ", to be mended"
	}
	if s.Young {
		text += ", just started"
	}
	if s.Leaving {
		text += ", leaving"
	}
	return text
}
