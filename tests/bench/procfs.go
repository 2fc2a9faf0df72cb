package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// stat is a part of /proc/PID/stat.
type stat struct {
	pid, parent  int
	name         string
	user, system int64 // microseconds
}

// A tick of /proc is 10 ms on every Linux that Go runs on; the kernel counts finer and rounds here.
const tickMicros = 10_000

func parseStat(b []byte) (s stat, err error) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return s, fmt.Errorf("no stat line: %q", b)
	}
	f := strings.Fields(string(b[end+1:]))
	if len(f) < 13 {
		return s, fmt.Errorf("a stat line of %d fields", len(f))
	}
	s.name = string(b[open+1 : end])
	var numbers [4]int64
	for i, text := range []string{string(bytes.TrimSpace(b[:open])), f[1], f[11], f[12]} {
		if numbers[i], err = strconv.ParseInt(text, 10, 64); err != nil {
			return s, err
		}
	}
	s.pid, s.parent = int(numbers[0]), int(numbers[1])
	s.user, s.system = numbers[2]*tickMicros, numbers[3]*tickMicros
	return s, nil
}

// cpuTime is user and system time in microseconds.
type cpuTime struct {
	User   float64 `json:"user"`
	System float64 `json:"system"`
}

func (c cpuTime) plus(d cpuTime) cpuTime  { return cpuTime{c.User + d.User, c.System + d.System} }
func (c cpuTime) minus(d cpuTime) cpuTime { return cpuTime{c.User - d.User, c.System - d.System} }
func (c cpuTime) over(n float64) cpuTime  { return cpuTime{c.User / n, c.System / n} }

// cpuOf adds up what processes have used so far.
func cpuOf(pids []int) (sum cpuTime, err error) {
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return sum, err
		}
		s, err := parseStat(b)
		if err != nil {
			return sum, err
		}
		sum = sum.plus(cpuTime{float64(s.user), float64(s.system)})
	}
	return sum, nil
}

// memoryOf reads a line such as VmRSS of /proc/PID/status, in bytes.
func memoryOf(pid int, line string) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	return parseMemory(b, line)
}

func parseMemory(status []byte, line string) (int64, error) {
	for l := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(l, line+":"); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("no line %s in /proc/PID/status", line)
}
