package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"strings"

	"sessfs/backend"
)

// hostName is what this host is called.
func hostName() string {
	host, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return host
}

// bootID is the kernel's name for the time since this host was started.
func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}

// hostID names a mount of this host among those of all hosts. The machine's own id is not to be shown (machine-id(5)),
// but what is computed of it may be.
func hostID(mountpoint string) string {
	machine, _ := os.ReadFile("/etc/machine-id")
	sum := sha256.Sum256(fmt.Appendf(nil, "sessfs\x00%s\x00%s\x00%s", hostName(), strings.TrimSpace(string(machine)), mountpoint))
	return hex.EncodeToString(sum[:12])
}

// announce tells the other hosts how this one is configured, for their `sessfs doctor`.
func (d *daemon) announce() {
	if d.cluster == nil {
		return
	}
	d.cluster.Announce(backend.HostRecord{ID: hostID(d.mountpoint), Host: hostName(), Mountpoint: d.mountpoint, Version: version,
		Keep: d.conf.Lock.Keep.Milliseconds(), Depth: d.conf.Depth, Owner: d.conf.Owner, Started: d.started.Unix()})
}
