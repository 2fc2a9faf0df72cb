package fusefs

import (
	"bytes"
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// MountInfo is a line of /proc/self/mountinfo.
type MountInfo struct {
	Dir, Type, Source string
}

// Mounts lists what sessfs has mounted in this mount namespace, in the order of mounting.
func Mounts() ([]MountInfo, error) {
	all, err := mountTable()
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
	all, err := mountTable()
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

// mountTable reads /proc/self/mountinfo (proc(5)).
func mountTable() (list []MountInfo, err error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	for line := range bytes.Lines(b) {
		fields := strings.Fields(string(line))
		for i := 6; i+2 < len(fields); i++ { // optional fields end with "-"
			if fields[i] == "-" {
				list = append(list, MountInfo{Dir: unescape(fields[4]), Type: fields[i+1], Source: unescape(fields[i+2])})
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
