package doctor

import (
	"fmt"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// System is what the rest of the host tells.
type System struct {
	Kernel     string
	Device     error // of looking at /dev/fuse
	Booted     bool  // systemd runs this host
	Fstab      []fstabLine
	Units      map[string]string // texts of the units, with their drop-ins, by name
	Enabled    []string          // of Units, those that a target wants
	Cleaner    bool              // Debian's timer is enabled
	Enforcing  bool              // SELinux
	FuseForWeb string            // its boolean httpd_use_fusefs: "1", "0", "": there is none
}

type fstabLine struct {
	file    string
	line    int
	text    string
	config  string
	dir     string
	options []string
}

// phpUnits are the services that keep sessions.
var phpUnits = regexp.MustCompile(`^(php[0-9.]*-fpm|php[0-9]*-php-fpm|apache2|httpd)\.service$`)

func gatherSystem(t tree, mountpoint string) (s System) {
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		s.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	info, err := os.Stat("/dev/fuse")
	if s.Device = err; err == nil && info.Mode()&os.ModeCharDevice == 0 {
		s.Device = fmt.Errorf("/dev/fuse is no device")
	}
	s.Booted = t.exists("/run/systemd/system")
	s.Fstab = parseFstab(t.show("/etc/fstab"), t.read("/etc/fstab"))
	s.Units = make(map[string]string)
	ours := []string{"sessfs.service", mountUnit(mountpoint)}
	for _, dir := range []string{"/lib/systemd/system", "/usr/lib/systemd/system", "/etc/systemd/system"} { // the last one counts
		for _, file := range t.glob(dir + "/*.*") {
			name := path.Base(file)
			if slices.Contains(ours, name) || phpUnits.MatchString(name) {
				if text := t.read(file); text != "" {
					s.Units[name] = text
				}
			}
		}
	}
	for name := range s.Units {
		for _, dir := range []string{"/lib/systemd/system", "/usr/lib/systemd/system", "/etc/systemd/system", "/run/systemd/system"} {
			for _, file := range t.glob(dir + "/" + name + ".d/*.conf") {
				s.Units[name] += "\n" + t.read(file)
			}
		}
		if len(t.glob("/etc/systemd/system/*.wants/"+name))+len(t.glob("/etc/systemd/system/*.requires/"+name)) > 0 {
			s.Enabled = append(s.Enabled, name)
		}
	}
	slices.Sort(s.Enabled)
	s.Cleaner = len(t.glob("/etc/systemd/system/*.wants/phpsessionclean.timer")) > 0
	s.Enforcing = strings.TrimSpace(t.read("/sys/fs/selinux/enforce")) == "1"
	if f := strings.Fields(t.read("/sys/fs/selinux/booleans/httpd_use_fusefs")); len(f) > 0 {
		s.FuseForWeb = f[0]
	}
	return s
}

func parseFstab(file, text string) (lines []fstabLine) {
	for i, line := range strings.Split(text, "\n") {
		f := strings.Fields(line)
		if len(f) < 4 || strings.HasPrefix(f[0], "#") || f[2] != "sessfs" && f[2] != "fuse.sessfs" {
			continue
		}
		unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\134`, `\`).Replace
		lines = append(lines, fstabLine{file: file, line: i + 1, text: strings.TrimSpace(line), config: unescape(f[0]), dir: path.Clean(unescape(f[1])), options: strings.Split(f[3], ",")})
	}
	return lines
}

// with is the line with one more option.
func (l fstabLine) with(option string) string {
	old := strings.Join(l.options, ",")
	options := old + "," + option
	if old == "defaults" {
		options = option
	}
	return strings.Replace(l.text, old, options, 1)
}

func (l fstabLine) has(option string) bool { return slices.Contains(l.options, option) }

// mountUnit is systemd's name for a mount point (systemd-escape --path).
func mountUnit(dir string) string {
	var b strings.Builder
	for i, c := range []byte(strings.Trim(dir, "/")) {
		switch {
		case c == '/':
			b.WriteByte('-')
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == ':', c == '_', c == '.' && i > 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String() + ".mount"
}

func checkSystem(f *Facts) (all []Finding) {
	s := f.System
	if s.Device != nil {
		all = append(all, Finding{Code: "fuse-device", Severity: Error, Subject: "this host", What: fmt.Sprintf("has no usable /dev/fuse: %v", s.Device),
			Why: "nothing can be mounted, and a daemon that ends cannot come back", Do: "modprobe fuse; in a container: --device /dev/fuse --cap-add SYS_ADMIN"})
	}
	all = append(all, checkKernel(s.Kernel)...)
	var line *fstabLine
	for i := range s.Fstab {
		if s.Fstab[i].dir == f.Mountpoint {
			line = &s.Fstab[i]
		}
	}
	if line != nil {
		all = append(all, checkFstab(f, *line)...)
	}
	if s.Booted {
		all = append(all, checkBoot(f, line)...)
	}
	if s.Cleaner {
		all = append(all, Finding{Code: "debian-cleaner", Severity: Note, Subject: "Debian's timer phpsessionclean",
			What: "lists all sessions of all hosts every 30 minutes, on each host", Why: "it does no harm, and no good: sessions end by themselves on the cache servers",
			Do: "if there are no other session directories: systemctl disable --now phpsessionclean.timer"})
	}
	return all
}

// kernels is what older kernels do without.
var kernels = []struct {
	major, minor int
	what         string
}{
	{5, 16, "each close costs one call more (FOPEN_NOFLUSH came with 5.16)"},
	{6, 9, "requests that a daemon had in its hands when it ended fail with EINTR instead of being sent again (FUSE_NOTIFY_RESEND came with 6.9)"},
	{6, 12, "new sessions of one directory are opened one after the other (opening them in parallel came with 6.12)"},
}

func checkKernel(release string) (all []Finding) {
	var major, minor int
	if n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor); n != 2 {
		return nil
	}
	for _, k := range kernels {
		if major < k.major || major == k.major && minor < k.minor {
			all = append(all, Finding{Code: "kernel-old", Severity: Note, Subject: "Linux " + release, What: k.what, Why: "it works, with this difference"})
		}
	}
	return all
}

func checkFstab(f *Facts, l fstabLine) (all []Finding) {
	line := func(g Finding, text string) Finding {
		g.Subject, g.File, g.Line, g.Old, g.New = "the line of "+l.file, l.file, l.line, l.text, text
		return g
	}
	if f.ConfigFile != "" && l.config != f.ConfigFile && l.config != "sessfs" && l.config != "none" {
		all = append(all, line(Finding{Code: "fstab-config", Severity: Warning, What: "mounts with another configuration, " + l.config + "; this is about " + f.ConfigFile,
			Why: "after a restart of this host another configuration holds"}, strings.Replace(l.text, strings.Fields(l.text)[0], f.ConfigFile, 1)))
	}
	var missing []string
	for _, o := range []string{"_netdev", "nofail"} {
		if !l.has(o) {
			missing = append(missing, o)
		}
	}
	if len(missing) > 0 {
		all = append(all, line(Finding{Code: "fstab-options", Severity: Warning, What: "lacks " + strings.Join(missing, " and "),
			Why: "without _netdev it is mounted before there is a network; without nofail a mount that fails stops the boot of the whole host"}, l.with(strings.Join(missing, ","))))
	}
	return all
}

// checkBoot looks at how the mount comes at boot, and whether it stands before PHP starts: PHP's services have mount
// namespaces of their own.
func checkBoot(f *Facts, line *fstabLine) (all []Finding) {
	s := f.System
	var ways []string
	if line != nil && !line.has("noauto") {
		ways = append(ways, line.file)
	}
	for _, unit := range []string{"sessfs.service", mountUnit(f.Mountpoint)} {
		if slices.Contains(s.Enabled, unit) {
			ways = append(ways, unit)
		}
	}
	switch {
	case len(ways) == 0:
		return []Finding{{Code: "boot-missing", Severity: Warning, Subject: "the mount at " + f.Mountpoint, What: "does not come by itself when this host starts",
			Why: "after a restart of the host PHP keeps its sessions in the directory under it", Do: "systemctl enable sessfs"}}
	case len(ways) > 1:
		all = append(all, Finding{Code: "boot-twice", Severity: Warning, Subject: "the mount at " + f.Mountpoint, What: "is made at boot by " + strings.Join(ways, " and by "),
			Why: "the second one fails", Do: "keep one of them"})
	}
	var late []string
	for unit, text := range s.Units {
		if phpUnits.MatchString(unit) && f.runsPHP(unit) && !ordered(f, line, ways, unit, text) {
			late = append(late, unit)
		}
	}
	slices.Sort(late)
	for _, unit := range late {
		g := Finding{Code: "boot-order", Severity: Warning, Subject: unit, What: "may start before the mount stands",
			Why: "then it does not see the mount, and keeps its sessions on this host alone"}
		if ways[0] == "sessfs.service" || line == nil {
			g.File, g.New = "/etc/systemd/system/"+ways[0]+".d/php.conf", "[Unit]\nBefore="+unit
			g.Do = "systemctl daemon-reload"
		} else {
			g.File, g.Line, g.Old, g.New = line.file, line.line, line.text, line.with("x-systemd.before="+unit)
			g.Do = "systemctl daemon-reload"
		}
		all = append(all, g)
	}
	return all
}

// runsPHP leaves out an Apache that hands PHP's pages on to php-fpm.
func (f *Facts) runsPHP(unit string) bool {
	return strings.Contains(unit, "fpm") || slices.ContainsFunc(f.PHP, func(p PHP) bool { return p.SAPI == "apache2" })
}

// ordered tells whether a service of PHP starts after the mount, by the one's or the other's word.
func ordered(f *Facts, line *fstabLine, ways []string, unit, text string) bool {
	mount := mountUnit(f.Mountpoint)
	if slices.ContainsFunc(unitList(text, "RequiresMountsFor", "WantsMountsFor"), func(dir string) bool { return path.Clean(dir) == f.Mountpoint }) {
		return true
	}
	after := unitList(text, "After")
	for _, way := range ways {
		if line != nil && way == line.file {
			if line.has("x-systemd.before="+unit) || slices.Contains(after, mount) ||
				!line.has("nofail") && slices.Contains(after, "remote-fs.target") && line.has("_netdev") {
				return true
			}
			continue
		}
		if slices.Contains(after, way) || slices.Contains(unitList(f.System.Units[way], "Before"), unit) {
			return true
		}
	}
	return false
}

// unitList is the words of all lines KEY=… of a unit.
func unitList(text string, keys ...string) (words []string) {
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", " ")) {
		key, value, found := strings.Cut(strings.TrimSpace(line), "=")
		if found && slices.Contains(keys, strings.TrimSpace(key)) {
			words = append(words, strings.Fields(value)...)
		}
	}
	return words
}

// checkSecurity looks at SELinux and AppArmor.
func checkSecurity(f *Facts) (all []Finding) {
	if f.System.Enforcing && f.System.FuseForWeb == "0" && !strings.Contains(f.Mount.Info.Options, "context=") {
		all = append(all, Finding{Code: "selinux-fusefs", Severity: Error, Subject: "SELinux", What: "enforces its rules, and httpd_use_fusefs is off",
			Why: "it keeps PHP out of the mount: session_start() fails with Permission denied", Do: "setsebool -P httpd_use_fusefs on"})
	}
	for _, p := range f.Mount.Processes {
		if profile, enforced := strings.CutSuffix(p.Profile, " (enforce)"); enforced && profile != "" {
			local := strings.Trim(strings.ReplaceAll(profile, "/", "."), ".")
			all = append(all, Finding{Code: "apparmor-enforced", Severity: Note, Subject: p.Name + " (pid " + strconv.Itoa(p.PID) + ")",
				What: "runs under AppArmor's profile " + profile + ", enforced", Why: "if the profile does not name the mount point, session_start() fails with Permission denied",
				File: "/etc/apparmor.d/local/" + local, New: f.Mountpoint + "/ r,\n" + f.Mountpoint + "/** rwk,", Do: "look whether it is there; systemctl reload apparmor"})
		}
	}
	return all
}
