package top

import (
	"fmt"
	"strconv"
	"time"

	"sessfs/internal/hist"
	"sessfs/internal/status"
)

// span is what lies between two reports of one daemon.
type span struct {
	last, before *status.Report // before is nil where there is none of the same daemon
	seconds      float64
}

func between(last, before *status.Report) span {
	s := span{last: last}
	if before != nil && before.PID == last.PID && before.Started.Equal(last.Started) && last.Uptime > before.Uptime {
		s.before, s.seconds = before, (last.Uptime - before.Uptime).Seconds()
	}
	return s
}

// rate is by how much in a second a count has grown; "-" where that is not known.
func (s span) rate(count func(*status.Report) uint64) string {
	if s.before == nil {
		return "-"
	}
	now, was := count(s.last), count(s.before)
	if now < was { // a server that was restarted
		return "-"
	}
	return perSecond(float64(now-was) / s.seconds)
}

// grown is by how much a count has grown; 0 where that is not known.
func (s span) grown(count func(*status.Report) uint64) uint64 {
	if s.before == nil {
		return 0
	}
	return count(s.last) - min(count(s.before), count(s.last))
}

// times are the durations that were counted meanwhile.
func (s span) times(of func(*status.Report) hist.Snapshot) hist.Snapshot {
	if s.before == nil {
		return hist.Snapshot{}
	}
	return of(s.last).Sub(of(s.before))
}

func perSecond(r float64) string {
	switch {
	case r < 99.95:
		return strconv.FormatFloat(r, 'f', 1, 64)
	case r < 99_999.5:
		return strconv.FormatFloat(r, 'f', 0, 64)
	}
	return strconv.FormatFloat(r/1000, 'f', 0, 64) + "k"
}

// quantile is one of some durations; "-" where there are none.
func quantile(h hist.Snapshot, q float64) string {
	if h.Count == 0 {
		return "-"
	}
	return short(h.Quantile(q))
}

// short is a duration in six columns at most.
func short(d time.Duration) string {
	switch {
	case d < 999500*time.Nanosecond:
		return fmt.Sprintf("%dus", (d + 500).Microseconds())
	case d < 9950*time.Microsecond:
		return fmt.Sprintf("%.1fms", d.Seconds()*1e3)
	case d < 999500*time.Microsecond:
		return fmt.Sprintf("%.0fms", d.Seconds()*1e3)
	}
	return status.Age(d)
}

func number[T ~int | ~int64 | ~uint32 | ~uint64](n T) string { return fmt.Sprint(n) }

// bytesOf is used and there being in all, in one unit.
func bytesOf(used, all uint64) string {
	unit, shift := "M", 20
	if all >= 10<<30 {
		unit, shift = "G", 30
	}
	share := uint64(0)
	if all > 0 {
		share = 100 * used / all
	}
	return fmt.Sprintf("%d/%d%s %d%%", used>>shift, all>>shift, unit, share)
}
