package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// tool is a program or an extension of PHP that a candidate needs.
type tool struct {
	program    string   // in PATH, or
	extensions []string // of PHP, in the order of loading
	pkg        string   // Debian's package
}

func (t tool) name() string {
	if t.program != "" {
		return t.program
	}
	return "PHP's extension " + t.extensions[len(t.extensions)-1]
}

var (
	toolPHP          = program("php", "php-cli")
	toolMemcached    = program("memcached", "memcached")
	toolRedis        = program("redis-server", "redis-server")
	toolStrace       = program("strace", "strace")
	toolPHPMemcached = extension("php-memcached", "igbinary", "msgpack", "memcached")
	toolPHPMemcache  = extension("php-memcache", "memcache")
	toolPHPRedis     = extension("php-redis", "igbinary", "redis")
)

func program(name, pkg string) *tool              { return &tool{program: name, pkg: pkg} }
func extension(pkg string, names ...string) *tool { return &tool{extensions: names, pkg: pkg} }

// php runs code without the machine's settings.
func php(ctx context.Context, extensions []string, code string) (string, error) {
	args := []string{"-n", "-d", "display_errors=stderr"}
	for _, e := range extensions {
		args = append(args, "-d", "extension="+e+".so")
	}
	out, err := exec.CommandContext(ctx, "php", append(args, "-r", code)...).Output()
	return strings.TrimSpace(string(out)), err
}

// missing names the tools that are not there, with their packages.
func missing(ctx context.Context, tools []*tool) (lines []string) {
	for _, t := range tools {
		ok := true
		if t.program != "" {
			_, err := exec.LookPath(t.program)
			ok = err == nil
		} else {
			out, err := php(ctx, t.extensions, fmt.Sprintf("echo extension_loaded('%s') ? 'yes' : 'no';", t.extensions[len(t.extensions)-1]))
			ok = err == nil && out == "yes"
		}
		if !ok {
			lines = append(lines, fmt.Sprintf("%s is missing (apt-get install %s)", t.name(), t.pkg))
		}
	}
	return lines
}

// fact is a line about the machine or a version.
type fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// facts are the machine and the versions of what is measured.
func facts(ctx context.Context, l *lab, bins []*binary, tools []*tool) (all []fact) {
	add := func(name, value string) { all = append(all, fact{name, value}) }
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		add("kernel", unix.ByteSliceToString(u.Sysname[:])+" "+unix.ByteSliceToString(u.Release[:])+" "+unix.ByteSliceToString(u.Machine[:]))
	}
	add("CPU", fmt.Sprintf("%s, %d cores", cpuModel(), runtime.NumCPU()))
	add("memory", fmt.Sprintf("%d MiB", totalMemory()>>20))
	// Where the clock needs a system call, as on some virtual machines, every look at it costs one.
	if b, err := os.ReadFile("/sys/devices/system/clocksource/clocksource0/current_clocksource"); err == nil {
		add("clock", strings.TrimSpace(string(b)))
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		add("load before", strings.Join(strings.Fields(string(b))[:3], " "))
	}
	add("disk", l.fs)
	for _, b := range bins {
		add("sessfs "+b.name, b.version+" ("+b.path+")")
	}
	if v, err := php(ctx, nil, "echo PHP_VERSION;"); err == nil {
		add("PHP", v)
	}
	for _, t := range tools {
		switch {
		case len(t.extensions) > 0:
			name := t.extensions[len(t.extensions)-1]
			if v, err := php(ctx, t.extensions, "echo phpversion('"+name+"');"); err == nil {
				add(t.pkg, v)
			}
		case t == toolMemcached || t == toolRedis:
			if out, err := exec.CommandContext(ctx, t.program, "--version").Output(); err == nil {
				add(t.program, strings.TrimSpace(string(out)))
			}
		}
	}
	return all
}

func cpuModel() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

func totalMemory() int64 {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	n, _ := parseMemory(b, "MemTotal")
	return n
}

// toolsOf are those that candidates need, each once.
func toolsOf(candidates []*candidate) []*tool {
	all := []*tool{toolPHP}
	for _, c := range candidates {
		for _, t := range c.needs {
			if !slices.Contains(all, t) {
				all = append(all, t)
			}
		}
	}
	return all
}
