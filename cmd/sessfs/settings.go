package main

import (
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"sessfs/backend"
	"sessfs/backend/memory"
	"sessfs/config"
	"sessfs/fusefs"
	"sessfs/locking"
)

const (
	defaultConfig = "/etc/sessfs/config.yaml"
	runDir        = "/run/sessfs"
)

// loadConfig reads a configuration file. A file that was not asked for may be missing: then the defaults hold.
func loadConfig(file string, asked bool) (*config.Config, error) {
	c, err := config.Load(file)
	if errors.Is(err, os.ErrNotExist) && !asked {
		return config.Default(), nil
	}
	if err != nil {
		return nil, coded{exitConfig, err}
	}
	return c, nil
}

func serversText(c *config.Config) string {
	switch n := len(c.Cache.Servers); n {
	case 0:
		return "no cache servers: sessions are kept in the process"
	case 1:
		return "1 cache server"
	default:
		return fmt.Sprintf("%d cache servers", n)
	}
}

// Each package takes its own settings: these are the ways from the configuration to them.

func fuseSettings(c *config.Config) fusefs.Settings {
	return fusefs.Settings{MaxSize: c.Session.MaxSize, Lease: c.Lock.Lease, Lifetime: c.Session.Lifetime, Timeout: c.Cache.Timeout}
}

func lockSettings(c *config.Config) locking.Settings {
	return locking.Settings{Lease: c.Lock.Lease, Wait: c.Lock.Wait, Keep: c.Lock.Keep}
}

func memoryOptions(c *config.Config) memory.Options {
	return memory.Options{Lifetime: c.Session.Lifetime, Lease: c.Lock.Lease, MaxSize: c.Session.MaxSize}
}

func backendSettings(c *config.Config) backend.Settings {
	return backend.Settings{Timeout: c.Cache.Timeout, RetryInterval: c.Cache.RetryInterval, Lifetime: c.Session.Lifetime,
		Lease: c.Lock.Lease, MaxSize: c.Session.MaxSize, Memory: c.Session.Memory}
}

func backendOptions(c *config.Config) backend.Options {
	o := backend.Options{Timeout: c.Cache.Timeout, RetryInterval: c.Cache.RetryInterval, Connections: c.Cache.Connections,
		Prefix: c.Cache.Prefix, Lifetime: c.Session.Lifetime, Lease: c.Lock.Lease, MaxSize: c.Session.MaxSize, Memory: c.Session.Memory,
		Replicas: c.Cache.Replicas, Majority: c.Cache.Quorum == config.QuorumMajority}
	if t := c.Cache.TLS; t != nil {
		o.Secure.TLS = &backend.TLS{CA: t.CA, Cert: t.Cert, Key: t.Key, ServerName: t.ServerName, MinVersion: tls.VersionTLS12}
		if t.MinVersion == "1.3" {
			o.Secure.TLS.MinVersion = tls.VersionTLS13
		}
	}
	if a := c.Cache.Auth; a != nil {
		o.Secure.Login = &backend.Login{User: a.User, PasswordFile: a.PasswordFile}
	}
	for _, s := range c.Cache.Servers {
		o.Servers = append(o.Servers, backend.Server{Name: s.Name, Network: s.Network, Address: s.Address, Weight: s.Weight})
	}
	return o
}

// mountOptions looks the names of users and groups up.
func mountOptions(c *config.Config, source, mountpoint string) (fusefs.Options, error) {
	o := fusefs.Options{Mountpoint: mountpoint, Source: source, DirMode: c.Directory.Mode, Files: c.Files, Depth: c.Depth, Settings: fuseSettings(c)}
	uid, _, err := lookupUser(source+": directory.owner", c.Directory.Owner)
	if err != nil {
		return o, err
	}
	gid, err := lookupGroup(source+": directory.group", c.Directory.Group)
	if err != nil {
		return o, err
	}
	o.DirUID, o.DirGID = uid, gid
	if c.Owner != "keep" {
		uid, gid, err := lookupUser(source+": owner", c.Owner)
		if err != nil {
			return o, err
		}
		o.Owner, o.OwnerGID = &uid, &gid
	}
	return o, nil
}

// adminGroup looks the group up that may use the admin socket; nil: root alone.
func adminGroup(c *config.Config, source string) (*uint32, error) {
	if c.Admin.Group == "" {
		return nil, nil
	}
	gid, err := lookupGroup(source+": admin.group", c.Admin.Group)
	return &gid, err
}

func lookupUser(key, name string) (uid, gid uint32, err error) {
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			if n, err := strconv.ParseUint(name, 10, 32); err == nil { // a number that no user has is a uid too
				return uint32(n), uint32(n), nil
			}
			return 0, 0, failf(exitConfig, "%s: this host has no user %q in /etc/passwd (one that is known elsewhere, as in LDAP, goes by number: id -u %s)", key, name, name)
		}
	}
	n, _ := strconv.ParseUint(u.Uid, 10, 32)
	g, _ := strconv.ParseUint(u.Gid, 10, 32)
	return uint32(n), uint32(g), nil
}

func lookupGroup(key, name string) (uint32, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		if n, err := strconv.ParseUint(name, 10, 32); err == nil {
			return uint32(n), nil
		}
		return 0, failf(exitConfig, "%s: this host has no group %q in /etc/group (one that is known elsewhere, as in LDAP, goes by number: getent group %s)", key, name, name)
	}
	n, _ := strconv.ParseUint(g.Gid, 10, 32)
	return uint32(n), nil
}

// nodeKey is the secret of the node ids: kept in a file, so that they are the same after a restart.
func nodeKey() ([]byte, error) {
	file := filepath.Join(runDir, "node.key")
	if key, err := os.ReadFile(file); err == nil && len(key) == 32 {
		return key, nil
	}
	key := make([]byte, 32)
	rand.Read(key) // never fails (Go 1.24)
	if err := os.MkdirAll(runDir, 0o755); err != nil {
		return key, err
	}
	// Written aside and linked into place: of two daemons that start at once both take the same one.
	tmp := fmt.Sprintf("%s.%d", file, os.Getpid())
	if err := os.WriteFile(tmp, key, 0o600); err != nil {
		return key, err
	}
	defer os.Remove(tmp)
	err := os.Link(tmp, file)
	if errors.Is(err, os.ErrExist) {
		if old, err := os.ReadFile(file); err == nil && len(old) == 32 {
			return old, nil
		}
		err = os.Rename(tmp, file)
	}
	return key, err
}
