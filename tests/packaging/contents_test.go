package packaging

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sessfs/config"
	"sessfs/internal/testkit"
)

// files are those of both packages, with owner, mode and where links lead. What is left out are the pages of the
// commands, and what differs: see TestContents.
var files = []string{
	"-rw-r--r-- /etc/sessfs/config.yaml",
	"-rw-r--r-- /usr/lib/systemd/system/sessfs.service",
	"-rwxr-xr-x /usr/sbin/sessfs",
	"lrwxrwxrwx /usr/sbin/mount.sessfs -> sessfs",
	"-rw-r--r-- /usr/share/bash-completion/completions/sessfs",
	"-rw-r--r-- /usr/share/doc/sessfs/README.md",
	"-rw-r--r-- /usr/share/doc/sessfs/config.yaml",
	"-rw-r--r-- /usr/share/doc/sessfs/copyright",
	"-rw-r--r-- /usr/share/doc/sessfs/fstab.example",
	"-rw-r--r-- /usr/share/doc/sessfs/operations.md",
	"-rw-r--r-- /usr/share/fish/vendor_completions.d/sessfs.fish",
	"-rw-r--r-- /usr/share/man/man5/sessfs.yaml.5.gz",
	"-rw-r--r-- /usr/share/man/man8/mount.sessfs.8.gz",
	"-rw-r--r-- /usr/share/man/man8/sessfs.8.gz",
	"-rw-r--r-- /usr/share/man/man8/sessfs-mount.8.gz",
	"-rw-r--r-- /usr/share/man/man8/sessfs-upgrade.8.gz",
}

func TestContents(t *testing.T) {
	// dpkg-deb shows a link's mode as l---------, and paths as ./usr.
	debian := regexp.MustCompile(`(?m)^(\S+) root/root +\d+ \S+ \S+ \.(/.*?)/?$`).FindAllStringSubmatch(testkit.MustRun(t, "dpkg-deb", "-c", deb(t, newer)), -1)
	redhat := regexp.MustCompile(`(?m)^(\S+) root:root (/.*)$`).FindAllStringSubmatch(testkit.MustRun(t, "rpm", "-qp", "--queryformat",
		"[%{FILEMODES:perms} %{FILEUSERNAME}:%{FILEGROUPNAME} %{FILENAMES} -> %{FILELINKTOS}\n]", rpm(t, newer)), -1)
	for _, p := range []struct {
		name  string
		found [][]string
		more  []string
	}{
		{"deb", debian, []string{"-rw-r--r-- /usr/share/zsh/vendor-completions/_sessfs", "-rw-r--r-- /usr/share/doc/sessfs/var-lib-php-sessions.mount"}},
		{"rpm", redhat, []string{"drwxr-xr-x /etc/sessfs", "-rw-r--r-- /usr/share/zsh/site-functions/_sessfs", "-rw-r--r-- /usr/share/doc/sessfs/var-lib-php-session.mount"}},
	} {
		var all []string
		for _, f := range p.found {
			mode := f[1]
			if mode[0] == 'l' {
				mode = "lrwxrwxrwx"
			}
			all = append(all, mode+" "+strings.TrimSuffix(f[2], " -> "))
			if !slices.Contains([]string{"drwxr-xr-x", "-rw-r--r--", "-rwxr-xr-x", "lrwxrwxrwx"}, mode) || mode == "-rwxr-xr-x" && f[2] != "/usr/sbin/sessfs" && !strings.HasPrefix(f[2], "/usr/sbin/sessfs ->") {
				t.Errorf("%s: %s has mode %s", p.name, f[2], mode)
			}
		}
		for _, f := range slices.Concat(files, p.more) {
			if !slices.Contains(all, f) {
				t.Errorf("%s: there is no\n%s in\n%s", p.name, f, strings.Join(all, "\n"))
			}
		}
	}
	want(t, "conffiles", strings.TrimSpace(testkit.MustRun(t, "dpkg-deb", "-I", deb(t, newer), "conffiles")), "/etc/sessfs/config.yaml")
	want(t, "dependencies", testkit.MustRun(t, "dpkg-deb", "-f", deb(t, newer), "Depends", "Pre-Depends", "Recommends"), "")
	want(t, "version", strings.TrimSpace(testkit.MustRun(t, "dpkg-deb", "-f", deb(t, newer), "Version")), newer)
	flags := testkit.MustRun(t, "rpm", "-qp", "--queryformat", "[%{FILEFLAGS:fflags} %{FILENAMES}\n]", rpm(t, newer))
	if !strings.Contains(flags, "cn /etc/sessfs/config.yaml\n") {
		t.Errorf("rpm: config.yaml is not %%config(noreplace):\n%s", flags)
	}
	if dirs := regexp.MustCompile(`(?m)^\S* (/usr|/usr/sbin|/etc|/usr/share/man/man8)$`).FindString(flags); dirs != "" {
		t.Errorf("rpm: a directory of the system is the package's: %s", dirs)
	}
	if out := testkit.MustRun(t, "rpm", "-qp", "--requires", rpm(t, newer)); regexp.MustCompile(`(?m)^[^r\n]`).MatchString(out) { // rpmlib(…) alone
		t.Errorf("rpm: requires %s", out)
	}
	scripts := testkit.MustRun(t, "rpm", "-qp", "--scripts", rpm(t, newer))
	for _, s := range []string{"postinstall scriptlet", "preuninstall scriptlet", "postuninstall scriptlet"} {
		if !strings.Contains(scripts, s) {
			t.Errorf("rpm: no %s", s)
		}
	}
}

// Each package's configuration is valid, and says what the distribution's PHP expects; elsewhere it is the default.
func TestConfigurations(t *testing.T) {
	redhat := config.Default()
	redhat.Mountpoint, redhat.Directory.Group, redhat.Directory.Mode = "/var/lib/php/session", "apache", 0o770
	for flavor, expected := range map[string]*config.Config{"debian": config.Default(), "redhat": redhat} {
		c, err := config.Load(filepath.Join(build(t), newer, "package", flavor, "etc/sessfs/config.yaml"))
		if err != nil {
			t.Error(err)
			continue
		}
		want(t, flavor, fmt.Sprintf("%+v", c), fmt.Sprintf("%+v", expected))
		unit := "var-lib-php-sessions.mount"
		if flavor == "redhat" {
			unit = "var-lib-php-session.mount"
		}
		examples := filepath.Join(build(t), newer, "package", flavor, "usr/share/doc/sessfs")
		for _, file := range []string{unit, "fstab.example"} {
			b, err := os.ReadFile(filepath.Join(examples, file))
			if err != nil || !regexp.MustCompile(`(=|  )`+expected.Mountpoint+`(\n|  )`).Match(b) {
				t.Errorf("%s: %s does not name %s (%v):\n%s", flavor, file, expected.Mountpoint, err, b)
			}
		}
		copyright, _ := os.ReadFile(filepath.Join(examples, "copyright"))
		for _, m := range []string{"The Go programming language", "github.com/spf13/cobra v", "gopkg.in/yaml.v3 v", "Apache License", "BSD"} {
			if !strings.Contains(string(copyright), m) {
				t.Errorf("%s: the copyright file does not contain %q", flavor, m)
			}
		}
	}
}

// Installed, the units are right in systemd's eyes, with the program and the manual pages that they name.
func TestUnits(t *testing.T) {
	r := newRoot(t)
	r.install(newer)
	r.run("cp", "/usr/share/doc/sessfs/var-lib-php-sessions.mount", "/etc/systemd/system/")
	for _, unit := range []string{"sessfs.service", "var-lib-php-sessions.mount"} {
		if out := r.run("systemd-analyze", "verify", unit); strings.Contains(out, "sess") {
			t.Errorf("%s:\n%s", unit, out)
		}
	}
	// The two order themselves before the same services.
	mount, err := os.ReadFile(r.path("etc/systemd/system/var-lib-php-sessions.mount"))
	if err != nil {
		t.Fatal(err)
	}
	want(t, "Before= of the mount unit", setting(string(mount), "Before"), r.setting("Before"))
	for _, s := range []string{"php-fpm.service", "php8.2-fpm.service", "apache2.service", "httpd.service", "phpsessionclean.service"} {
		if !slices.Contains(strings.Fields(r.setting("Before")), s) {
			t.Errorf("it is not ordered before %s", s)
		}
	}
	if out, err := r.try("systemd-analyze", "security", "--offline=yes", "--threshold=50", "sessfs.service"); err != nil {
		t.Errorf("the unit is less confined than it was: %v\n%s", err, out)
	}
}

// The manual pages are right for mandoc and groff, there is one for each command and each key, and the shells read the
// completions.
func TestManualsAndCompletions(t *testing.T) {
	docs := filepath.Join(build(t), newer, "docs")
	pages, _ := filepath.Glob(filepath.Join(docs, "*.[58]"))
	if len(pages) < 12 {
		t.Fatalf("only %d pages", len(pages))
	}
	if out, code := testkit.Run(t, "mandoc", append([]string{"-Tlint", "-Wwarning"}, pages...)...); code != 0 || out != "" {
		t.Errorf("mandoc: exit %d\n%s", code, out)
	}
	for _, page := range pages {
		cmd := exec.Command("man", "--warnings", "-l", page)
		cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "MANWIDTH=80", "MANPAGER=cat")
		var complaints strings.Builder
		cmd.Stderr = &complaints
		if text, err := cmd.Output(); err != nil || complaints.Len() > 0 || len(text) < 300 {
			t.Errorf("man %s: %v: %s", filepath.Base(page), err, complaints.String())
		}
	}
	binary := filepath.Join(build(t), newer, "sessfs")
	_, help, _ := strings.Cut(testkit.MustRun(t, binary, "--help"), "Available Commands:")
	commands := regexp.MustCompile(`(?m)^  ([a-z]+) +\S`).FindAllStringSubmatch(help, -1)
	if len(commands) < 10 {
		t.Fatalf("sessfs --help shows %v", commands)
	}
	for _, c := range commands {
		page := filepath.Join(docs, "sessfs-"+c[1]+".8")
		if b, err := os.ReadFile(page); c[1] != "help" && (err != nil || !strings.Contains(string(b), newer)) {
			t.Errorf("the command %s has no page of this version: %v", c[1], err)
		}
	}
	keys, err := os.ReadFile(filepath.Join(docs, "sessfs.yaml.5"))
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range config.Keys() {
		if !strings.Contains(string(keys), "\n.B "+k+"\n") {
			t.Errorf("sessfs.yaml(5) does not have %s", k)
		}
	}
	for shell, complete := range map[string]string{
		"bash": `. /usr/share/bash-completion/bash_completion 2>/dev/null; . ./sessfs.bash; complete -p sessfs`,
		"zsh":  `autoload -U compinit; compinit -u -D; . ./_sessfs; whence -w _sessfs`,
		"fish": `source ./sessfs.fish; complete -C "sessfs upg"`,
	} {
		cmd := exec.Command(shell, "-c", complete)
		cmd.Dir, cmd.Env = docs, append(os.Environ(), "HOME="+testkit.Dir(t), "PATH="+filepath.Dir(binary)+":"+os.Getenv("PATH"))
		expected := map[string]string{"bash": "__start_sessfs", "zsh": "_sessfs: function", "fish": "upgrade"}[shell]
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), expected) {
			t.Errorf("%s does not take its completions: %v: %s", shell, err, out)
		}
	}
	if out, code := testkit.Run(t, binary, "docs", ".", docs); code != 2 { // what builds the pages is not in the program
		t.Errorf("sessfs docs: exit %d: %s", code, out)
	}
}
