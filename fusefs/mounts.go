package fusefs

import (
	"bytes"
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// MountInfo is a line of /proc/PID/mountinfo (proc(5)).
type MountInfo struct {
	Dir, Type, Source string
	Device            string // MAJOR:MINOR; the same mount has the same in every mount namespace
	Options           string // of the filesystem
}

// Mounts lists what sessfs has mounted in this mount namespace, in the order of mounting.
func Mounts() ([]MountInfo, error) {
	all, err := MountsOf("self")
	var ours []MountInfo
	for _, m := range all {
		if m.Type == Type {
			ours = append(ours, m)
		}
	}
	return ours, err
}

// Mounted tells what is mounted at path: the type of the topmost filesystem there, "" for none. A dead one is a FUSE
// mount whose daemon is gone (ENOTCONN).
func Mounted(path string) (kind string, dead bool, err error) {
	all, err := MountsOf("self")
	if err != nil {
		return "", false, err
	}
	for _, m := range all {
		if m.Dir == path {
			kind = m.Type
		}
	}
	if strings.HasPrefix(kind, "fuse") {
		var st unix.Statfs_t
		dead = errors.Is(unix.Statfs(path, &st), unix.ENOTCONN)
	}
	return kind, dead, nil
}

// MountsOf lists all that is mounted in the mount namespace of a process, in the order of mounting.
func MountsOf(pid string) (list []MountInfo, err error) {
	b, err := os.ReadFile("/proc/" + pid + "/mountinfo")
	if err != nil {
		return nil, err
	}
	for line := range bytes.Lines(b) {
		fields := strings.Fields(string(line))
		for i := 6; i+2 < len(fields); i++ { // optional fields end with "-"
			if fields[i] == "-" {
				m := MountInfo{Dir: unescape(fields[4]), Type: fields[i+1], Source: unescape(fields[i+2]), Device: fields[2]}
				if i+3 < len(fields) {
					m.Options = unescape(fields[i+3])
				}
				list = append(list, m)
				break
			}
		}
	}
	return list, nil
}

// unescape undoes the octal escapes of /proc/self/mountinfo.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
