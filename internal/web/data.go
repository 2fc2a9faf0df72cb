package web

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"sessfs"
	"sessfs/locking"
)

// data is what the template shows.
type data struct {
	Host, Mountpoint, Version, Up string
	State                         state
	Tiles                         []tile
	Charts                        []drawn
	Servers                       []serverRow
	Operations                    []operationRow
	Locks                         []lockRow
	Time, Machine                 string
}

// Classes of what is shown: they give it its colour.
const (
	good = "good"
	warn = "warn"
	bad  = "bad"
)

type state struct{ Class, Text, Reason string }

type tile struct{ Label, Value, Note, Class string }

type serverRow struct {
	Name, Address, Class, State, Version, Items, Memory, Evicted, EvictedClass, Failures, Rate, Median, Most string
	Up                                                                                                       bool
	Used                                                                                                     int // per cent
}

type operationRow struct{ Name, Rate, Median, Most, All string }

type lockRow struct {
	PID              uint32
	Kind, For, Class string
}

func (s Source) data(now totals) data {
	samples, since := s.History.view(now)
	d := data{Host: s.Host, Mountpoint: now.Mountpoint, Version: now.Version, Up: span(now.at.Sub(now.Started)), State: state{good, "Ready", ""},
		Servers: serverRows(since, now), Operations: operationRows(since, now), Locks: lockRows(s.Locks(maxLocks)),
		Time: now.at.Format("2006-01-02 15:04:05 MST"), Machine: now.at.Format(time.RFC3339)}
	if now.NotReady != nil {
		d.State = state{bad, "Not ready", now.NotReady.Error()}
	}
	d.Tiles = tiles(since, now)
	for _, c := range charts {
		d.Charts = append(d.Charts, c.draw(samples, now.at))
	}
	return d
}

func tiles(since, now totals) []tile {
	rates := between(since, now)
	value := func(of series, unit func(float64) string) string { return unit(float64(rates.values[of])) }
	v := rates.values
	list := []tile{
		{"Sessions started", value(started, number) + " /s", value(stored, number) + " /s stored", ""},
		{"Time to open", value(openMost, seconds), "99 %; median " + value(openHalf, seconds), ""},
		{"Time to store", value(storeMost, seconds), "99 %; median " + value(storeHalf, seconds), ""},
		{"Waiting for locks", value(waiting, number), fmt.Sprintf("%s held; the oldest wait %s", value(held, number), seconds(now.OldestWait.Seconds())), classOf(now.OldestWait > 5*time.Second, warn)},
		{"Open", number(float64(now.Files.OpenFiles)), fmt.Sprintf("files, of %d sessions", now.Files.OpenSessions), ""},
		{"Failures", value(failed, number) + " /min", fmt.Sprintf("%d since the start", now.Files.Errors), classOf(v[failed] > 0, bad)},
		{"Lost", number(float64(lostSessions(now))), "changes or sessions since the start", classOf(lostSessions(now) > 0, bad)},
	}
	if len(now.Servers) > 0 {
		named := now.NamedServers()
		text := fmt.Sprintf("%d of %d", len(named)-int(v[down]), len(named))
		list = append(list, tile{"Cache servers up", text, fmt.Sprintf("%d copies of each session", now.Copies.Replicas), classOf(v[down] > 0, bad)})
	}
	return list
}

func classOf(is bool, class string) string {
	if is {
		return class
	}
	return ""
}

func serverRows(since, now totals) (rows []serverRow) {
	for _, s := range now.NamedServers() {
		trips := now.RoundTrips[s.Name].Sub(since.RoundTrips[s.Name])
		r := serverRow{Name: s.Name, Version: s.Version, Up: s.Up, Failures: number(float64(s.Failures)), Rate: rate(trips.Count, since, now),
			Median: seconds(float64(quantile(trips, 0.5))), Most: seconds(float64(quantile(trips, 0.99)))}
		if s.Address != s.Name {
			r.Address = s.Address
		}
		r.Class, r.State = serverState(s, now.at)
		if s.Up {
			r.Items, r.Memory, r.Used = number(float64(s.Items)), bytesOf(s.Bytes)+" of "+bytesOf(s.LimitBytes), int(100*share(s.Bytes, s.LimitBytes))
			r.Evicted, r.EvictedClass = number(float64(s.Evictions)), classOf(s.Evictions > 0, warn)
		}
		rows = append(rows, r)
	}
	return rows
}

// serverState is a server's state in words. The reason of a failure is left out: it may name more than is for everybody.
func serverState(s sessfs.ServerStatus, now time.Time) (class, text string) {
	class, text = good, "up"
	if !s.Up {
		class, text = bad, "down"
		if s.DownSince != nil {
			text += " for " + span(now.Sub(*s.DownSince))
		}
	}
	var more []string
	switch {
	case s.ToMend > 0:
		more = append(more, fmt.Sprintf("%d to mend", s.ToMend))
	case s.ToMend < 0:
		more = append(more, "to be mended")
	}
	if s.Young {
		more = append(more, "just started")
	}
	if s.Leaving {
		more = append(more, "leaving")
	}
	if len(more) > 0 && s.Up {
		class = warn
	}
	return class, strings.Join(append([]string{text}, more...), ", ")
}

func rate(n uint64, since, now totals) string {
	s := now.at.Sub(since.at).Seconds()
	if s <= 0 {
		return "–"
	}
	return number(float64(n)/s) + " /s"
}

func operationRows(since, now totals) (rows []operationRow) {
	names := make([]string, 0, len(now.Files.Operations))
	for name := range now.Files.Operations {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(now.Files.Operations[b], now.Files.Operations[a]), cmp.Compare(a, b))
	})
	for _, name := range names {
		times := now.Files.Latency[name].Sub(since.Files.Latency[name])
		n := now.Files.Operations[name]
		rows = append(rows, operationRow{name, rate(n-min(n, since.Files.Operations[name]), since, now), seconds(float64(quantile(times, 0.5))),
			seconds(float64(quantile(times, 0.99))), number(float64(n))})
	}
	return rows
}

const (
	maxLocks   = 1000 // that are looked at
	shownLocks = 12
	longLock   = 30 * time.Second // held for longer is pointed at
)

func lockRows(locks []locking.Lock) (rows []lockRow) {
	slices.SortFunc(locks, func(a, b locking.Lock) int { return cmp.Compare(b.For, a.For) })
	for _, l := range locks[:min(len(locks), shownLocks)] {
		kind := l.Kind
		if l.Waiting {
			kind += ", waiting"
		}
		rows = append(rows, lockRow{l.PID, kind, seconds(math.Max(0, l.For.Seconds())), classOf(l.For > longLock, warn)})
	}
	return rows
}
