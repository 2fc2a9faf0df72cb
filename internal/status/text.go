package status

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"sessfs/backend"
)

// Print writes the report for people: first what is not well, or that all is, then the figures as of now.
func (r *Report) Print(out io.Writer, now time.Time) error {
	if err := r.printProblems(out, now); err != nil {
		return err
	}
	w := table(out)
	fmt.Fprintf(w, "mount point\t%s\n", r.Mountpoint)
	former := ""
	if r.Daemons > 1 {
		former = fmt.Sprintf(", number %d of this mount", r.Daemons)
	}
	fmt.Fprintf(w, "daemon\tpid %d, version %s, up %v%s\n", r.PID, r.Version, now.Sub(r.Started).Round(time.Second), former)
	if r.Config != "" {
		fmt.Fprintf(w, "configuration\t%s\n", r.Config)
	}
	fmt.Fprintf(w, "store\t%s\n", r.Store)
	if len(r.Hosts) > 0 {
		fmt.Fprintf(w, "hosts\t%s\n", hostsText(r.Hosts))
	}
	fmt.Fprintf(w, "open\t%d files of %d sessions\n", r.Files.OpenFiles, r.Files.OpenSessions)
	l := r.Locking
	fmt.Fprintf(w, "locks\t%d held, %d kept, %d waiting; so far %d waits, the longest %v, %d lost\n", l.Leases-l.Kept, l.Kept, l.Waiting, l.Waits, l.LongestWait.Round(time.Millisecond), l.LocksLost)
	fmt.Fprintf(w, "stores\t%d done, %d refused (changed by somebody else), %d too large, %d lost after close\n", l.Commits, l.Conflicts, r.Files.TooLarge, r.Files.LostStores)
	fmt.Fprintf(w, "failures\t%d operations\n", r.Files.Errors)
	if c := r.Copies; c != nil && (c.Replicas > 1 || c.Lists > 1) {
		fmt.Fprintf(w, "copies\t%d of each session; %d mended, %d locks with a stand-in for a server that was down, %d refused changes put back, %d reads of lost sessions\n",
			c.Replicas, c.Mended, c.StandIns, c.PutBack, c.Lost)
		if c.Lists > 1 {
			fmt.Fprintf(w, "lists\t%d: sessions are looked for by the lists of the last lifetime, too (sessfs rebalance)\n", c.Lists)
		}
	}
	if c := r.Cache; c != nil && c.Sessions > 0 {
		fmt.Fprintf(w, "in memory\t%d large sessions, %.1f MiB; so far %d were asked for by their version: %d had not changed, %d had\n", c.Sessions, float64(c.Bytes)/(1<<20), c.Current+c.Changed, c.Current, c.Changed)
	}
	if r.Seals != nil && len(r.Seals.Keys) > 0 {
		fmt.Fprintf(w, "sealed\t%s\n", sealsText(r.Seals))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := r.printServers(out, now); err != nil {
		return err
	}
	return r.printLocks(out, now)
}

func sealsText(s *backend.Seals) string {
	var names []string
	for _, name := range s.Keys {
		names = append(names, Printable(name))
	}
	text := "with " + names[0]
	if more := names[1:]; len(more) > 0 {
		text += "; " + strings.Join(more, ", ") + " open, too"
	}
	switch {
	case s.WritePlain:
		text = "not yet (seal.write_plain); keys: " + strings.Join(names, ", ")
	case s.AcceptPlain:
		text += "; what is not sealed is read, too (seal.accept_plain)"
	}
	return text
}

func table(out io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(out, 0, 8, 2, ' ', 0) }

func (r *Report) printProblems(out io.Writer, now time.Time) error {
	list := r.Problems(now)
	if len(list) == 0 {
		_, err := fmt.Fprintf(out, "all well: %s\n\n", r.summary())
		return err
	}
	for _, p := range list {
		if _, err := fmt.Fprintf(out, "PROBLEM: %s\n     do: %s\n", p.What, p.Do); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(out)
	return err
}

func (r *Report) summary() string {
	text := fmt.Sprintf("%s open, nobody waits for long", count(uint64(r.Files.OpenSessions), "session"))
	if r.Store == "embedded" {
		return text
	}
	return fmt.Sprintf("%s up, %s", count(uint64(len(r.Servers)), "cache server"), text)
}

func (r *Report) printServers(out io.Writer, now time.Time) error {
	if len(r.Servers) == 0 {
		return nil
	}
	fmt.Fprintln(out)
	w := table(out)
	fmt.Fprintln(w, "SERVER\tADDRESS\tSTATE\tVERSION\tSESSIONS\tMEMORY\tEVICTIONS\tFAILURES")
	for _, s := range r.Servers {
		state := "up (" + s.Protocol + Protection(s) + ")"
		if !s.Up {
			state = "DOWN"
			if s.DownSince != nil {
				state += " for " + now.Sub(*s.DownSince).Round(time.Second).String()
			}
		}
		state += Trouble(s)
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d of %d MiB\t%d\t%d\n", s.Name, s.Address, state, s.Version, s.Items, s.Bytes>>20, s.LimitBytes>>20, s.Evictions, s.Failures)
	}
	return w.Flush()
}

func (r *Report) printLocks(out io.Writer, now time.Time) error {
	if len(r.Locks) == 0 {
		return nil
	}
	fmt.Fprintln(out)
	w := table(out)
	fmt.Fprintln(w, "SESSION\tPID\tLOCK\tFOR")
	for _, l := range r.Locks {
		kind := l.Kind
		if l.Waiting {
			kind += ", waiting"
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%v\n", l.Session, l.PID, kind, l.For.Round(time.Millisecond))
	}
	for _, l := range r.Contention.Elsewhere {
		fmt.Fprintf(w, "%s\t%d\tof %s, waited for\t%v\n", l.Session, l.PID, Printable(l.Host), HeldFor(l, now).Round(time.Millisecond))
	}
	return w.Flush()
}

// hostsText counts the hosts with the same sessions, by prefix where there are others.
func hostsText(hosts []backend.HostRecord) string {
	count := make(map[string]int)
	for _, h := range hosts {
		count[h.Prefix]++
	}
	var parts []string
	for _, prefix := range slices.Sorted(maps.Keys(count)) {
		parts = append(parts, fmt.Sprintf("%d with prefix %s", count[prefix], prefix))
	}
	return strings.Join(parts, ", ")
}
