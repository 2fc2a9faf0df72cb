package packaging

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sessfs/internal/testkit"
)

// threeLines is the configuration that is enough. (The timeout: a busy machine must not look like a dead server.)
func threeLines(servers ...*testkit.Memcached) string {
	return fmt.Sprintf("cache:\n  servers: [%q, %q]\n  timeout: 4s\n", servers[0].Addr, servers[1].Addr)
}

// Two clean Debians: install, a configuration of three lines, start: PHP shares sessions. A purge leaves nothing but what
// the administrator wrote.
func TestInstallRunPurge(t *testing.T) {
	servers := []*testkit.Memcached{testkit.StartMemcached(t), testkit.StartMemcached(t)}
	var roots []*root
	var services []*service
	for range 2 {
		r := newRoot(t)
		if before := r.changes(); len(before) > 0 {
			t.Fatalf("the root is not clean: %v", before)
		}
		r.install(older)
		if r.exists("etc/systemd/system/multi-user.target.wants/sessfs.service") || r.mounted() {
			t.Error("installed, it is enabled or running, and would hide the sessions that are there")
		}
		if out := r.run("dpkg", "--verify", "sessfs"); out != "" {
			t.Errorf("installed files differ from the package's: %s", out)
		}
		want(t, "version", strings.Fields(r.run("sessfs", "version"))[1], "v"+older)
		r.run("sessfs", "config", "check") // as it comes
		r.write("etc/sessfs/config.yaml", threeLines(servers...))
		r.run("sessfs", "config", "check")
		r.write("etc/sessfs/seal.key", "of the administrator")
		roots, services = append(roots, r), append(services, r.start())
	}
	a, b := roots[0], roots[1]
	want(t, "PHP", a.php(write, "shared", "from a"), "ok")
	want(t, "PHP", b.php(read, "shared"), "from a")
	want(t, "PHP", b.php(write, "shared", "from b"), "ok")
	want(t, "PHP", a.php(read, "shared"), "from b")

	// Of a: systemctl stop. Of b: removed while it runs.
	services[0].Signal(15)
	if err := services[0].Wait(t, 20*time.Second); err != nil || a.mounted() {
		t.Errorf("stopped: %v, mounted: %v\n%s", err, a.mounted(), services[0].Output())
	}
	a.run("apt-get", "purge", "-y", "sessfs")
	b.run("apt-get", "remove", "-y", "sessfs")
	if err := services[1].Wait(t, 20*time.Second); err != nil || b.mounted() {
		t.Errorf("removed: %v, mounted: %v\n%s", err, b.mounted(), services[1].Output())
	}
	if !b.exists("etc/sessfs/config.yaml") || b.exists("usr/sbin/sessfs") || b.exists("usr/sbin/mount.sessfs") {
		t.Error("removed, the configuration is gone, or the program is not")
	}
	b.run("apt-get", "purge", "-y", "sessfs")
	for _, r := range roots {
		want(t, "left behind", strings.Join(r.changes(), " "), "/etc/sessfs /etc/sessfs/seal.key")
	}
}

// Nothing is left of an untouched installation, the daemon's files included that a mount by hand makes.
func TestPurgeUntouched(t *testing.T) {
	r := newRoot(t)
	r.install(older)
	r.run("sessfs", "mount")
	if !r.mounted() || !r.exists("run/sessfs/admin.sock") {
		t.Fatal("sessfs mount returned, and there is no mount")
	}
	umount := func() { // the daemon ends a moment later, and its socket with it
		r.run("sessfs", "umount", "/var/lib/php/sessions")
		testkit.Until(t, 20*time.Second, "the daemon has ended", func() bool { return len(r.processes()) == 0 })
	}
	umount()
	r.run("mount", "-t", "sessfs", "none", "/var/lib/php/sessions")
	umount()
	r.run("sh", "-c", "cat /usr/share/doc/sessfs/fstab.example >>/etc/fstab && mount /var/lib/php/sessions")
	r.run("apt-get", "purge", "-y", "sessfs")
	if r.mounted() {
		t.Error("purged, it is still mounted")
	}
	testkit.Until(t, 20*time.Second, "nothing is left but the line in fstab", func() bool { return slices.Equal(r.changes(), []string{"/etc/fstab"}) })
}

// A higher version is installed while PHP works: the mount stays and is served by it, no request fails, and the
// administrator's configuration is kept. Back to the older one likewise.
func TestUpgradeUnderLoad(t *testing.T) {
	servers := []*testkit.Memcached{testkit.StartMemcached(t), testkit.StartMemcached(t)}
	r := newRoot(t)
	r.install(older)
	r.write("etc/sessfs/config.yaml", threeLines(servers...))
	s := r.start()
	r.run("mount", "--bind", "/var/lib/php/sessions", "/media")
	want(t, "PHP", r.php(`session_id('count'); session_start(); $_SESSION['n'] = 0; echo "ok";`), "ok")

	done := make(chan struct{})
	var load sync.WaitGroup
	counts := make([]int, 2)
	for i := range counts {
		load.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if out, err := r.tryPHP(`session_id('count'); session_start() or exit("no session"); echo ++$_SESSION['n'] > 0 ? "ok" : "lost";`); out != "ok" || err != nil {
					t.Errorf("a request during the upgrade: %v: %s", err, out)
				}
				counts[i]++
			}
		})
	}
	// Both replace the running daemon too.
	out := r.run("dpkg", "-i", "/srv/"+newer+"/"+filepath.Base(deb(t, newer)))
	version := strings.Fields(r.run("sessfs", "version"))[1]
	back := r.run("dpkg", "-i", "/srv/"+older+"/"+filepath.Base(deb(t, older)))
	close(done)
	load.Wait()
	want(t, "installed", version, "v"+newer)
	want(t, "increments", r.php(`session_id('count'); session_start(); echo $_SESSION['n'];`), fmt.Sprint(counts[0]+counts[1]))
	for _, o := range []struct{ said, from, to string }{{out, older, newer}, {back, newer, older}} {
		if strings.Contains(o.said, "stays mounted") || !strings.Contains(o.said, "version v"+o.to+" (pid ") || !strings.Contains(o.said, "has taken over from v"+o.from) {
			t.Errorf("the running daemon was not replaced by that of %s; dpkg said\n%s", o.to, o.said)
		}
	}
	r.run("umount", "/media")
	if err := s.Stop(); err != nil || r.mounted() {
		t.Errorf("stopped: %v, mounted: %v\n%s", err, r.mounted(), s.Output())
	}
	b, err := os.ReadFile(r.path("etc/sessfs/config.yaml"))
	if err != nil || string(b) != threeLines(servers...) {
		t.Errorf("the configuration is now %s (%v)", b, err)
	}
	t.Logf("%d requests", counts[0]+counts[1])
}

// With systemd (here one that notes what it is told) the unit is read again, never stopped by an upgrade, and stopped and
// disabled when it is removed. That of rpm is the same.
func TestScriptsTellSystemd(t *testing.T) {
	for manager, steps := range map[string][3][]string{
		"dpkg": {{"dpkg", "-i", "/srv/" + older + "/" + filepath.Base(deb(t, older))}, {"dpkg", "-i", "/srv/" + newer + "/" + filepath.Base(deb(t, newer))}, {"dpkg", "--purge", "sessfs"}},
		"rpm": {{"rpm", "-U", "--force-debian", "--nodeps", "/srv/" + older + "/" + filepath.Base(rpm(t, older))},
			{"rpm", "-U", "--force-debian", "--nodeps", "/srv/" + newer + "/" + filepath.Base(rpm(t, newer))}, {"rpm", "-e", "--force-debian", "--nodeps", "sessfs"}},
	} {
		t.Run(manager, func(t *testing.T) {
			r := newRoot(t)
			r.run("sh", "-c", `mkdir -p /run/systemd/system
printf '#!/bin/sh\necho "$*" >>/tmp/told\n' >/usr/local/bin/systemctl; chmod +x /usr/local/bin/systemctl; mv /usr/local/bin/systemctl /usr/bin/systemctl; touch /tmp/told`)
			told := func() string {
				b, err := os.ReadFile(r.path("tmp/told"))
				if err != nil {
					t.Fatal(err)
				}
				r.write("tmp/told", "")
				return strings.Join(slices.DeleteFunc(strings.Split(string(b), "\n"), func(s string) bool { return s == "" }), ", ")
			}
			r.run(steps[0]...)
			want(t, "at installation", told(), "daemon-reload")
			if manager == "rpm" {
				r.run("groupadd", "apache") // whose the session directory is there
			}
			r.run("sessfs", "mount", "/media")
			r.run(steps[1]...)
			want(t, "at upgrade", told(), "daemon-reload")
			r.run("mountpoint", "-q", "/media")
			r.write("etc/sessfs/config.yaml", "# changed\n")
			r.run(steps[2]...)
			if manager == "rpm" {
				r.run("rm", "/etc/sessfs/config.yaml.rpmsave") // which a changed one becomes
				r.run("rmdir", "/etc/sessfs")
			}
			want(t, "at removal", strings.ReplaceAll(told(), "daemon-reload, daemon-reload", "daemon-reload"), "stop sessfs.service, disable sessfs.service, daemon-reload")
			if _, err := r.try("mountpoint", "-q", "/media"); err == nil {
				t.Error("removed, /media is still mounted")
			}
			testkit.Until(t, 10*time.Second, "the daemon's files are gone", func() bool { return !r.exists("run/sessfs") })
			if r.exists("etc/sessfs") || r.exists("usr/sbin/sessfs") {
				t.Error("removed, there are still files")
			}
		})
	}
}

// The scripts are sh, and do nothing harmful for what else dpkg and rpm call them with.
func TestScriptsOnTheirOwn(t *testing.T) {
	for _, script := range []string{"postinst", "prerm", "postrm"} {
		for _, arg := range []string{"abort-upgrade", "abort-remove", "deconfigure", "upgrade", "failed-upgrade", "disappear", "abort-install"} {
			out, err := exec.Command("sh", "-euc", `systemctl() { echo "systemctl $*"; }; findmnt() { echo findmnt; }; rm() { echo "rm $*"; }; . "$0"`,
				filepath.Join("../../packaging/scripts", script), arg).CombinedOutput()
			if err != nil || len(out) > 0 {
				t.Errorf("%s %s: %v: %s", script, arg, err, out)
			}
		}
	}
}
