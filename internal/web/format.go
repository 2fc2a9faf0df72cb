package web

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// number is a count or a rate, with three digits that count.
func number(v float64) string {
	switch {
	case math.IsNaN(v):
		return "–"
	case v == 0:
		return "0"
	case v >= 10e6:
		return digits(v/1e6) + " M"
	case v >= 10e3:
		return digits(v/1e3) + " k"
	default:
		return digits(v)
	}
}

// digits is v, rounded to three digits that count but not to less than one.
func digits(v float64) string {
	after := 0
	switch {
	case v < 1:
		after = 2
	case v < 100 && v != math.Trunc(v):
		after = 1
	}
	s := strconv.FormatFloat(v, 'f', after, 64)
	return s
}

// seconds is a duration in the unit that fits.
func seconds(v float64) string {
	switch {
	case math.IsNaN(v):
		return "–"
	case v == 0:
		return "0"
	case v < 1e-3:
		return digits(math.Round(v*1e6)) + " µs"
	case v < 1:
		return digits(v*1e3) + " ms"
	case v < 120:
		return digits(v) + " s"
	default:
		return span(time.Duration(v * float64(time.Second)))
	}
}

func percent(v float64) string { return strconv.FormatFloat(v, 'f', 0, 64) + " %" }

// span is a longer time in its two largest units.
func span(d time.Duration) string {
	switch d = d.Round(time.Second); {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d d %d h", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%d h %d min", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%d min %d s", d/time.Minute, d%time.Minute/time.Second)
	default:
		return fmt.Sprintf("%d s", d/time.Second)
	}
}

// bytesOf is a size.
func bytesOf(n uint64) string {
	for _, u := range []struct {
		shift uint
		name  string
	}{{40, "TiB"}, {30, "GiB"}, {20, "MiB"}, {10, "KiB"}} {
		if n >= 1<<u.shift {
			return digits(float64(n)/float64(uint64(1)<<u.shift)) + " " + u.name
		}
	}
	return fmt.Sprintf("%d B", n)
}
