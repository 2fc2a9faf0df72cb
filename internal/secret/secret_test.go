package secret

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func write(t *testing.T, path, text string, mode os.FileMode) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// A file that others may read or change is refused, by its mode or by its owner; a certificate may be read by all.
func TestWhoMayReadIt(t *testing.T) {
	dir := t.TempDir()
	for mode, want := range map[os.FileMode]string{0o600: "", 0o400: "", 0o640: "chmod 600", 0o604: "chmod 600", 0o620: "chmod 600", 0o601: "chmod 600"} {
		path := write(t, filepath.Join(dir, "f"), "word\n", mode)
		b, err := ReadLine(path)
		if want == "" && (err != nil || b != "word") || want != "" && (err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path)) {
			t.Errorf("mode %o: %q, %v", mode, b, err)
		}
		if b, err := ReadPublic(path); err != nil || string(b) != "word\n" {
			t.Errorf("a certificate of mode %o: %q, %v", mode, b, err)
		}
	}
	if os.Geteuid() == 0 {
		path := write(t, filepath.Join(dir, "theirs"), "word", 0o600)
		if err := os.Chown(path, 65534, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(path); err == nil || !strings.Contains(err.Error(), "chown root") {
			t.Errorf("another user's file: %v", err)
		}
	}
}

// Names are looked up in systemd's directory, where there is one; nothing else is.
func TestCredentials(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "password"), "word", 0o400)
	t.Setenv(Directory, "")
	if _, err := Read("password"); !errors.Is(err, ErrNoCredentials) {
		t.Errorf("without systemd: %v", err)
	}
	t.Setenv(Directory, dir)
	if b, err := ReadLine("password"); err != nil || b != "word" {
		t.Errorf("%q, %v", b, err)
	}
	for _, name := range []string{"", ".", "..", "../" + filepath.Base(dir) + "/password", "./password"} {
		if _, err := Read(name); err == nil || errors.Is(err, os.ErrNotExist) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestWhatIsNoSecret(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"empty": "", "newline": "\n", "two": "a\nb\n", "nul": "a\x00b", "return": "a\rb"} {
		if got, err := ReadLine(write(t, filepath.Join(dir, name), text, 0o600)); err == nil {
			t.Errorf("%s: %q", name, got)
		}
	}
	if got, err := ReadLine(write(t, filepath.Join(dir, "dos"), "a b\r\n", 0o600)); err != nil || got != "a b" {
		t.Errorf("%q, %v", got, err)
	}
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, dir, write(t, filepath.Join(dir, "large"), strings.Repeat("x", MaxFile+1), 0o600)} {
		if _, err := Read(path); err == nil {
			t.Errorf("%s was read", path)
		}
	}
	if _, err := Read(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
