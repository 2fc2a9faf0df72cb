package doctor

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sessfs/internal/doctor"
	"sessfs/internal/testkit"
)

// mistake is one that is made on a host that was good.
type mistake struct {
	name     string
	make     func(t *testing.T, h *host) // puts it right at the end of the test
	code     string
	severity doctor.Severity
	at       func(h *host) string // FILE:LINE, or FILE of what is to be added; nil: the cure is no line
	cure     string               // in the new line, or in what is to be done
	what     string               // in what is said
	exit     int
}

// good runs the doctor until it finds no error and no warning any more: a daemon takes a moment to take a file over.
func (h *host) good(t *testing.T) {
	t.Helper()
	h.until(t, "nothing", func(r doctor.Report, code int) bool { return code == 0 && r.Errors+r.Warnings == 0 })
}

// until runs the doctor until it finds something.
func (h *host) until(t *testing.T, what string, is func(doctor.Report, int) bool) doctor.Report {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; {
		r, code := h.doctor(t)
		if is(r, code) {
			return r
		}
		if time.Now().After(end) {
			var b strings.Builder
			r.Print(&b, true)
			t.Fatalf("the doctor does not find %s, but (exit %d)\n%s\n%s", what, code, b.String(), h.daemon.Output())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// try makes a mistake; the doctor must find it and nothing else.
func (h *host) try(t *testing.T, m mistake) {
	t.Helper()
	m.make(t, h)
	r := h.until(t, m.code+" alone", func(r doctor.Report, code int) bool {
		return r.Errors+r.Warnings == 1 && r.Findings[0].Code == m.code
	})
	_, exit := h.doctor(t)
	f := r.Findings[0]
	if f.Severity != m.severity || exit != m.exit {
		t.Errorf("it is a %v, exit %d; not a %v, exit %d", f.Severity, exit, m.severity, m.exit)
	}
	if f.What == "" || f.Why == "" || !strings.Contains(f.Subject+" "+f.What, m.what) {
		t.Errorf("it does not say %q: %+v", m.what, f)
	}
	if !strings.Contains(f.New+"\n"+f.Do, m.cure) {
		t.Errorf("the cure is not %q: %+v", m.cure, f)
	}
	if m.at != nil {
		place := f.File
		if f.Line > 0 {
			place = fmt.Sprintf("%s:%d", f.File, f.Line)
			if b, err := os.ReadFile(h.path(f.File)); err != nil || strings.TrimSpace(strings.Split(string(b), "\n")[f.Line-1]) != f.Old {
				t.Errorf("the line %s is not %q (%v)", place, f.Old, err)
			}
		}
		if want := m.at(h); place != want {
			t.Errorf("it names %s, not %s", place, want)
		}
	}
}

// TestDoctor: nothing is found on a good host, and each mistake is, alone, with its line and its cure.
func TestDoctor(t *testing.T) {
	testkit.Binary(t) // before the hosts want it together
	t.Run("php and system", func(t *testing.T) {
		t.Parallel()
		h := goodHost(t, "web1")
		for _, m := range slices.Concat(phpMistakes, systemMistakes) {
			t.Run(m.name, func(t *testing.T) { h.try(t, m) })
		}
		h.good(t)
	})
	t.Run("servers", func(t *testing.T) {
		t.Parallel()
		h := goodHost(t, "web1")
		for _, m := range serverMistakes {
			t.Run(m.name, func(t *testing.T) { h.try(t, m) })
		}
	})
	t.Run("hosts", func(t *testing.T) {
		t.Parallel()
		h := goodHost(t, "web1")
		for _, m := range hostMistakes {
			t.Run(m.name, func(t *testing.T) { h.try(t, m) })
		}
	})
	t.Run("mount", func(t *testing.T) {
		t.Parallel()
		for _, m := range mountMistakes {
			t.Run(m.name, func(t *testing.T) {
				h := newHost(t, "web1", []*testkit.Memcached{testkit.StartMemcached(t)})
				h.try(t, m)
			})
		}
	})
}

// goodHost runs, and nothing is wrong with it.
func goodHost(t *testing.T, name string) *host {
	t.Helper()
	h := newHost(t, name, []*testkit.Memcached{testkit.StartMemcached(t), testkit.StartMemcached(t)})
	h.mount()
	h.serve()
	h.good(t)
	if out, err := h.command(testkit.Binary(t), "doctor").CombinedOutput(); err != nil || strings.Count(string(out), "\n") != 1 || !strings.HasPrefix(string(out), "no problem found") {
		t.Errorf("on a good host the doctor says (%v)\n%s", err, out)
	}
	if out, err := h.command(testkit.Binary(t), "doctor", "--quiet", "--strict").CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("on a good host the doctor is not quiet (%v)\n%s", err, out)
	}
	// What it found to be good is: PHP keeps its sessions in the mount, with the settings of its files.
	h.run("setpriv", "--reuid=www-data", "--clear-groups", "php8.2", "-r", `session_id("good"); session_start(); $_SESSION["v"] = 1; session_write_close();`)
	if out := h.run("ls", mountpoint); strings.TrimSpace(out) != "sess_good" {
		t.Errorf("PHP has not stored its session in the mount: %s", out)
	}
	return h
}

func at(file, text string) func(*host) string {
	return func(h *host) string { return h.line(file, text) }
}

func only(file string) func(*host) string { return func(*host) string { return file } }

func replacing(file, old, new string) func(*testing.T, *host) {
	return func(t *testing.T, h *host) { h.replace(t, file, old, new) }
}

func adding(file, text string) func(*testing.T, *host) {
	return func(t *testing.T, h *host) { h.add(t, file, text) }
}

const (
	inPool  = "[www]\n"
	elseDir = "php_admin_value[session.save_path] = /srv/sessions"
	site    = "/etc/apache2/sites-enabled/shop.conf"
	apache  = "    php_admin_value session.save_path /srv/shop"
)

var phpMistakes = []mistake{
	{"wrong save_path in a pool", replacing(pool, inPool, inPool+elseDir+"\n"), "php-save-path", doctor.Error, at(pool, elseDir),
		`php_admin_value[session.save_path] = "/var/lib/php/sessions"`, "php-fpm 8.2, pool www keeps its sessions in /srv/sessions", 1},
	{"save_path without quotes", adding("/etc/php/8.2/fpm/conf.d/99-session.ini", "session.save_path = 2;"+mountpoint+"\n"), "php-save-path", doctor.Error,
		only("/etc/php/8.2/fpm/conf.d/99-session.ini:1"), `session.save_path = "/var/lib/php/sessions"`, "must stand in quotes", 1},
	{"another depth", replacing(pool, inPool, inPool+"php_value[session.save_path] = \"2;"+mountpoint+"\"\n"), "php-depth", doctor.Error, at(pool, "php_value[session.save_path]"),
		`php_value[session.save_path] = "/var/lib/php/sessions"`, "2 levels", 1},
	{"another handler", adding("/etc/php/8.2/fpm/conf.d/50-redis-sessions.ini", "\n[Session]\nsession.save_handler = redis\n"), "php-save-handler", doctor.Error,
		only("/etc/php/8.2/fpm/conf.d/50-redis-sessions.ini:3"), `session.save_handler = "files"`, `the handler "redis"`, 1},
	{"lifetime shorter than gc_maxlifetime", replacing(fpmINI, "session.gc_maxlifetime = 1440", "session.gc_maxlifetime = 7200"), "php-lifetime", doctor.Error,
		at(configFile, "  lifetime:"), "lifetime: 2h", "/etc/php/8.2/fpm/php.ini:", 1},
	{"PHP collects garbage", replacing(fpmINI, "session.gc_probability = 0", "session.gc_probability = 1"), "php-gc", doctor.Warning,
		at(fpmINI, "session.gc_probability = 1"), `session.gc_probability = "0"`, "1 of 1000 requests", 0},
	{"a pool with a chroot", replacing(pool, inPool, inPool+"chroot = /srv/www\n"), "php-save-path", doctor.Error, at(fpmINI, ";session.save_path ="),
		"systemctl reload php8.2-fpm", "/srv/www/var/lib/php/sessions", 1},
	{"the command line keeps its sessions elsewhere", replacing("/etc/php/8.2/cli/php.ini", "\n[Session]\n", "\n[Session]\nsession.save_path = /tmp\n"), "php-save-path", doctor.Warning,
		at("/etc/php/8.2/cli/php.ini", "session.save_path = /tmp"), `"/var/lib/php/sessions"`, "command line", 0},
	{"a site of Apache", func(t *testing.T, h *host) {
		h.add(t, "/etc/php/8.2/apache2/php.ini", "session.gc_probability = 0\n")
		h.add(t, "/etc/apache2/mods-enabled/php8.2.load", "LoadModule php_module /usr/lib/apache2/modules/libphp8.2.so\n")
		h.add(t, "/etc/apache2/apache2.conf", "IncludeOptional mods-enabled/*.load\nIncludeOptional sites-enabled/*.conf\n")
		h.add(t, site, "<VirtualHost *:80>\n    ServerName shop\n"+apache+"\n</VirtualHost>\n")
	}, "php-save-path", doctor.Error, at(site, apache), `php_admin_value session.save_path "/var/lib/php/sessions"`, "VirtualHost *:80", 1},
	{"names that are not allowed", replacing(configFile, "sess_*", "ci_session*"), "php-file-names", doctor.Error, at(configFile, "files:"), "sess_*", "ci_session*", 1},
}

var systemMistakes = []mistake{
	{"fstab without _netdev", replacing("/etc/fstab", "_netdev,", ""), "fstab-options", doctor.Warning, only("/etc/fstab:2"), "nofail,x-systemd.before=php8.2-fpm.service,_netdev", "lacks _netdev", 0},
	{"PHP may start first", replacing("/etc/fstab", ",x-systemd.before=php8.2-fpm.service", ""), "boot-order", doctor.Warning, only("/etc/fstab:2"),
		"_netdev,nofail,x-systemd.before=php8.2-fpm.service", "php8.2-fpm.service may start", 0},
	{"not mounted at boot", replacing("/etc/fstab", configFile, "#"), "boot-missing", doctor.Warning, nil, "systemctl enable sessfs", "does not come by itself", 0},
	{"mounted twice at boot", func(t *testing.T, h *host) {
		h.add(t, "/etc/systemd/system/sessfs.service", "[Unit]\nBefore=php8.2-fpm.service\n")
		h.add(t, "/etc/systemd/system/multi-user.target.wants/sessfs.service", "")
	}, "boot-twice", doctor.Warning, nil, "keep one", "/etc/fstab and by sessfs.service", 0},
	{"another configuration in fstab", replacing("/etc/fstab", configFile, "/etc/sessfs/old.yaml"), "fstab-config", doctor.Warning, only("/etc/fstab:2"), configFile, "old.yaml", 0},
	{"SELinux keeps PHP out", func(t *testing.T, h *host) {
		h.run("sh", "-ec", "mkdir -p /sys/fs/selinux/booleans; echo 1 > /sys/fs/selinux/enforce; echo '0 0' > /sys/fs/selinux/booleans/httpd_use_fusefs")
		t.Cleanup(func() { h.run("rm", "-r", "/sys/fs/selinux") })
	}, "selinux-fusefs", doctor.Error, nil, "setsebool -P httpd_use_fusefs on", "httpd_use_fusefs is off", 1},
	{"no /dev/fuse", func(t *testing.T, h *host) {
		h.run("sh", "-ec", "touch /run/nothing; mount --bind /run/nothing /dev/fuse")
		t.Cleanup(func() { h.run("umount", "/dev/fuse") })
	}, "fuse-device", doctor.Error, nil, "modprobe fuse", "/dev/fuse", 1},
	{"a key that needs a remount was changed", replacing(configFile, `prefix: "site:"`, `prefix: "other:"`), "daemon-config", doctor.Warning, only(configFile), "remount", `"site:", not "other:"`, 0},
}

// listed adds a server to the configuration.
func listed(address func(t *testing.T, h *host) string) func(*testing.T, *host) {
	return func(t *testing.T, h *host) {
		a := address(t, h)
		h.replace(t, configFile, "  servers:\n", fmt.Sprintf("  servers:\n    - {name: bad, address: %q}\n", a))
	}
}

func memcached(args ...string) func(t *testing.T, h *host) string {
	return func(t *testing.T, _ *host) string { return testkit.StartMemcached(t, args...).Addr }
}

var serverMistakes = []mistake{
	{"a server is down", listed(func(t *testing.T, _ *host) string { return fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t)) }), "server-unreachable", doctor.Error, nil,
		"start it", "connection refused", 4},
	{"it wants a login", listed(func(t *testing.T, h *host) string {
		passwords := testkit.WriteFile(t, filepath.Join(testkit.Dir(t), "passwords"), "user:secret\n")
		return testkit.StartMemcached(t, "-Y", passwords).Addr
	}), "server-login", doctor.Error, nil, "cache.auth", "wants a login", 4},
	{"it has no cas", listed(memcached("-C")), "server-no-cas", doctor.Error, nil, "without -C", "cas", 4},
	{"it does not list", listed(memcached("-o", "no_lru_crawler")), "server-no-listing", doctor.Warning, nil, "without no_lru_crawler", "does not list", 0},
	{"it is no memcached", listed(func(t *testing.T, _ *host) string {
		dir, port := testkit.Dir(t), testkit.FreePort(t)
		conf := testkit.WriteFile(t, filepath.Join(dir, "nginx.conf"), "daemon off; master_process off; pid %s/pid; error_log stderr; events {} http { access_log off; server { listen 127.0.0.1:%d; } }", dir, port)
		testkit.Start(t, "nginx", "-c", conf)
		address := fmt.Sprintf("127.0.0.1:%d", port)
		testkit.Until(t, 20*time.Second, "nginx listens", func() bool {
			c, err := net.Dial("tcp", address)
			if err == nil {
				c.Close()
			}
			return err == nil
		})
		return address
	}), "server-protocol", doctor.Error, nil, "correct its address", "does not speak memcached's protocol", 4},
	{"it evicts", listed(func(t *testing.T, _ *host) string {
		m := testkit.StartMemcached(t, "-m", "4")
		value := strings.Repeat("x", 500_000)
		testkit.Until(t, 10*time.Second, "it evicts", func() bool {
			m.Command("set filler%d 0 0 %d\r\n%s", time.Now().UnixNano(), len(value), value)
			return !strings.Contains(m.Command("stats"), "STAT evictions 0\r\n")
		})
		return m.Addr
	}), "server-evictions", doctor.Error, nil, "-m ", "for want of memory", 1},
	{"one is there twice", listed(func(t *testing.T, h *host) string {
		return strings.Replace(h.servers[0].Addr, "127.0.0.1", "localhost", 1)
	}), "servers-same", doctor.Error,
		at(configFile, "  servers:"), "once", "is the same server as cache1", 1},
	{"one was restarted", func(t *testing.T, h *host) {
		h.servers[1].Stop()
		h.servers[1].Start()
	}, "server-restarted", doctor.Warning, nil, "sessfs status", "cache2", 0},
}

// another is a host on the same servers, with a configuration that differs.
func another(name, old, new string) func(*testing.T, *host) {
	return func(t *testing.T, h *host) {
		other := newHost(t, name, h.servers)
		if old != "" {
			other.replace(t, configFile, old, new)
		}
		other.mount()
		t.Cleanup(func() {
			other.end()
			for _, s := range h.servers { // what it left would be believed for 15 minutes
				s.Command("delete %%sessfs.hosts")
			}
		})
	}
}

var hostMistakes = []mistake{
	{"a host with another prefix", another("web2", `prefix: "site:"`, `prefix: "sitee:"`), "hosts-prefix", doctor.Warning, at(configFile, "  prefix:"), `prefix: "sitee:"`,
		`host web2 (/var/lib/php/sessions) uses the same servers with the prefix "sitee:"`, 0},
	{"a host with another lifetime", another("web3", "lifetime: 24m", "lifetime: 1h"), "hosts-differ", doctor.Error, at(configFile, "  lifetime:"), "lifetime: 1h", "host web3", 1},
	{"a host with another list", another("web4", "- {name: cache2", "- {name: cachetwo"), "hosts-list", doctor.Error, at(configFile, "  servers:"), "on all hosts", "cache1, cachetwo", 1},
	{"a host with another clock", func(t *testing.T, h *host) {
		now := time.Now().Unix()
		record := fmt.Sprintf(`{"format":1,"hosts":[{"id":"x","host":"web5","mountpoint":"/m","version":"1","prefix":"third:","list":"l","addresses":"a","servers":1,"replicas":1,
			"quorum":"any","lifetime":1,"max_size":1,"lease":1,"keep":0,"depth":0,"owner":"keep","started":1,"seen":%d,"ahead":570000}]}`, now)
		h.servers[0].Command("set %%sessfs.hosts 0 60 %d\r\n%s", len(record), record)
		t.Cleanup(func() { h.servers[0].Command("delete %%sessfs.hosts") })
	}, "hosts-clock", doctor.Warning, nil, "NTP", "web5 (/m) had a clock that was 9 minutes ahead", 0},
	{"a damaged register", func(t *testing.T, h *host) {
		h.servers[0].Command("set %%sessfs.hosts 0 60 7\r\ngarbage")
		t.Cleanup(func() { h.servers[0].Command("delete %%sessfs.hosts") })
	}, "hosts-damaged", doctor.Warning, nil, "find out", "the register of hosts", 0},
}

var mountMistakes = []mistake{
	{"not mounted", func(t *testing.T, h *host) { h.serve() }, "mount-missing", doctor.Error, nil, "sessfs mount", "is not there", 5},
	{"daemon and keeper are dead", func(t *testing.T, h *host) {
		h.mount()
		h.run(append([]string{"kill", "-9"}, strings.Fields(h.run("pgrep", "sessfs"))...)...)
		testkit.Until(t, 10*time.Second, "the daemon is gone", func() bool {
			select {
			case <-h.daemon.Done():
				return true
			default:
				return false
			}
		})
	}, "mount-dead", doctor.Error, nil, "restart", "no daemon", 5},
	{"PHP was there before the mount", func(t *testing.T, h *host) {
		// As a service with a namespace of its own that does not see what is mounted later.
		h.fpm = testkit.StartCmd(t, h.command("unshare", "--mount", testkit.FPMBinary(t), "--nodaemonize", "--allow-to-run-as-root", "--fpm-config", fpmConf))
		t.Cleanup(h.end)
		testkit.Until(t, 20*time.Second, "php-fpm runs", func() bool { return h.command("pgrep", "-f", "php-fpm: pool www").Run() == nil })
		h.mount()
	}, "mount-namespace", doctor.Error, nil, "restart", "does not see the mount", 1},
	{"the directory shuts PHP out", func(t *testing.T, h *host) {
		h.replace(t, configFile, `"1733"`, `"0700"`)
		h.mount()
		h.serve()
	}, "mount-permission", doctor.Error, at(configFile, "  mode:"), `mode: "1733"`, "www-data", 1},
}
