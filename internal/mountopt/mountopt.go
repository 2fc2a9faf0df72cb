// Package mountopt reads mount options as mount(8), fstab and systemd pass them. What has no meaning for a session
// directory but is harmless is accepted; what would be a promise that is not kept is refused with the reason.
package mountopt

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"sessfs/config"
)

// Options is what the options ask for.
type Options struct {
	NoAtime bool
	Labels  []string // SELinux labels for the kernel, such as context=system_u:object_r:httpd_var_run_t:s0
	Ignored []string // accepted without effect, as they were written
}

// Data is what goes to mount(2) in text.
func (o Options) Data() string { return strings.Join(o.Labels, ",") }

// Flags are the flags of mount(2). A session directory never has programs, devices or set-uid files.
func (o Options) Flags() uintptr {
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
	if o.NoAtime {
		flags |= unix.MS_NOATIME
	}
	return flags
}

// Accepted without effect: said by every mount anyway, or for mount(8), systemd and the boot alone.
var ignored = []string{
	"rw", "defaults", "nosuid", "nodev", "noexec", "allow_other",
	"_netdev", "nofail", "auto", "noauto", "user", "nouser", "users", "nousers", "owner", "noowner", "group", "nogroup",
	"atime", "relatime", "norelatime", "strictatime", "nostrictatime", "diratime", "nodiratime", "lazytime", "nolazytime",
	"sync", "async", "dirsync", "mand", "nomand", "iversion", "noiversion", "silent", "loud", "symfollow", "nosymfollow",
}

// labels are SELinux's, as in mount(8).
var labels = []string{"context", "fscontext", "defcontext", "rootcontext"}

// Refused, with the reason.
var refused = map[string]string{
	"ro":                  "a session directory must be writable",
	"suid":                "sessfs mounts are always nosuid",
	"dev":                 "sessfs mounts are always nodev",
	"exec":                "sessfs mounts are always noexec",
	"remount":             "options cannot change while mounted; most settings in the configuration file can (save it, or send SIGHUP)",
	"bind":                "mount sessfs itself with bind options by mount --bind",
	"default_permissions": "sessfs checks permissions itself, the sticky bit included",
	"allow_root":          "the processes of PHP are other users: sessfs always mounts with allow_other",
}

// opposite is the option that an accepted one takes back: of both the last one counts, as in mount(8).
var opposite = map[string]string{"rw": "ro", "nosuid": "suid", "nodev": "dev", "noexec": "exec"}

// Parse reads any number of comma-separated lists, as in -o. Commas in double quotes or behind a backslash do not
// separate. Later options outrank earlier ones.
func Parse(lists ...string) (Options, error) {
	o, _, err := parse(lists, false)
	return o, err
}

// parse also returns the options one by one, as written; with sloppy those it does not know are left out.
func parse(lists []string, sloppy bool) (o Options, words []string, err error) {
	var bad []string
	for _, list := range lists {
		split, err := splitList(list)
		if err != nil {
			return o, nil, err
		}
		for _, word := range split {
			name, _, _ := strings.Cut(word, "=")
			reason := refused[name]
			switch {
			case reason != "":
				bad = append(bad, name)
			case name == "noatime":
				o.NoAtime = true
			case slices.Contains(labels, name) && strings.Contains(word, `\`): // the kernel knows no escapes: what follows the comma would be an option of its own
				return o, nil, fmt.Errorf("mount option %s: a backslash in a label; put a label with commas in double quotes", name)
			case slices.Contains(labels, name) && name != word:
				o.Labels = append(o.Labels, word)
			case slices.Contains(ignored, word), isComment(name), name == "user" || name == "uhelper" || name == "helper":
				if back := opposite[word]; back != "" {
					bad = slices.DeleteFunc(bad, func(b string) bool { return b == back })
				}
				if strings.HasSuffix(word, "atime") && word != "diratime" && word != "nodiratime" {
					o.NoAtime = false
				}
				o.Ignored = append(o.Ignored, word)
			case sloppy:
				continue
			default:
				return o, nil, unknown(name)
			}
			words = append(words, word)
		}
	}
	if len(bad) > 0 {
		return o, nil, fmt.Errorf("mount option %s: %s", bad[0], refused[bad[0]])
	}
	return o, words, nil
}

// isComment says whether an option is addressed to another program: x-systemd.requires=, X-mount.mkdir, comment=.
func isComment(name string) bool {
	return name == "comment" || strings.HasPrefix(name, "x-") || strings.HasPrefix(name, "X-")
}

func unknown(name string) error {
	known := append(slices.Concat(ignored, labels), "noatime")
	for r := range refused {
		known = append(known, r)
	}
	slices.Sort(known)
	if near := config.Nearest(name, known); near != "" {
		return fmt.Errorf("unknown mount option %q; did you mean %s?", name, near)
	}
	return fmt.Errorf("unknown mount option %q (settings of sessfs stand in its configuration file)", name)
}

// splitList splits at commas that are neither quoted nor escaped. The options stay as they were written.
func splitList(list string) ([]string, error) {
	var words []string
	begin, quoted := 0, false
	for i := 0; i <= len(list); i++ {
		switch {
		case i < len(list) && list[i] == '\\':
			i++
		case i < len(list) && list[i] == '"':
			quoted = !quoted
		case i == len(list) || list[i] == ',' && !quoted:
			if word := strings.TrimSpace(list[begin:i]); word != "" {
				words = append(words, word)
			}
			begin = i + 1
		}
	}
	if quoted {
		return nil, fmt.Errorf("mount options %q: a quote is not closed", list)
	}
	if begin < len(list) { // it ends with a backslash
		words = append(words, list[begin:])
	}
	return words, nil
}
