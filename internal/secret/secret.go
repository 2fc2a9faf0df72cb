// Package secret reads the files that the configuration names for passwords, keys and certificates.
package secret

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// Directory is the environment variable by which systemd tells a service where its credentials are (LoadCredential=).
const Directory = "CREDENTIALS_DIRECTORY"

// MaxFile is the size in bytes of the largest file that is read.
const MaxFile = 1 << 20

// ErrNoCredentials: a name without a path is asked for, and systemd has given this process no credentials.
var ErrNoCredentials = errors.New("it is the name of a systemd credential, and only the service has those (LoadCredential= in its unit): use an absolute path elsewhere")

// Path is where a file is: an absolute path is itself, a name is one of systemd's credentials.
func Path(name string) (string, error) {
	dir := os.Getenv(Directory)
	switch {
	case filepath.IsAbs(name):
		return name, nil
	case name == "" || name != filepath.Base(name) || name == "." || name == "..":
		return "", fmt.Errorf("%q: an absolute path is needed, or the name of a systemd credential", name)
	case dir == "":
		return "", fmt.Errorf("%s: %w", name, ErrNoCredentials)
	}
	return filepath.Join(dir, name), nil
}

// Read returns what is in a file that nobody may read but its owner, who must be root or this process's user.
func Read(name string) ([]byte, error) { return read(name, true) }

// ReadPublic is Read for what is no secret, such as certificates.
func ReadPublic(name string) ([]byte, error) { return read(name, false) }

// ReadLine is Read for a password: the file's only line, without its end.
func ReadLine(name string) (string, error) {
	b, err := Read(name)
	if err != nil {
		return "", err
	}
	line := bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
	if len(line) == 0 || bytes.ContainsAny(line, "\r\n\x00") {
		return "", fmt.Errorf("%s: one line is expected in it, and nothing else", name)
	}
	return string(line), nil
}

func read(name string, private bool) ([]byte, error) {
	path, err := Path(name)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe must not keep it
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: it is no regular file", path)
	}
	if private {
		if err := checkPrivate(path, info); err != nil {
			return nil, err
		}
	}
	b, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err == nil && len(b) > MaxFile {
		err = fmt.Errorf("%s: it is larger than %d bytes", path, MaxFile)
	}
	return b, err
}

func checkPrivate(path string, info os.FileInfo) error {
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s: its mode is %#o, so that others than its owner may read or change it: chmod 600 %s", path, info.Mode().Perm(), path)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s: it belongs to the user %d, who may read and change it: chown root %s", path, st.Uid, path)
	}
	return nil
}
