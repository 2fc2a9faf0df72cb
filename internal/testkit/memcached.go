package testkit

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Memcached is a server on a port of its own, which it keeps over Stop and Start.
type Memcached struct {
	Addr string
	Safe *Safe // what it wants of its clients; nil: nothing
	t    testing.TB
	args []string
	env  []string // beside this process's
	proc *Process
}

// StartMemcached starts one with more arguments, such as "-I", "2m".
func StartMemcached(t testing.TB, args ...string) *Memcached {
	t.Helper()
	if safe := safeEverywhere(t); safe != nil {
		return StartSafe(t, safe, args...)
	}
	return startMemcached(t, nil, nil, args)
}

// StartSafe starts one that wants of its clients what safe has.
func StartSafe(t testing.TB, safe *Safe, args ...string) *Memcached {
	t.Helper()
	return startMemcached(t, safe, nil, append(safe.Args(), args...))
}

// The login of StartSASL's servers; memcached's own takes no password with a space in it.
const (
	SASLUser     = "web@test"
	SASLPassword = "correct horse"
)

// StartSASL starts one that wants a login by SASL, and speaks the binary protocol alone.
func StartSASL(t testing.TB, args ...string) *Memcached {
	t.Helper()
	dir := Dir(t)
	database := filepath.Join(dir, "sasldb")
	WriteFile(t, filepath.Join(dir, "memcached.conf"), "mech_list: plain\npwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: %s\n", database)
	user, realm, _ := strings.Cut(SASLUser, "@")
	cmd := exec.Command("saslpasswd2", "-p", "-c", "-f", database, "-u", realm, user)
	cmd.Stdin = strings.NewReader(SASLPassword)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("saslpasswd2: %v\n%s", err, out)
	}
	return startMemcached(t, nil, []string{"SASL_CONF_PATH=" + dir}, append([]string{"-S"}, args...))
}

func startMemcached(t testing.TB, safe *Safe, env, args []string) *Memcached {
	t.Helper()
	port := FreePort(t)
	m := &Memcached{t: t, Safe: safe, env: env, Addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
	m.args = append([]string{"-u", "root", "-U", "0", "-l", "127.0.0.1", "-p", strconv.Itoa(port)}, args...)
	m.Start()
	return m
}

// Start starts it, or starts it again: empty. More arguments hold until the next Start.
func (m *Memcached) Start(more ...string) {
	m.t.Helper()
	cmd := exec.Command("memcached", slices.Concat(m.args, more)...)
	cmd.Env = append(os.Environ(), m.env...)
	m.proc = StartCmd(m.t, cmd)
	Until(m.t, 10*time.Second, "memcached answers at "+m.Addr, func() bool {
		c, err := net.Dial("tcp", m.Addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// Stop kills it.
func (m *Memcached) Stop() { m.proc.Kill() }

// Process is what runs now.
func (m *Memcached) Process() *Process { return m.proc }

// dial connects as its clients must.
func (m *Memcached) dial() net.Conn {
	m.t.Helper()
	var c net.Conn
	var err error
	if m.Safe != nil {
		c, err = m.Safe.dial(m.Addr)
	} else {
		c, err = net.Dial("tcp", m.Addr)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	return c
}

// Command sends lines of the text protocol and returns the first line of the answer.
func (m *Memcached) Command(format string, args ...any) string {
	m.t.Helper()
	c := m.dial()
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	fmt.Fprintf(c, format+"\r\n", args...)
	b := make([]byte, 64<<10)
	n, err := c.Read(b)
	if err != nil {
		m.t.Fatal(err)
	}
	return string(b[:n])
}

// Stat is one of the server's figures.
func (m *Memcached) Stat(name string) int {
	m.t.Helper()
	_, rest, _ := strings.Cut(m.Command("stats"), "STAT "+name+" ")
	word, _, _ := strings.Cut(rest, "\r\n")
	n, err := strconv.Atoi(word)
	if err != nil {
		m.t.Fatalf("memcached says nothing of %s: %v", name, err)
	}
	return n
}

// Dump is the answer of `lru_crawler metadump hash`, the one that misses nothing.
func (m *Memcached) Dump() string {
	m.t.Helper()
	c := m.dial()
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(c, "lru_crawler metadump hash\r\n")
	var all []byte
	b := make([]byte, 64<<10)
	for !bytes.HasSuffix(all, []byte("END\r\n")) {
		n, err := c.Read(b)
		if err != nil {
			m.t.Fatal(err)
		}
		all = append(all, b[:n]...)
	}
	return string(all)
}
