package doctor

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sessfs/backend"
	"sessfs/config"
	"sessfs/fusefs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var now = time.Unix(1_800_000_000, 0)

// goodFacts are those of a host on which nothing is wrong.
func goodFacts() *Facts {
	c := config.Default()
	f := &Facts{Config: c, ConfigFile: "/etc/sessfs/config.yaml", Mountpoint: c.Mountpoint, Now: now, Version: "1", HostID: "me"}
	f.Mount = Mount{Info: fusefs.MountInfo{Dir: c.Mountpoint, Type: fusefs.Type, Source: f.ConfigFile, Device: "0:50"}, Mode: 0o1733}
	f.Daemon = Daemon{PID: 1, Version: "1", Started: now.Add(-time.Hour)}
	f.System = System{Kernel: "6.18.1", Booted: true, Enabled: []string{"sessfs.service"}, Units: map[string]string{"sessfs.service": "[Unit]\nBefore=a.service php8.2-fpm.service\n", "php8.2-fpm.service": ""}}
	p := PHP{SAPI: "fpm", Name: "php-fpm", Settings: make(Settings)}
	for key, value := range builtin {
		p.Settings[key] = Setting{Value: value}
	}
	p.Settings["session.save_path"] = Setting{Value: c.Mountpoint}
	p.Settings["session.gc_probability"] = Setting{Value: "0"}
	p.Settings["session.use_strict_mode"] = Setting{Value: "On"}
	f.PHP = []PHP{p}
	for _, name := range []string{"a", "b", "c"} {
		c.Cache.Servers = append(c.Cache.Servers, config.Server{Name: name, Network: "tcp", Address: "10.0.0.1:" + name, Weight: 1})
		f.Servers = append(f.Servers, backend.Examination{Server: backend.Server{Name: name, Address: "10.0.0.1:" + name}, Meta: true, Remote: "10.0.0.1:11211", Asked: now,
			Stats:    map[string]string{"time": "1800000000", "uptime": "100000", "limit_maxbytes": "67108864", "bytes": "1000"},
			Settings: map[string]string{"item_size_max": "16777216", "maxconns": "1024", "slab_reassign": "yes", "lru_crawler": "yes", "evictions": "on"}})
	}
	c.Cache.Replicas = 2
	own := f.ownRecord()
	own.Host, own.Version = "web1", "1"
	f.Servers[0].Hosts = []backend.HostRecord{own}
	return f
}

// mate is a host like this one.
func mate(f *Facts) backend.HostRecord {
	h := f.ownRecord()
	h.ID, h.Host, h.Version = "mate", "web2", "1"
	return h
}

func (f *Facts) tell(h backend.HostRecord) { f.Servers[0].Hosts = append(f.Servers[0].Hosts, h) }

// TestChecks: what cannot easily be made to happen on a real machine, or not in a moment. The rest is in tests/doctor.
func TestChecks(t *testing.T) {
	if all := Check(goodFacts()); len(all) > 0 {
		t.Fatalf("on a good host there is %+v", all)
	}
	set := func(key, value string) func(*Facts) {
		return func(f *Facts) { f.PHP[0].Settings["session."+key] = Setting{Value: value} }
	}
	stat := func(key, value string) func(*Facts) { return func(f *Facts) { f.Servers[1].Stats[key] = value } }
	setting := func(key, value string) func(*Facts) { return func(f *Facts) { f.Servers[1].Settings[key] = value } }
	for _, tc := range []struct {
		name     string
		make     func(*Facts)
		code     string
		severity Severity
		text     string
	}{
		{"no PHP", func(f *Facts) { f.PHP = nil }, "php-none", Note, "phpinfo"},
		{"lazy_write is off", set("lazy_write", "0"), "php-lazy-write", Note, "every session in every request"},
		{"strict mode is off", set("use_strict_mode", "Off"), "php-strict-mode", Note, "forged"},
		{"a shorter gc_maxlifetime", set("gc_maxlifetime", "600"), "php-lifetime-shorter", Note, "10m"},
		{"a huge gc_maxlifetime", set("gc_maxlifetime", "99999999999999"), "php-lifetime", Error, "promises"},
		{"gc where it may list", func(f *Facts) {
			f.Config.Directory.Mode, f.Mount.Mode = 0o1777, 0o1777
			set("gc_probability", "1")(f)
		}, "php-gc", Note, "lists all sessions"},
		{"a relative save_path", set("save_path", "sessions"), "php-save-path", Error, "keeps its sessions in sessions"},
		{"an empty save_path", set("save_path", ""), "php-save-path", Error, "/tmp"},
		{"another mode", func(f *Facts) { f.Mount.Mode = 0o1777 }, "mount-mode", Warning, "1777"},
		{"another owner", func(f *Facts) { f.Mount.UID = 12345 }, "mount-owner", Warning, "12345"},
		{"another group", func(f *Facts) { f.Mount.GID = 12345 }, "mount-owner", Warning, "12345"},
		{"another configuration", func(f *Facts) { f.Mount.Info.Source = "/etc/other.yaml" }, "mount-config", Warning, "--config /etc/other.yaml"},
		{"it hangs", func(f *Facts) { f.Mount.Err = errStuck }, "mount-failing", Error, "5s"},
		{"another filesystem over it", func(f *Facts) { f.Mount.Info.Type = "tmpfs" }, "mount-missing", Error, "tmpfs"},
		{"an older mount in a namespace", func(f *Facts) {
			f.Mount.Processes = []Process{{PID: 7, Name: "php-fpm8.2", Service: "php8.2-fpm.service", Mounts: []fusefs.MountInfo{{Dir: f.Mountpoint, Type: fusefs.Type, Device: "0:44"}}}}
		}, "mount-namespace", Error, "systemctl restart php8.2-fpm.service"},
		{"a container without it", func(f *Facts) { f.Mount.Processes = []Process{{PID: 7, Name: "php-fpm", Elsewhere: true}} }, "mount-container", Note, "container"},
		{"the daemon is silent", func(f *Facts) { f.Daemon = Daemon{Err: errors.New("no answer")} }, "daemon-silent", Error, "no answer"},
		{"an upgrade that is not in use", func(f *Facts) { f.Daemon.Version = "0.9" }, "daemon-version", Warning, "sessfs upgrade"},
		{"lost stores", func(f *Facts) { f.Daemon.LostStores = 3 }, "daemon-lost-stores", Warning, "lost 3"},
		{"no servers", func(f *Facts) { f.Config.Cache.Servers, f.Servers = nil, nil }, "servers-none", Warning, "end with it"},
		{"one copy", func(f *Facts) { f.Config.Cache.Replicas = 1; f.Servers[0].Hosts = nil }, "servers-replicas", Note, "replicas: 1"},
		{"old evictions", func(f *Facts) {
			stat("evictions", "5")(f)
			f.Servers[1].Items = map[string]string{"items:3:evicted": "5", "items:3:evicted_time": "90000", "items:4:evicted": "0", "items:4:evicted_time": "0"}
		}, "server-evictions", Warning, "-m 128"},
		{"memory nearly full", stat("bytes", "67000000"), "server-memory", Warning, "63 of its 64 MiB"},
		{"it refuses when it is full", setting("evictions", "off"), "server-no-evictions", Note, "-M"},
		{"small items", setting("item_size_max", "1048576"), "server-item-size", Note, "1024 KiB"},
		{"no reassigning", setting("slab_reassign", "no"), "server-slabs", Note, "slab_reassign"},
		{"slow", func(f *Facts) { f.Servers[1].RoundTrip = 200 * time.Millisecond }, "server-slow", Warning, "200ms"},
		{"young", stat("uptime", "60"), "server-young", Note, "60 seconds"},
		{"restarted", func(f *Facts) { f.Daemon.Restarted = map[string]time.Time{"b": now.Add(-10 * time.Minute)} }, "server-restarted", Warning, "10 minutes"},
		{"classic", func(f *Facts) { f.Servers[1].Meta = false }, "server-classic", Note, "1.6.13"},
		{"many connections", stat("curr_connections", "1000"), "server-connections", Warning, "-c 4096"},
		{"refused connections", stat("listen_disabled_num", "2"), "server-connections", Warning, "2 times"},
		{"idle timeout", setting("idle_timeout", "60"), "server-idle-timeout", Note, "60 seconds"},
		{"public", func(f *Facts) { f.Servers[1].Remote = "93.184.216.34:11211" }, "server-public", Warning, "93.184.216.34"},
		{"public, IPv6", func(f *Facts) { f.Servers[1].Remote = "[2606:2800::1]:11211" }, "server-public", Warning, "2606:2800::1"},
		{"its clock is behind", stat("time", "1799999900"), "server-clock", Warning, "behind"},
		{"its clock is ahead", stat("time", "1800000100"), "server-clock", Warning, "ahead of"},
		{"a damaged history of lists", func(f *Facts) { f.Servers[1].ListsErr = errors.New("x\ny") }, "hosts-damaged", Warning, "x; y"},
		{"another owner elsewhere", func(f *Facts) { h := mate(f); h.Owner = "www-data"; f.tell(h) }, "hosts-differ", Warning, "owner: www-data; here it is keep"},
		{"another size elsewhere", func(f *Facts) { h := mate(f); h.MaxSize = 7; f.tell(h) }, "hosts-differ", Warning, "session.max_size: 7"},
		{"another lease elsewhere", func(f *Facts) { h := mate(f); h.Lease = 60; f.tell(h) }, "hosts-differ", Warning, "lock.lease: 1m; here it is 10s"},
		{"another keep elsewhere", func(f *Facts) { h := mate(f); h.Keep = 500; f.tell(h) }, "hosts-differ", Warning, "lock.keep: 500ms; here it is 0s"},
		{"another depth elsewhere", func(f *Facts) { h := mate(f); h.Depth = 1; f.tell(h) }, "hosts-differ", Note, "depth: 1"},
		{"another version elsewhere", func(f *Facts) { h := mate(f); h.Version = "2"; f.tell(h) }, "hosts-version", Note, "version 2"},
		{"other addresses", func(f *Facts) { h := mate(f); h.Addresses = "x"; f.tell(h) }, "hosts-addresses", Note, "same names"},
		{"another site, of one host", func(f *Facts) { h := mate(f); h.Prefix, h.List = "other:", "x"; f.tell(h) }, "hosts-other-site", Note, `"other:" on web2`},
		{"alone among hosts of another prefix", func(f *Facts) {
			for _, id := range []string{"x", "y", "z"} {
				h := mate(f)
				h.Prefix, h.ID, h.Host = "other:", id, "web-"+id
				f.tell(h)
			}
		}, "hosts-prefix", Warning, "and 2 other hosts"},
		{"a name twice", func(f *Facts) { f.tell(mate(f)); h := mate(f); h.ID = "clone"; f.tell(h) }, "hosts-name", Note, "twice"},
		{"a clock behind", func(f *Facts) { h := mate(f); h.Ahead = -30_000; f.tell(h) }, "hosts-clock", Warning, "30 seconds behind"},
		{"an old kernel", func(f *Facts) { f.System.Kernel = "6.9.0-1-amd64" }, "kernel-old", Note, "6.12"},
		{"PHP may start first", func(f *Facts) { f.System.Units["sessfs.service"] = "" }, "boot-order", Warning, "Before=php8.2-fpm.service"},
		{"Debian's cleaner", func(f *Facts) { f.System.Cleaner = true }, "debian-cleaner", Note, "phpsessionclean"},
		{"AppArmor", func(f *Facts) {
			f.Mount.Processes = []Process{{PID: 7, Name: "php-fpm8.2", Profile: "php-fpm (enforce)", Mounts: []fusefs.MountInfo{f.Mount.Info}}}
		}, "apparmor-enforced", Note, "/var/lib/php/sessions/** rwk,"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := goodFacts()
			tc.make(f)
			all := Check(f)
			if len(all) != 1 || all[0].Code != tc.code || all[0].Severity != tc.severity {
				t.Fatalf("found %+v", all)
			}
			if g := all[0]; !strings.Contains(g.Subject+" "+g.What+"\n"+g.Why+"\n"+g.New+"\n"+g.Do, tc.text) || g.Why == "" {
				t.Errorf("%q is not in %+v", tc.text, g)
			}
		})
	}
}

// What is no mistake.
func TestChecksAreSilent(t *testing.T) {
	for name, make := range map[string]func(*Facts){
		"a host like this one": func(f *Facts) { f.tell(mate(f)) },
		"a trailing slash":     func(f *Facts) { f.PHP[0].Settings["session.save_path"] = Setting{Value: f.Mountpoint + "/"} },
		"depth and mode": func(f *Facts) {
			f.Config.Depth = 2
			f.Servers[0].Hosts = nil
			f.PHP[0].Settings["session.save_path"] = Setting{Value: "2;0600;" + f.Mountpoint}
		},
		"a service of PHP that waits for the mount": func(f *Facts) {
			f.System.Units["sessfs.service"] = ""
			f.System.Units["php8.2-fpm.service"] = "[Unit]\nRequiresMountsFor=" + f.Mountpoint
		},
		"an Apache without PHP": func(f *Facts) { f.System.Units["apache2.service"] = "" },
		"a process that sees the mount": func(f *Facts) {
			f.Mount.Processes = []Process{{Name: "php-fpm", Mounts: []fusefs.MountInfo{f.Mount.Info}}}
		},
		"SELinux with a context of the mount": func(f *Facts) {
			f.System.Enforcing, f.System.FuseForWeb = true, "0"
			f.Mount.Info.Options = "rw,context=system_u:object_r:httpd_var_run_t:s0"
		},
		"a clock that is a little behind": func(f *Facts) { f.Servers[1].Stats["time"] = "1799999998" },
	} {
		f := goodFacts()
		make(f)
		if all := Check(f); len(all) > 0 {
			t.Errorf("%s: %+v", name, all)
		}
	}
}

// Each code stands in docs/doctor.md, and each code of that file is in use.
func TestCodesAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob("*.go")
	code := regexp.MustCompile(`(?:Code: |server\(e, |server\(&f.Servers\[i\], |hostFinding\(h, |g\.Code(?:, g\.Do)? = )"([a-z-]+)"`)
	used := make(map[string]bool)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range code.FindAllStringSubmatch(string(b), -1) {
			used[m[1]] = true
		}
	}
	var documented []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\|").FindAllStringSubmatch(string(doc), -1) {
		documented = append(documented, m[1])
		if !used[m[1]] {
			t.Errorf("docs/doctor.md has %s, which is never found", m[1])
		}
	}
	for c := range used {
		if !slices.Contains(documented, c) {
			t.Errorf("docs/doctor.md does not have %s", c)
		}
	}
	if len(used) < 50 {
		t.Errorf("only %d codes were found in the sources", len(used))
	}
}
