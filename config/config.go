// Package config reads the configuration file: its schema, the defaults, checks that name file, line, key, what was
// found and what was expected, and a watcher that hands out a new snapshot after each change.
//
// The schema is one table (keys in schema.go): whatever a key needs to be known for, its place, its values, whether it
// changes while mounted, stands in its row. The file is decoded over yaml.Node by hand, because the yaml package's own
// decoding loses lines, reads 1733 as a number of its own choice, and stops checking at the first wrong type.
package config

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"
)

// MaxFile is the size in bytes of the largest file that is read.
const MaxFile = 1 << 20

// Config is a checked configuration. It is never changed once it is made: whoever wants another one makes a copy.
type Config struct {
	Mountpoint string // absolute
	Directory  Directory
	// Files are the patterns of the names that may stand in the directory. '*' stands for any run of bytes, the empty
	// one included; nothing else is special.
	Files   []string
	Depth   int    // N of session.save_path = "N;/path": 0 to 7 levels of directories
	Owner   string // Keep, or the user as whose all sessions appear
	Session Session
	Lock    Lock
	Cache   Cache
	Seal    Seal
	Admin   Admin
	Log     Log
}

// Keep is the Owner that leaves each session to the user who made it.
const Keep = "keep"

// Directory tells whose the mounted directory is. Whether the names exist on this host is not checked here.
type Directory struct {
	Owner, Group string
	Mode         uint32 // the permission bits, 07777 at most
}

// Session bounds each session.
type Session struct {
	Lifetime time.Duration // since the last write or touch
	MaxSize  int64         // bytes
	Memory   int64         // bytes of large sessions that the daemon keeps; 0: none
}

// Lock says how sessions are locked.
type Lock struct {
	Lease time.Duration // of a lock among hosts, in whole seconds
	Wait  time.Duration // 0: as long as it takes
	Keep  time.Duration // 0: a lease is given back at close
}

// Cache says where sessions are kept.
type Cache struct {
	Servers       []Server // none: in the process
	Replicas      int      // servers that each session is kept on, at most as many as there are
	Quorum        string   // QuorumAny or QuorumMajority
	Timeout       time.Duration
	RetryInterval time.Duration
	Connections   int // to each server
	Prefix        string
	TLS           *TLS  // nil: none
	Auth          *Auth // nil: none
}

// The values of Cache.Quorum: how many of two servers must answer. With one server, and with three or more, they mean the
// same.
const (
	QuorumAny      = "any"      // one is enough: it goes on alone when the other fails
	QuorumMajority = "majority" // both, so that hosts which each miss another one never go on separately
)

// Server is one memcached.
type Server struct {
	Name    string // what is hashed to place sessions; the address where none was given
	Network string // "tcp" or "unix"
	Address string // host:port, [v6]:port, or the absolute path of the socket
	Weight  int
}

// Admin says where the daemon is asked how it does.
type Admin struct {
	Socket string // absolute path
	Group  string // whose members may use the socket as root may; "": none
	// Metrics is where metrics, health and the web page are shown to everybody who can connect: an IP address, or localhost,
	// and a port; "": nowhere.
	Metrics string
}

// Warnings are what is right as it stands and may still not be what was meant.
func (c *Config) Warnings() (list []string) {
	if host, _, err := net.SplitHostPort(c.Admin.Metrics); err == nil && !isLoopback(host) {
		list = append(list, fmt.Sprintf("admin.metrics %q is no loopback address: everybody who reaches it sees the figures and the web page, there is no password; let a firewall or a proxy see to that", c.Admin.Metrics))
	}
	if c.Cache.Auth != nil && c.Cache.TLS == nil && slices.ContainsFunc(c.Cache.Servers, Server.remote) {
		list = append(list, "cache.auth without cache.tls: the password and the sessions go over the network in the clear")
	}
	return list
}

// remote tells whether what is sent to the server leaves this host.
func (s Server) remote() bool {
	host, _, err := net.SplitHostPort(s.Address)
	return s.Network != "unix" && err == nil && !isLoopback(host)
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// Log says what is logged, and how.
type Log struct {
	Level  slog.Level
	Format string // "text" or "json"
}

// Default is the configuration of an empty file.
func Default() *Config {
	return &Config{
		Mountpoint: "/var/lib/php/sessions",
		Directory:  Directory{Owner: "root", Group: "root", Mode: 0o1733},
		Files:      []string{"sess_*"},
		Owner:      Keep,
		Session:    Session{Lifetime: 24 * time.Minute, MaxSize: 16 << 20, Memory: 64 << 20},
		Lock:       Lock{Lease: 10 * time.Second},
		Cache: Cache{Replicas: defaultReplicas(0), Quorum: QuorumAny, Timeout: time.Second, RetryInterval: 15 * time.Second, Connections: 1,
			Prefix: "sessfs:"},
		Admin: Admin{Socket: "/run/sessfs/admin.sock"},
		Log:   Log{Level: slog.LevelInfo, Format: "text"},
	}
}

// Load reads a file. The error is that of opening or reading it (errors.Is os.ErrNotExist works), or Errors.
func Load(path string) (*Config, error) {
	data, err := read(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, data)
}

// read returns at most MaxFile+1 bytes: Parse refuses the one too many.
func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	return data, nil
}
