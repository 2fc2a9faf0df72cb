package config

import (
	"errors"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const day = 24 * time.Hour

var (
	number   = regexp.MustCompile(`^[-+]?[0-9][0-9_]*(\.[0-9]*)?$`)
	days     = regexp.MustCompile(`^([0-9]+)d(.*)$`)
	quantity = regexp.MustCompile(`^([0-9]+) ?([A-Za-z]*)$`)
)

var (
	errNoUnit   = errors.New("a unit is missing")
	errUnit     = errors.New("unknown unit")
	errOverflow = errors.New("too large")
)

// parseDuration reads Go's syntax with days before it: "24m", "1h30m", "250ms", "7d", "1d12h".
func parseDuration(s string) (time.Duration, error) {
	if number.MatchString(s) {
		return 0, errNoUnit // Go takes "0"
	}
	var whole time.Duration
	if m := days.FindStringSubmatch(s); m != nil {
		n, err := strconv.ParseInt(m[1], 10, 64)
		if err != nil || n > int64(math.MaxInt64/day) {
			return 0, errOverflow
		}
		if whole, s = time.Duration(n)*day, m[2]; s == "" {
			return whole, nil
		}
		if s[0] == '-' || s[0] == '+' || number.MatchString(s) {
			return 0, errUnit
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, errUnit
	}
	if d > 0 && whole > math.MaxInt64-d {
		return 0, errOverflow
	}
	return whole + d, nil
}

// formatDuration writes what parseDuration reads, without needless zeros.
func formatDuration(d time.Duration) string {
	if d > 0 && d%day == 0 && d > 2*day {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

var units = map[string]int64{
	"": 1, "B": 1,
	"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
	"kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
}

// parseSize reads a number of bytes: "1048576", "500KiB", "16MB".
func parseSize(s string) (int64, error) {
	m := quantity.FindStringSubmatch(s)
	if m == nil {
		return 0, errUnit
	}
	unit, ok := units[m[2]]
	if !ok {
		return 0, errUnit
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil || n > math.MaxInt64/unit {
		return 0, errOverflow
	}
	return n * unit, nil
}

// binaryUnit is what was probably meant by 16M, 16m, 16mib or 16Mb, or "".
func binaryUnit(s string) string {
	m := quantity.FindStringSubmatch(s)
	if m == nil || m[2] == "" {
		return ""
	}
	switch unit := strings.ToLower(m[2]); unit {
	case "k", "m", "g", "kb", "mb", "gb", "kib", "mib", "gib":
		return m[1] + strings.ToUpper(unit[:1]) + "iB"
	}
	return ""
}

// formatSize writes what parseSize reads.
func formatSize(n int64) string {
	for _, unit := range []string{"GiB", "MiB", "KiB"} {
		if n > 0 && n%units[unit] == 0 {
			return strconv.FormatInt(n/units[unit], 10) + unit
		}
	}
	return strconv.FormatInt(n, 10)
}
