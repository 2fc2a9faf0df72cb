// Package doctor looks at everything that sessions on a host depend on, and tells what is wrong, why that matters, and
// which line to change: PHP's settings, the mount, the cache servers, the other hosts, the system.
//
// One file a subject. Each has two halves: gathering reads files, processes and servers into Facts and judges nothing;
// checking judges Facts and touches nothing, so that each finding can be tried without a machine that is wrong in that
// way. What each code means, and its cure, stands in docs/doctor.md.
package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"sessfs/backend"
	"sessfs/config"
)

// Severity orders findings.
type Severity int

// From the gravest.
const (
	Error   Severity = iota // sessions are lost, not shared, or fail
	Warning                 // they may be, under circumstances; or something is not as it was meant
	Note                    // worth to know; shown on request
)

var severities = []string{"error", "warning", "note"}

func (s Severity) String() string { return severities[s] }

// MarshalText makes it a word in JSON.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText is the way back.
func (s *Severity) UnmarshalText(b []byte) error {
	i := slices.Index(severities, string(b))
	if i < 0 {
		return fmt.Errorf("%q is no severity", b)
	}
	*s = Severity(i)
	return nil
}

// Finding is one thing that is not as it should be. Its JSON is a contract: fields are only ever added.
type Finding struct {
	Code     string   `json:"code"` // as in docs/doctor.md; never changes its meaning
	Severity Severity `json:"severity"`
	Subject  string   `json:"subject"` // what has it: a pool of PHP, a cache server, a host
	What     string   `json:"what"`    // goes on after the subject
	Why      string   `json:"why"`
	File     string   `json:"file,omitempty"` // where to change what
	Line     int      `json:"line,omitempty"` // 0: the line is to be added
	Old      string   `json:"old,omitempty"`  // the line as it is
	New      string   `json:"new,omitempty"`  // and as it should be
	Do       string   `json:"do,omitempty"`   // a command, or what else is to be done
}

// Facts is what the checks judge.
type Facts struct {
	Config     *config.Config
	ConfigFile string // "": none, the defaults
	Lines      Lines  // of the configuration file
	Mountpoint string
	Now        time.Time
	Version    string // of this program
	HostID     string // of this host's record on the servers

	PHP     []PHP
	Mount   Mount
	Daemon  Daemon
	Servers []backend.Examination
	System  System
}

// Check judges everything. The gravest findings come first, else they keep the order of the checks.
func Check(f *Facts) []Finding {
	var all []Finding
	for _, check := range []func(*Facts) []Finding{checkMount, checkDaemon, checkPHP, checkServers, checkHosts, checkSystem, checkSecurity} {
		all = append(all, check(f)...)
	}
	all = merge(all)
	slices.SortStableFunc(all, func(a, b Finding) int { return cmp.Compare(a.Severity, b.Severity) })
	return all
}

// merge makes one of findings that differ in their subject alone: pools that have a line of php.ini in common.
func merge(all []Finding) []Finding {
	var out []Finding
	for _, f := range all {
		same := func(g Finding) bool {
			g.Subject = f.Subject
			return g == f
		}
		if i := slices.IndexFunc(out, same); i >= 0 {
			if !slices.Contains(strings.Split(out[i].Subject, ", "), f.Subject) {
				out[i].Subject += ", " + f.Subject
			}
			continue
		}
		out = append(out, f)
	}
	return out
}

// Without leaves out the findings with these codes.
func Without(all []Finding, codes []string) []Finding {
	return slices.DeleteFunc(slices.Clone(all), func(f Finding) bool { return slices.Contains(codes, f.Code) })
}

// quantity is "1 server", "2 servers".
func quantity(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// inConfig completes a finding with the line of the configuration file that has a key, and that line with another value.
func (f *Facts) inConfig(g Finding, key, value string) Finding {
	file := cmp.Or(f.ConfigFile, "/etc/sessfs/config.yaml")
	g.File, g.Line, g.Old = file, f.Lines.of(key).number, strings.TrimSpace(f.Lines.of(key).text)
	g.New = f.Lines.with(key, value)
	return g
}
