package doctor

import (
	"context"
	"maps"
	"os"
	"os/exec"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// PHP is one place where PHP runs with one set of settings: a pool of php-fpm, a site of Apache, the command line.
type PHP struct {
	SAPI     string // "fpm", "apache2" or "cli"
	Name     string // "php-fpm 8.2, pool www"
	User     string // of a pool's processes; "": not known
	Chroot   string // of a pool
	Reload   string // the command that makes a changed file count; "": none is needed
	Settings Settings
	ini      iniFiles
}

// Settings are those of sessions, by name.
type Settings map[string]Setting

// Setting is a value and where it is written.
type Setting struct {
	Value string
	File  string // "": it is PHP's default
	Line  int
	Text  string
	form  string // of a line that sets it, with %k and %v
}

// iniForm is a line of php.ini.
const iniForm = `%k = "%v"`

// iniFiles is php.ini, where settings are added that are not in it.
type iniFiles struct {
	file  string
	lines []string
}

// builtin is what PHP has without any file. Debian's PHP has another save_path: see askPHP.
var builtin = map[string]string{"session.save_handler": "files", "session.save_path": "", "session.gc_maxlifetime": "1440",
	"session.gc_probability": "1", "session.gc_divisor": "100", "session.lazy_write": "1", "session.use_strict_mode": "0"}

// layout is where a distribution has the files of one PHP.
type layout struct {
	version  string // "8.2"; "": there is one PHP
	sapi     string
	ini      string // php.ini
	scan     string // the directory of more of them
	conf     string // of php-fpm
	binaries []string
	service  string
	savePath string // PHP's own default, where no binary can be asked
}

const debianPath = "/var/lib/php/sessions"

var debianDir = regexp.MustCompile(`^/etc/php/([0-9]+\.[0-9]+)/(cli|fpm|apache2)$`)
var scl = regexp.MustCompile(`^/etc/opt/remi/(php[0-9]+)$`)

// layouts finds the PHPs of a tree.
func (t tree) layouts() (list []layout) {
	for _, dir := range t.glob("/etc/php/*/*") {
		m := debianDir.FindStringSubmatch(dir)
		if m == nil {
			continue
		}
		l := layout{version: m[1], sapi: m[2], ini: dir + "/php.ini", scan: dir + "/conf.d", savePath: debianPath,
			binaries: []string{"/usr/bin/php" + m[1]}}
		switch l.sapi {
		case "fpm":
			l.conf, l.service = dir+"/php-fpm.conf", "php"+m[1]+"-fpm"
			l.binaries = []string{"/usr/sbin/php-fpm" + m[1], "/usr/bin/php" + m[1]}
		case "apache2":
			if len(t.glob("/etc/apache2/mods-enabled/php"+m[1]+".load")) == 0 {
				continue // it is there, and not used
			}
			l.conf, l.service = "/etc/apache2/apache2.conf", "apache2"
		}
		list = append(list, l)
	}
	one := func(version, ini, scan, conf, service, bin string) {
		if t.exists(ini) || t.exists(scan) {
			list = append(list, layout{version: version, sapi: "cli", ini: ini, scan: scan, binaries: []string{bin + "/bin/php"}})
		}
		if t.exists(conf) {
			list = append(list, layout{version: version, sapi: "fpm", ini: ini, scan: scan, conf: conf, service: service,
				binaries: []string{bin + "/sbin/php-fpm", bin + "/bin/php"}})
		}
	}
	one("", "/etc/php.ini", "/etc/php.d", "/etc/php-fpm.conf", "php-fpm", "/usr") // RHEL
	one("", "/usr/local/etc/php/php.ini", "/usr/local/etc/php/conf.d", "/usr/local/etc/php-fpm.conf", "", "/usr/local")
	for _, dir := range t.glob("/etc/opt/remi/php*") {
		if m := scl.FindStringSubmatch(dir); m != nil {
			one(m[1], dir+"/php.ini", dir+"/php.d", dir+"/php-fpm.conf", m[1]+"-php-fpm", "/opt/remi/"+m[1]+"/root/usr")
		}
	}
	if t.exists("/etc/httpd/conf/httpd.conf") && len(t.glob("/etc/httpd/modules/*php*.so"))+len(t.glob("/usr/lib64/httpd/modules/*php*.so")) > 0 {
		list = append(list, layout{sapi: "apache2", ini: "/etc/php.ini", scan: "/etc/php.d", conf: "/etc/httpd/conf/httpd.conf", service: "httpd",
			binaries: []string{"/usr/bin/php"}})
	}
	return list
}

// gatherPHP reads the settings of every place where PHP runs.
func gatherPHP(ctx context.Context, t tree) (all []PHP) {
	for _, l := range t.layouts() {
		base := PHP{SAPI: l.sapi, Settings: l.defaults(ctx, t)}
		base.ini = iniFiles{file: t.show(l.ini), lines: strings.Split(t.read(l.ini), "\n")}
		for _, file := range append([]string{l.ini}, t.glob(l.scan+"/*.ini")...) {
			base.Settings.addINI(t, file)
		}
		version := ""
		if l.version != "" {
			version = " " + strings.TrimPrefix(l.version, "php")
		}
		if l.service != "" {
			base.Reload = "systemctl reload " + l.service
		}
		switch l.sapi {
		case "fpm":
			base.Name = "php-fpm" + version
			all = append(all, t.pools(base, l.conf)...)
		case "apache2":
			base.Name = "Apache's PHP" + version
			all = append(all, t.sites(base, l.conf)...)
		default:
			base.Name = "php" + version + " on the command line"
			all = append(all, base)
		}
	}
	return all
}

// addINI takes over what a file says of sessions. [PATH=…] and [HOST=…] are for a part of the pages, and left out.
func (s Settings) addINI(t tree, file string) {
	for _, e := range scanINI(t.read(file), os.Getenv) {
		if _, known := builtin[e.key]; !known || strings.HasPrefix(e.section, "PATH=") || strings.HasPrefix(e.section, "HOST=") {
			continue
		}
		s[e.key] = Setting{Value: e.value, File: t.show(file), Line: e.line, Text: e.text, form: iniForm}
	}
}

// defaults are the settings without any file.
func (l layout) defaults(ctx context.Context, t tree) Settings {
	s := make(Settings)
	for key, value := range builtin {
		s[key] = Setting{Value: value}
	}
	s["session.save_path"] = Setting{Value: l.savePath}
	if t.root != "/" {
		return s // its programs are not run
	}
	for _, bin := range l.binaries {
		if _, err := os.Stat(bin); err == nil {
			for key, value := range askPHP(ctx, bin) {
				s[key] = Setting{Value: value}
			}
			break
		}
	}
	return s
}

// askPHP asks a program for the values that it was built with.
func askPHP(ctx context.Context, bin string) map[string]string {
	ctx, end := context.WithTimeout(ctx, 5*time.Second)
	defer end()
	cmd := exec.CommandContext(ctx, bin, "-n", "-i")
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		return nil
	}
	found := make(map[string]string)
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSpace(line), " => ")
		if _, known := builtin[f[0]]; known && len(f) == 3 {
			found[f[0]] = strings.Replace(f[2], "no value", "", 1)
		}
	}
	return found
}

// with is p with settings of its own.
func (p PHP) with(name string) PHP {
	p.Name = name
	p.Settings = maps.Clone(p.Settings)
	return p
}

// value is a setting's.
func (p PHP) value(key string) string { return p.Settings["session."+key].Value }

// is tells what PHP takes for true.
func (p PHP) is(key string) bool {
	v := strings.ToLower(p.value(key))
	n, _ := strconv.Atoi(v)
	return n != 0 || v == "on" || v == "yes" || v == "true"
}

// number is a value as PHP reads it: a number, with K, M or G behind it.
func (p PHP) number(key string) int64 {
	v := strings.TrimSpace(p.value(key))
	unit := int64(1)
	if v != "" {
		if i := strings.IndexByte("kmg", v[len(v)-1]|0x20); i >= 0 {
			unit, v = 1<<(10*(i+1)), v[:len(v)-1]
		}
	}
	n, _ := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
	return n * unit
}

// savePath takes "N;MODE;/path" apart. The path is as the processes of a pool with a chroot see it, from outside.
func (p PHP) savePath() (depth int64, dir string) {
	parts := strings.Split(p.value("save_path"), ";")
	if len(parts) > 1 {
		depth, _ = strconv.ParseInt(strings.TrimSpace(parts[0]), 10, 64)
	}
	dir = parts[len(parts)-1]
	if dir == "" {
		dir = "/tmp"
	}
	if p.Chroot != "" {
		dir = path.Join(p.Chroot, dir)
	}
	return depth, dir
}

// change completes a finding with the line that sets a key, and that line with another value.
func (p PHP) change(g Finding, key, value string) Finding {
	key = "session." + key
	s := p.Settings[key]
	g.File, g.Line, g.Old, g.Do = s.File, s.Line, s.Text, p.Reload
	form := s.form
	if s.File == "" {
		form, g.File = iniForm, p.ini.file
		for i, line := range p.ini.lines { // where it is commented out
			if name, _, found := strings.Cut(strings.TrimLeft(line, "; \t"), "="); found && strings.TrimSpace(name) == key {
				g.Line, g.Old = i+1, strings.TrimSpace(line)
			}
		}
	}
	g.New = strings.NewReplacer("%k", key, "%v", value).Replace(form)
	return g
}
