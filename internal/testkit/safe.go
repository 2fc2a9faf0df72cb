package testkit

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// SafeEnv is the environment variable that, set to 1, has all servers want TLS, a client's certificate and a login, and all hosts
// be configured so.
const SafeEnv = "SESSFS_TEST_SECURE"

// The login of a Safe.
const (
	SafeUser     = "web"
	SafePassword = "correct-horse"
)

// Safe is what servers and hosts need to trust each other.
type Safe struct {
	CA             *Authority
	Server, Client Certificate
	Logins         string // the servers' file of users and passwords
	Password       string // the hosts' file
}

// NewSafe makes one for a test.
func NewSafe(t testing.TB) *Safe {
	t.Helper()
	return newSafe(t, func() string { return Dir(t) })
}

func newSafe(t testing.TB, dir func() string) *Safe {
	t.Helper()
	from, to := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	s := &Safe{CA: newAuthority(t, dir(), "good")}
	s.Server, s.Client = s.CA.issue(t, dir(), from, to, []string{"127.0.0.1"}), s.CA.issue(t, dir(), from, to, []string{"web1"})
	secrets := dir()
	s.Logins, s.Password = filepath.Join(secrets, "logins"), filepath.Join(secrets, "password")
	for path, text := range map[string]string{s.Logins: SafeUser + ":" + SafePassword + "\n", s.Password: SafePassword + "\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

var everywhere struct {
	sync.Mutex
	safe *Safe
	dir  string
}

// safeEverywhere is that of all tests of this process, if SafeEnv wants one; else nil.
func safeEverywhere(t testing.TB) *Safe {
	t.Helper()
	if os.Getenv(SafeEnv) != "1" {
		return nil
	}
	everywhere.Lock()
	defer everywhere.Unlock()
	if everywhere.safe == nil {
		dir := func() string {
			d, err := os.MkdirTemp(everywhere.dir, "sessfs-safe-")
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
		everywhere.dir = dir()
		everywhere.safe = newSafe(t, dir)
	}
	return everywhere.safe
}

// Args are those of a memcached that wants TLS, a certificate of its clients, and a login.
func (s *Safe) Args() []string {
	return []string{"-Y", s.Logins, "-Z", "-o", "ssl_chain_cert=" + s.Server.Cert + ",ssl_key=" + s.Server.Key + ",ssl_ca_cert=" + s.CA.File + ",ssl_verify_mode=2"}
}

// YAML is what a host has in its section cache.
func (s *Safe) YAML() string {
	return fmt.Sprintf("  tls: {ca: %s, cert: %s, key: %s}\n  auth: {user: %s, password_file: %s}\n", s.CA.File, s.Client.Cert, s.Client.Key, SafeUser, s.Password)
}

// dial connects to a server and logs in.
func (s *Safe) dial(address string) (net.Conn, error) {
	pair, err := tls.LoadX509KeyPair(s.Client.Cert, s.Client.Key)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	ca, err := os.ReadFile(s.CA.File)
	if err != nil {
		return nil, err
	}
	roots.AppendCertsFromPEM(ca)
	c, err := tls.Dial("tcp", address, &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}})
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(c, "set auth 0 0 %d\r\n%s %s\r\n", len(SafeUser)+1+len(SafePassword), SafeUser, SafePassword)
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.HasPrefix(line, "STORED") {
		c.Close()
		return nil, fmt.Errorf("logging in: %q, %v", line, err)
	}
	return c, nil
}
