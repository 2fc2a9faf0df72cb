package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sessfs/fusefs"
)

// Mount is what stands at the mount point, seen from here and from the processes of PHP.
type Mount struct {
	Info      fusefs.MountInfo // the topmost there; Type "": nothing is mounted
	Err       error            // of looking at it
	UID, GID  uint32
	Mode      uint32 // permission bits
	Processes []Process
}

// Process is one of PHP's that runs, the first of its mount namespace.
type Process struct {
	PID       int
	Name      string             // "php-fpm8.2", "apache2"
	Service   string             // systemd's unit, "" where it has none
	Mounts    []fusefs.MountInfo // at the mount point, and of sessfs elsewhere
	Elsewhere bool               // it is in a container: another pid namespace
	Profile   string             // AppArmor's, such as "php-fpm (enforce)"
}

// stuck is how long a mount may take to show its directory.
const stuck = 5 * time.Second

var errStuck = fmt.Errorf("it does not answer within %v", stuck)

func gatherMount(ctx context.Context, mountpoint string) (m Mount) {
	table, err := fusefs.MountsOf("self")
	if err != nil {
		m.Err = err
		return m
	}
	for _, info := range table {
		if info.Dir == mountpoint {
			m.Info = info
		}
	}
	var st unix.Stat_t
	done := make(chan error, 1)
	go func() { done <- unix.Stat(mountpoint, &st) }() // a daemon that hangs must not hang its doctor
	select {
	case m.Err = <-done:
		m.UID, m.GID, m.Mode = st.Uid, st.Gid, st.Mode&0o7777
	case <-time.After(stuck):
		m.Err = errStuck
	case <-ctx.Done():
		m.Err = ctx.Err()
	}
	m.Processes = gatherProcesses(mountpoint)
	return m
}

// gatherProcesses finds php-fpm and Apache, one process for each mount namespace.
func gatherProcesses(mountpoint string) (list []Process) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	slices.SortFunc(dirs, func(a, b string) int { return pidOf(a) - pidOf(b) })
	here, _ := os.Readlink("/proc/self/ns/pid")
	seen := make(map[string]bool)
	for _, dir := range dirs {
		b, _ := os.ReadFile(dir + "/comm")
		name := strings.TrimSpace(string(b))
		if !strings.HasPrefix(name, "php-fpm") && name != "apache2" && name != "httpd" {
			continue
		}
		namespace, err := os.Readlink(dir + "/ns/mnt")
		if err != nil || seen[namespace] {
			continue
		}
		seen[namespace] = true
		all, err := fusefs.MountsOf(filepath.Base(dir))
		if err != nil {
			continue // it has ended
		}
		p := Process{PID: pidOf(dir), Name: name, Service: serviceOf(dir)}
		pids, err := os.Readlink(dir + "/ns/pid")
		p.Elsewhere = err == nil && here != "" && pids != here
		for _, info := range all {
			if info.Dir == mountpoint || info.Type == fusefs.Type {
				p.Mounts = append(p.Mounts, info)
			}
		}
		for _, file := range []string{"/attr/apparmor/current", "/attr/current"} {
			if b, err := os.ReadFile(dir + file); err == nil {
				p.Profile = strings.Trim(string(b), "\n\x00 ")
				break
			}
		}
		list = append(list, p)
	}
	return list
}

func pidOf(dir string) int {
	n, _ := strconv.Atoi(filepath.Base(dir))
	return n
}

// serviceOf reads the unit from the control group: …/system.slice/php8.2-fpm.service.
func serviceOf(dir string) string {
	b, _ := os.ReadFile(dir + "/cgroup")
	for line := range strings.Lines(string(b)) {
		for element := range strings.SplitSeq(strings.TrimSpace(line), "/") {
			if strings.HasSuffix(element, ".service") {
				return element
			}
		}
	}
	return ""
}

func checkMount(f *Facts) (all []Finding) {
	m := f.Mount
	subject := "the mount at " + f.Mountpoint
	mountIt := "sessfs mount, or systemctl start sessfs, or mount " + f.Mountpoint + "; then restart php-fpm (or Apache)"
	switch {
	case m.Info.Type != fusefs.Type:
		what := "is not there"
		if m.Info.Type != "" {
			what = fmt.Sprintf("is hidden, or is none of sessfs: what is mounted there is %s (%s)", m.Info.Type, m.Info.Source)
		}
		return []Finding{{Code: "mount-missing", Severity: Error, Subject: subject, What: what,
			Why: "PHP keeps its sessions on this host alone", Do: mountIt}}
	case errors.Is(m.Err, unix.ENOTCONN):
		return []Finding{{Code: "mount-dead", Severity: Error, Subject: subject, What: "has no daemon any more",
			Why: "every session_start() fails", Do: "systemctl restart sessfs, or sessfs mount: the dead mount is replaced; then restart php-fpm (or Apache)"}}
	case m.Err != nil:
		return []Finding{{Code: "mount-failing", Severity: Error, Subject: subject, What: fmt.Sprintf("cannot be looked at: %v", m.Err),
			Why: "every session_start() waits or fails", Do: "see the log of the daemon (journalctl -u sessfs) and sessfs status"}}
	}
	if strings.HasPrefix(m.Info.Source, "/") && f.ConfigFile != "" && m.Info.Source != f.ConfigFile {
		all = append(all, Finding{Code: "mount-config", Severity: Warning, Subject: subject,
			What: fmt.Sprintf("was made with another configuration, %s; this is about %s", m.Info.Source, f.ConfigFile),
			Why:  "what is said here may not hold for it", Do: "sessfs doctor --config " + m.Info.Source})
	}
	all = append(all, checkDirectory(f)...)
	for _, p := range m.Processes {
		all = append(all, checkNamespace(f, p)...)
	}
	return all
}

// checkNamespace: services with namespaces of their own see what was mounted before they started.
func checkNamespace(f *Facts, p Process) []Finding {
	restart := "systemctl restart " + p.Service
	if p.Service == "" {
		restart = "restart it"
	}
	subject := fmt.Sprintf("%s (pid %d)", p.Name, p.PID)
	top := fusefs.MountInfo{}
	for _, info := range p.Mounts {
		if info.Device == f.Mount.Info.Device && (info.Dir == f.Mountpoint || p.Elsewhere) {
			top = info
		} else if info.Dir == f.Mountpoint {
			top = info
		}
	}
	switch {
	case top.Device == f.Mount.Info.Device && top.Type == fusefs.Type:
		return nil
	case p.Elsewhere:
		return []Finding{{Code: "mount-container", Severity: Note, Subject: subject, What: "runs in a container that does not have this mount",
			Why: "if it is to share sessions, the mount must be handed to it", Do: "docs/operations.md says how a container gets a mount of its host"}}
	case top.Type == fusefs.Type:
		return []Finding{{Code: "mount-namespace", Severity: Error, Subject: subject, What: "still sees an older mount at " + f.Mountpoint + ", not the present one",
			Why: "its sessions fail, or are those of another daemon", Do: restart}}
	}
	return []Finding{{Code: "mount-namespace", Severity: Error, Subject: subject, What: "does not see the mount: it has a mount namespace of its own, from before",
		Why: "its sessions stay in the directory under the mount, on this host alone", Do: restart + "; let the mount stand before it starts (docs/operations.md)"}}
}

// checkDirectory looks at owner and mode, and whether the users of the pools get in.
func checkDirectory(f *Facts) (all []Finding) {
	m, want := f.Mount, f.Config.Directory
	subject := "the directory " + f.Mountpoint
	remount := "unmount and mount in a quiet minute"
	if m.Mode != want.Mode {
		all = append(all, f.inConfig(Finding{Code: "mount-mode", Severity: Warning, Subject: subject,
			What: fmt.Sprintf("has the mode %04o, and directory.mode is %04o", m.Mode, want.Mode),
			Why:  "the configuration was changed since it was mounted", Do: remount}, "directory.mode", fmt.Sprintf(`"%04o"`, want.Mode)))
	}
	if uid, err := userID(want.Owner); err == nil && uid != m.UID {
		all = append(all, f.inConfig(Finding{Code: "mount-owner", Severity: Warning, Subject: subject,
			What: fmt.Sprintf("is owned by uid %d, and directory.owner is %s (uid %d)", m.UID, want.Owner, uid),
			Why:  "the configuration was changed since it was mounted", Do: remount}, "directory.owner", want.Owner))
	}
	if gid, err := groupID(want.Group); err == nil && gid != m.GID {
		all = append(all, f.inConfig(Finding{Code: "mount-owner", Severity: Warning, Subject: subject,
			What: fmt.Sprintf("has the group %d, and directory.group is %s (gid %d)", m.GID, want.Group, gid),
			Why:  "the configuration was changed since it was mounted", Do: remount}, "directory.group", want.Group))
	}
	for _, p := range f.PHP {
		if p.User == "" || p.User == "root" {
			continue
		}
		u, err := user.Lookup(p.User)
		if err != nil {
			continue // php-fpm says so when it starts
		}
		uid, _ := strconv.ParseUint(u.Uid, 10, 32)
		groups, _ := u.GroupIds()
		bits := m.Mode & 7
		switch {
		case uint32(uid) == m.UID:
			bits = m.Mode >> 6 & 7
		case slices.Contains(groups, strconv.FormatUint(uint64(m.GID), 10)):
			bits = m.Mode >> 3 & 7
		}
		if bits&3 != 3 {
			all = append(all, f.inConfig(Finding{Code: "mount-permission", Severity: Error, Subject: p.Name,
				What: fmt.Sprintf("runs as %s, who may not make files in %s (mode %04o, uid %d, gid %d)", p.User, f.Mountpoint, m.Mode, m.UID, m.GID),
				Why:  "session_start() fails: Permission denied", Do: remount}, "directory.mode", `"1733"`))
		}
	}
	return all
}

func userID(name string) (uint32, error) {
	u, err := user.Lookup(name)
	if err != nil {
		n, err := strconv.ParseUint(name, 10, 32)
		return uint32(n), err
	}
	n, err := strconv.ParseUint(u.Uid, 10, 32)
	return uint32(n), err
}

func groupID(name string) (uint32, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		n, err := strconv.ParseUint(name, 10, 32)
		return uint32(n), err
	}
	n, err := strconv.ParseUint(g.Gid, 10, 32)
	return uint32(n), err
}

// Daemon is what the daemon of the mount answered.
type Daemon struct {
	Err        error // it does not answer; nil and PID 0: it was not asked
	PID        int
	Version    string
	Started    time.Time
	LostStores uint64
	Restarted  map[string]time.Time // when it last noticed that a server was restarted, by name
}

func checkDaemon(f *Facts) (all []Finding) {
	d := f.Daemon
	switch {
	case f.Mount.Info.Type != fusefs.Type || errors.Is(f.Mount.Err, unix.ENOTCONN):
		return nil // said already
	case d.Err != nil:
		return []Finding{{Code: "daemon-silent", Severity: Error, Subject: "the daemon", What: fmt.Sprintf("does not answer: %v", d.Err),
			Why: "sessfs status and other commands do not work, and requests may hang", Do: "see its log (journalctl -u sessfs)"}}
	case d.PID == 0:
		return nil
	}
	if d.Version != f.Version {
		all = append(all, Finding{Code: "daemon-version", Severity: Warning, Subject: "the daemon",
			What: fmt.Sprintf("(pid %d) is version %s, and the program on disk is %s", d.PID, d.Version, f.Version),
			Why:  "an installed update is not in use yet", Do: "sessfs upgrade"})
	}
	if d.LostStores > 0 {
		all = append(all, Finding{Code: "daemon-lost-stores", Severity: Warning, Subject: "the daemon",
			What: fmt.Sprintf("has lost %d last changes of sessions after close since %s", d.LostStores, d.Started.Local().Format(time.DateTime)),
			Why:  "servers did not answer for longer than a lease", Do: "see its log for the servers and times"})
	}
	return all
}
