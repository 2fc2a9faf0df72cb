package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// candidate is a way to keep sessions.
type candidate struct {
	key    string // what -only and the JSON call it
	title  string
	binary *binary // sessfs's own; nil for the others
	kind   string  // of sessfs: the part of key before the binary's name
	note   string  // how it is set up
	needs  []*tool
	start  func(ctx context.Context, s *scope, l *lab, sc *scenario) (*target, error)
}

// shared tells whether several web hosts can share the sessions.
func (c *candidate) shared() bool {
	return c.kind != kindEmbedded && c.kind != kindTmpfs && c.kind != kindDisk
}

// target is a candidate that runs.
type target struct {
	places  []place // processes are spread over them
	hosts   []*host
	servers []*server
}

// place is what PHP is told: settings, each "name=value".
type place []string

// binary is a sessfs to measure.
type binary struct {
	name, path string
	version    string
	keeps      bool // it knows lock.keep
	seals      bool // it knows seal.keys
	copies     bool // it knows replicas: 2
}

const (
	kindSessfs   = "sessfs"
	kindTwo      = "sessfs-2"
	kindCopies   = "sessfs-copies"
	kindEmbedded = "sessfs-embedded"
	kindKeep     = "sessfs-keep"
	kindLarge    = "sessfs-large"
	kindSealed   = "sessfs-sealed"
	kindLocked   = "php-memcached"
	kindUnlocked = "php-memcached-unlocked"
	kindTuned    = "php-memcached-tuned"
	kindPecl     = "pecl-memcache"
	kindRedis    = "phpredis"
	kindTmpfs    = "tmpfs"
	kindDisk     = "disk"
)

const (
	keepYAML = "lock: {keep: 2s}"
	sealYAML = "seal: {keys: [{name: bench, file: KEYFILE}]}" // KEYFILE is made for each run
)

// binaries reads -sessfs flags: PATH or NAME=PATH.
func binaries(ctx context.Context, flags []string) (all []*binary, err error) {
	if len(flags) == 0 {
		flags = []string{"bin/sessfs"}
	}
	dir, err := os.MkdirTemp("", "sessfs-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	for _, f := range flags {
		name, path, named := strings.Cut(f, "=")
		if !named {
			name, path = filepath.Base(f), f
		}
		b := &binary{name: name}
		if b.path, err = filepath.Abs(path); err != nil {
			return nil, err
		}
		out, err := exec.CommandContext(ctx, b.path, "version").CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("%s version: %w: %s", b.path, err, out)
		}
		b.version = strings.TrimSpace(string(out))
		file := filepath.Join(dir, "config.yaml")
		accepts := func(yaml string, copies int, servers ...*server) bool {
			err = cmp.Or(err, os.WriteFile(file, []byte(configuration(dir, dir, yaml, copies, servers)), 0o644))
			return err == nil && exec.CommandContext(ctx, b.path, "config", "check", file).Run() == nil
		}
		b.keeps = accepts(keepYAML, 1)
		b.seals = exec.CommandContext(ctx, b.path, "seal", "key", filepath.Join(dir, b.name+".key")).Run() == nil
		b.copies = accepts("", 2, &server{via: "127.0.0.1:1"}, &server{via: "127.0.0.1:2"})
		if err != nil {
			return nil, err
		}
		for _, other := range all {
			if other.name == b.name {
				return nil, fmt.Errorf("two binaries are called %q: name them with -sessfs NAME=PATH", b.name)
			}
		}
		all = append(all, b)
	}
	return all, nil
}

// candidates are all that are known, sessfs first.
func candidates(bins []*binary) (all []*candidate) {
	for _, b := range bins {
		suffix, name := "", ""
		if len(bins) > 1 {
			suffix, name = "@"+b.name, " ["+b.name+"]"
		}
		add := func(kind, title, note, yaml string, servers, copies int, more ...string) {
			all = append(all, &candidate{key: kind + suffix, title: title + name, binary: b, kind: kind, note: note, needs: []*tool{toolMemcached},
				start: func(ctx context.Context, s *scope, l *lab, sc *scenario) (*target, error) {
					return startSessfs(ctx, s, l, sc, b, yaml, servers, copies, more)
				}})
		}
		add(kindSessfs, "sessfs", "one memcached, item limit 1 MiB", "", 1, 1)
		add(kindTwo, "sessfs, 2 servers", "two memcached, each session on one (replicas: 1)", "", 2, 1)
		if b.copies {
			add(kindCopies, "sessfs, 2 copies", "two memcached, each session on both (replicas: 2, the default)", "", 2, 2)
		}
		if b.keeps {
			add(kindKeep, "sessfs, lock.keep", "one memcached, lock.keep 2s", keepYAML, 1, 1)
		}
		if b.seals {
			add(kindSealed, "sessfs, sealed", "one memcached, sessions encrypted and authenticated (seal.keys)", sealYAML, 1, 1)
		}
		add(kindEmbedded, "sessfs, embedded", "sessions in the daemon, no server: the floor", "", 0, 1)
		add(kindLarge, "sessfs, -I 4m", "one memcached with the item limit of the peers' servers (-I 4m)", "", 1, 1, "-I", "4m")
	}
	return append(all,
		peer(kindLocked, "php-memcached locked", "the extension's and Debian's defaults: sess_locking=1, binary protocol, a connection for each request; sess_lock_retries=200 of 150 ms",
			toolPHPMemcached, "memcached", "%s", "memcached.serializer=php", "memcached.sess_locking=1", "memcached.sess_lock_retries=200"),
		peer(kindTuned, "php-memcached locked, tuned", "as before, with sess_binary_protocol=0 and sess_persistent=1: text protocol, connections kept",
			toolPHPMemcached, "memcached", "%s", "memcached.serializer=php", "memcached.sess_locking=1", "memcached.sess_lock_retries=200", "memcached.sess_binary_protocol=0", "memcached.sess_persistent=1"),
		peer(kindUnlocked, "php-memcached unlocked", "sess_locking=0: parallel requests of one session lose changes",
			toolPHPMemcached, "memcached", "%s", "memcached.serializer=php", "memcached.sess_locking=0"),
		peer(kindPecl, "pecl-memcache", "the extension's defaults: always locks, connections kept; compress_threshold=0",
			toolPHPMemcache, "memcache", "tcp://%s", "memcache.compress_threshold=0"),
		peer(kindRedis, "phpredis locked", "locking_enabled=1, lock_retries=-1 (as long as it takes), lock_wait_time=2000 µs (the default), lock_expire=60; redis without dump and log",
			toolPHPRedis, "redis", "tcp://%s", "redis.session.locking_enabled=1", "redis.session.lock_retries=-1", "redis.session.lock_wait_time=2000", "redis.session.lock_expire=60"),
		files(kindTmpfs, "files on tmpfs", "PHP's files handler in memory, not shared between hosts", func(l *lab) string { return l.tmpfs }),
		files(kindDisk, "files on the disk", "PHP's files handler on the disk, not shared between hosts", func(l *lab) string { return l.disk }),
	)
}

func startSessfs(ctx context.Context, s *scope, l *lab, sc *scenario, b *binary, yaml string, servers, copies int, more []string) (*target, error) {
	t := &target{}
	for range servers {
		srv, err := startMemcached(ctx, s, more...)
		if err != nil {
			return nil, err
		}
		t.servers = append(t.servers, srv)
	}
	if err := l.delayed(ctx, s, sc, t.servers...); err != nil {
		return nil, err
	}
	if yaml == sealYAML {
		key := filepath.Join(l.dir, "seal.key")
		if _, err := os.Stat(key); err != nil {
			if out, err := exec.CommandContext(ctx, b.path, "seal", "key", key).CombinedOutput(); err != nil {
				return nil, fmt.Errorf("making a key: %w: %s", err, out)
			}
		}
		yaml = strings.Replace(yaml, "KEYFILE", key, 1)
	}
	for range max(1, sc.mounts) {
		h, err := startHost(ctx, s, l, b.path, yaml, copies, t.servers...)
		if err != nil {
			return nil, err
		}
		t.hosts = append(t.hosts, h)
		t.places = append(t.places, place{"session.save_handler=files", "session.save_path=" + h.dir})
	}
	return t, nil
}

// peer is an extension of PHP with a server of its own; path has %s for the address.
func peer(kind, title, note string, t *tool, handler, path string, settings ...string) *candidate {
	program := toolMemcached
	if handler == "redis" {
		program = toolRedis
	}
	return &candidate{key: kind, title: title, kind: kind, note: note, needs: []*tool{t, program},
		start: func(ctx context.Context, s *scope, l *lab, sc *scenario) (*target, error) {
			var srv *server
			var err error
			switch {
			case handler == "redis":
				srv, err = startRedis(ctx, s, l.dir)
			case sc.largeItems():
				srv, err = startMemcached(ctx, s, "-I", "4m")
			default:
				srv, err = startMemcached(ctx, s)
			}
			if err != nil {
				return nil, err
			}
			if err := l.delayed(ctx, s, sc, srv); err != nil {
				return nil, err
			}
			var p place
			for _, e := range t.extensions {
				p = append(p, "extension="+e+".so")
			}
			p = append(p, "session.save_handler="+handler, "session.save_path="+fmt.Sprintf(path, srv.via))
			return &target{places: []place{append(p, settings...)}, servers: []*server{srv}}, nil
		}}
}

// files is PHP's own handler in a directory.
func files(kind, title, note string, parent func(*lab) string) *candidate {
	return &candidate{key: kind, title: title, kind: kind, note: note,
		start: func(_ context.Context, s *scope, l *lab, _ *scenario) (*target, error) {
			dir, err := l.make(parent(l), kind)
			if err != nil {
				return nil, err
			}
			s.add(func() error { return os.RemoveAll(dir) })
			return &target{places: []place{{"session.save_handler=files", "session.save_path=" + dir}}}, nil
		}}
}
