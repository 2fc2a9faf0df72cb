package doctor

import (
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"sessfs/fusefs"
)

// checkPHP compares what PHP is told with what is mounted.
func checkPHP(f *Facts) (all []Finding) {
	if len(f.PHP) == 0 {
		return []Finding{{Code: "php-none", Severity: Note, Subject: "PHP", What: "was not found in the places where distributions keep its settings",
			Why: "whether it keeps its sessions in the mount could not be looked at", Do: "look at phpinfo(): session.save_handler and session.save_path"}}
	}
	for _, p := range f.PHP {
		found := checkHandler(f, p)
		if len(found) == 0 { // else the rest is of sessions that are elsewhere
			found = append(checkLifetime(f, p), checkHabits(f, p)...)
		}
		all = append(all, found...)
	}
	if !slices.ContainsFunc(f.Config.Files, func(p string) bool { return fusefs.Matches(p, "sess_0123456789abcdef") }) {
		all = append(all, f.inConfig(Finding{Code: "php-file-names", Severity: Error, Subject: "PHP",
			What: "names its files sess_<id>, which none of the patterns in files allows: " + strings.Join(f.Config.Files, ", "),
			Why:  "session_start() fails"}, "files", `["sess_*"]`))
	}
	return all
}

// less takes what is found with the command line one level less seriously: few visitors come to it.
func less(p PHP, s Severity) Severity {
	if p.SAPI == "cli" && s < Note {
		return s + 1
	}
	return s
}

// checkHandler tells where sessions are kept that are not in the mount.
func checkHandler(f *Facts, p PHP) []Finding {
	if h := p.value("save_handler"); h != "files" {
		return []Finding{p.change(Finding{Code: "php-save-handler", Severity: less(p, Error), Subject: p.Name,
			What: fmt.Sprintf("keeps its sessions by the handler %q, not in files", h),
			Why:  "they do not come to the mount: sessfs has no part in them"}, "save_handler", "files")}
	}
	depth, dir := p.savePath()
	want := f.Mountpoint
	if f.Config.Depth > 0 {
		want = fmt.Sprintf("%d;%s", f.Config.Depth, want)
	}
	if inside := strings.TrimPrefix(f.Mountpoint, p.Chroot); p.Chroot != "" && inside != f.Mountpoint {
		want = strings.Replace(want, f.Mountpoint, path.Join("/", inside), 1)
	}
	switch raw := p.value("save_path"); {
	case !sameDir(dir, f.Mountpoint):
		what := fmt.Sprintf("keeps its sessions in %s, not in the mount at %s", dir, f.Mountpoint)
		if p.Chroot != "" {
			what += " (its chroot is " + p.Chroot + ")"
		}
		if _, err := strconv.Atoi(raw); err == nil {
			what += "; a value with ';' must stand in quotes"
		}
		return []Finding{p.change(Finding{Code: "php-save-path", Severity: less(p, Error), Subject: p.Name, What: what,
			Why: "they stay on this host: visitors who come to another one are logged out"}, "save_path", want)}
	case depth != int64(f.Config.Depth):
		return []Finding{p.change(Finding{Code: "php-depth", Severity: less(p, Error), Subject: p.Name,
			What: fmt.Sprintf("looks for sessions %s of directories deep (session.save_path = %q), and the mount has %d (depth in %s)",
				quantity(int(depth), "level"), raw, f.Config.Depth, orDefaults(f.ConfigFile)),
			Why: "the directories that it looks in are not there: session_start() fails"}, "save_path", want)}
	}
	return nil
}

func orDefaults(file string) string {
	if file == "" {
		return "the defaults"
	}
	return file
}

// sameDir follows links: /var/lib/php5 may be one.
func sameDir(a, b string) bool {
	if filepath.Clean(a) == filepath.Clean(b) {
		return true
	}
	if a == "" || !filepath.IsAbs(a) {
		return false
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(filepath.Clean(a))) // what is mounted there is not touched: it may hang
	return err == nil && filepath.Join(dir, filepath.Base(a)) == filepath.Clean(b)
}

// maxSeconds is the longest time in seconds that is a duration.
const maxSeconds = int64(1<<63-1) / int64(time.Second)

func checkLifetime(f *Facts, p PHP) []Finding {
	life := time.Duration(min(max(p.number("gc_maxlifetime"), 0), maxSeconds)) * time.Second
	ours := f.Config.Session.Lifetime
	where := ""
	if s := p.Settings["session.gc_maxlifetime"]; s.File != "" {
		where = fmt.Sprintf(" (%s:%d)", s.File, s.Line)
	}
	switch {
	case life > ours:
		return []Finding{f.inConfig(Finding{Code: "php-lifetime", Severity: less(p, Error), Subject: p.Name,
			What: fmt.Sprintf("promises sessions of %s, session.gc_maxlifetime%s, and session.lifetime is %s", short(life), where, short(ours)),
			Why:  "the cache servers forget sessions that are still to live: visitors are logged out early",
			Do:   "save it on all hosts; it holds at once"}, "session.lifetime", short(life))}
	case life < ours:
		return []Finding{f.inConfig(Finding{Code: "php-lifetime-shorter", Severity: Note, Subject: p.Name,
			What: fmt.Sprintf("lets sessions end after %s, session.gc_maxlifetime%s, and session.lifetime is %s", short(life), where, short(ours)),
			Why:  "PHP's garbage collection and Debian's cleaner delete by the shorter one; what they leave takes memory for longer than it is needed"},
			"session.lifetime", short(life))}
	}
	return nil
}

// short is a duration as a configuration has it.
func short(d time.Duration) string {
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}} {
		if d >= u.unit && d%u.unit == 0 {
			return fmt.Sprintf("%d%s", d/u.unit, u.name)
		}
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

// checkHabits is what costs time, or is not as it could be.
func checkHabits(f *Facts, p PHP) (all []Finding) {
	if p.number("gc_probability") > 0 && f.Config.Depth == 0 { // with directories below PHP collects nothing
		g := Finding{Code: "php-gc", Severity: Note, Subject: p.Name,
			What: fmt.Sprintf("lists all sessions of all hosts in %d of %d requests (session.gc_probability, gc_divisor)", p.number("gc_probability"), p.number("gc_divisor")),
			Why:  "sessions end by themselves on the cache servers: it only makes one visitor wait, while the session is locked"}
		if f.Config.Directory.Mode&0o044 == 0 && p.SAPI != "cli" {
			g.Severity = Warning
			g.What = fmt.Sprintf("tries to list the sessions in %d of %d requests (session.gc_probability, gc_divisor), which directory.mode %04o does not let it",
				p.number("gc_probability"), p.number("gc_divisor"), f.Config.Directory.Mode)
			g.Why = "these requests end with a notice of PHP, \"ps_files_cleanup_dir: opendir(…) failed: Permission denied\"; sessions end by themselves on the cache servers"
		}
		all = append(all, p.change(g, "gc_probability", "0"))
	}
	if !p.is("lazy_write") {
		all = append(all, p.change(Finding{Code: "php-lazy-write", Severity: Note, Subject: p.Name,
			What: "writes every session in every request (session.lazy_write is off)",
			Why:  "each write waits for the network; with lazy_write an unchanged session is only touched"}, "lazy_write", "1"))
	}
	if !p.is("use_strict_mode") && p.SAPI != "cli" {
		all = append(all, p.change(Finding{Code: "php-strict-mode", Severity: Note, Subject: p.Name,
			What: "takes any session id that a visitor brings (session.use_strict_mode is off)",
			Why:  "it makes session fixation easier; with it a forged id costs one question to the cache servers"}, "use_strict_mode", "1"))
	}
	return all
}
