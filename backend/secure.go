package backend

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"sessfs/internal/secret"
)

// Secure is how connections to the servers are protected. The files are named as package secret does, and read again for
// each connection that is made, so that they may change at any time.
type Secure struct {
	TLS   *TLS   // nil: none. Connections over unix sockets have none in any case
	Login *Login // nil: none
}

// TLS is how the servers and this host show each other who they are.
type TLS struct {
	CA         string // file of certificates that may sign those of servers; "": the system's
	Cert, Key  string // files of the certificate that this host shows, and its key; "": none
	ServerName string // that the servers' certificates must have; "": the host of the address
	MinVersion uint16 // of crypto/tls
}

// Login is what is told to servers that want a login.
type Login struct {
	User         string
	PasswordFile string
}

// maxLogin is how many bytes memcached takes of user and password together.
const maxLogin = 200

// Check tells whether all files can be read and belong together.
func (o Secure) Check() error {
	_, err := o.load(nil)
	return err
}

// guard protects the connections of a Cluster.
type guard struct {
	o   Secure
	log *slog.Logger

	mu        sync.Mutex
	last      *protection // guarded by mu: of files that were good
	complaint string      // guarded by mu: what was logged last
}

// protection is what the files say.
type protection struct {
	ca, cert, key []byte
	tls           *tls.Config
	password      string
}

// secured is what protects a connection.
type secured struct {
	tls   string // version; "": none
	login string // "", loginASCII or loginSASL
}

// How a server lets this host in.
const (
	loginASCII = "ascii" // memcached -Y
	loginSASL  = "sasl"  // memcached -S
)

func newGuard(o Secure, log *slog.Logger) *guard { return &guard{o: o, log: log} }

// now reads the files. Where they are not good any more those that were hold: a certificate and its key are not replaced in
// one step.
func (g *guard) now() (*protection, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p, err := g.o.load(g.last)
	switch {
	case err == nil:
		g.last, g.complaint = p, ""
	case g.last == nil:
		return nil, err
	case g.complaint != err.Error():
		g.complaint = err.Error()
		g.log.Error("the files of cache.tls and cache.auth cannot be used as they are now; what was read before holds", "err", err)
	}
	return g.last, nil
}

// load reads the files; where nothing has changed since last it is returned.
func (o Secure) load(last *protection) (*protection, error) {
	p := &protection{}
	var err error
	if l := o.Login; l != nil {
		if p.password, err = secret.ReadLine(l.PasswordFile); err != nil {
			return nil, fmt.Errorf("cache.auth.password_file: %w", err)
		}
		if len(l.User)+len(p.password) > maxLogin {
			return nil, fmt.Errorf("cache.auth.password_file: user and password have more than %d bytes together", maxLogin)
		}
	}
	if o.TLS == nil {
		return p, nil
	}
	for _, f := range []struct {
		key, name string
		into      *[]byte
		read      func(string) ([]byte, error)
	}{
		{"ca", o.TLS.CA, &p.ca, secret.ReadPublic}, {"cert", o.TLS.Cert, &p.cert, secret.ReadPublic}, {"key", o.TLS.Key, &p.key, secret.Read},
	} {
		if f.name == "" {
			continue
		}
		if *f.into, err = f.read(f.name); err != nil {
			return nil, fmt.Errorf("cache.tls.%s: %w", f.key, err)
		}
	}
	if last != nil && last.tls != nil && string(last.ca) == string(p.ca) && string(last.cert) == string(p.cert) && string(last.key) == string(p.key) {
		p.tls = last.tls
		return p, nil
	}
	return p, p.makeTLS(o.TLS)
}

func (p *protection) makeTLS(o *TLS) error {
	// Records of full size: what matters is where they end (conn_tls.go).
	p.tls = &tls.Config{MinVersion: o.MinVersion, DynamicRecordSizingDisabled: true}
	if o.CA != "" {
		p.tls.RootCAs = x509.NewCertPool()
		if !p.tls.RootCAs.AppendCertsFromPEM(p.ca) {
			return fmt.Errorf("cache.tls.ca: %s: there is no certificate in PEM form in it", o.CA)
		}
	}
	if o.Cert == "" {
		return nil
	}
	pair, err := tls.X509KeyPair(p.cert, p.key)
	if err != nil {
		return fmt.Errorf("cache.tls.cert %s and cache.tls.key %s: %s", o.Cert, o.Key, strings.TrimPrefix(err.Error(), "tls: "))
	}
	p.tls.Certificates = []tls.Certificate{pair}
	return nil
}

// connect makes a connection, and a safe one: the server has shown who it is, and this host has logged in.
func (g *guard) connect(ctx context.Context, s *server) (net.Conn, secured, error) {
	if g.o.Login == nil {
		return g.connectBy(ctx, s, false)
	}
	// A server with SASL ends a connection whose first words are not binary. Others may wait for the end of a line that is, so
	// that this is tried first only where it went well the last time.
	if s.binary.Load() {
		nc, how, err := g.connectBy(ctx, s, true)
		s.binary.Store(err == nil)
		return nc, how, err
	}
	nc, how, err := g.connectBy(ctx, s, false)
	if !errors.Is(err, errOther) {
		return nc, how, err
	}
	nc, how, err = g.connectBy(ctx, s, true)
	s.binary.Store(err == nil)
	if errors.Is(err, errOther) {
		err = g.explainFirst(errClosed)
	}
	return nc, how, err
}

func (g *guard) connectBy(ctx context.Context, s *server, binary bool) (nc net.Conn, how secured, err error) {
	var d net.Dialer
	if nc, err = d.DialContext(ctx, s.network, s.address); err != nil {
		return nil, how, err
	}
	if g.o.Login == nil && (g.o.TLS == nil || s.network == "unix") {
		return nc, how, nil
	}
	raw := nc
	defer func() {
		if err != nil {
			raw.Close()
		}
	}()
	p, err := g.now()
	if err != nil {
		return nil, how, err
	}
	raw.SetDeadline(deadlineOf(ctx))
	if p.tls != nil && s.network != "unix" {
		c := p.tls.Clone()
		if c.ServerName = g.o.TLS.ServerName; c.ServerName == "" {
			c.ServerName, _, _ = net.SplitHostPort(s.address)
		}
		t := tls.Client(&tlsPipe{Conn: raw}, c)
		if err := t.HandshakeContext(ctx); err != nil {
			return nil, how, explainTLS(err, c.ServerName)
		}
		nc, how.tls = t, strings.TrimPrefix(tls.VersionName(t.ConnectionState().Version), "TLS ")
	}
	if binary {
		b := newBinaryConn(nc)
		nc, how.login, err = b, loginSASL, b.login(g.o.Login.User, p.password)
	} else {
		how.login, err = g.greet(nc, p.password)
	}
	switch {
	case err == nil:
		raw.SetDeadline(time.Time{})
		return nc, how, nil
	case isAlert(err):
		err = explainTLS(err, "")
	case g.o.Login != nil && hasEnded(err):
		err = errOther
	}
	return nil, how, plainError(timedOut(err))
}

// greet finds out whether the server lets this host in, and logs in where it wants that. A server that wants no login is
// not told the password: it would store it.
func (g *guard) greet(nc net.Conn, password string) (login string, err error) {
	// One that is binary reads a header's length before it says anything.
	line, err := say(nc, fmt.Sprintf("%-*s\r\n", binaryHeader, "version"))
	if err != nil {
		return "", err
	}
	_, err = versionOf(line)
	var r *Refusal
	if g.o.Login == nil || !errors.As(err, &r) || r.Kind != RefusedLogin {
		return "", err
	}
	if strings.Contains(password, " ") {
		return "", &Refusal{RefusedPassword, "it takes no password with a space in it, as that of cache.auth.password_file"}
	}
	if line, err = say(nc, fmt.Sprintf("set auth 0 0 %d\r\n%s %s\r\n", len(g.o.Login.User)+1+len(password), g.o.Login.User, password)); err != nil {
		return "", err
	}
	if line != "STORED" {
		return "", &Refusal{RefusedPassword, fmt.Sprintf("it does not take the password of user %s (%.60q)", g.o.Login.User, line)}
	}
	return loginASCII, nil
}

// say sends text and returns the line that is the answer, and nothing more.
func say(nc net.Conn, text string) (string, error) {
	_, notSent := nc.Write([]byte(text))
	var line []byte
	for b := make([]byte, 1); len(line) < maxLine; {
		// Also where it was not sent: what the server has said before it closed the connection tells why.
		if n, err := nc.Read(b); n == 0 && err != nil {
			if notSent != nil && !isAlert(err) {
				err = notSent
			}
			return "", err
		}
		if b[0] == '\n' {
			return strings.TrimSuffix(string(line), "\r"), nil
		}
		line = append(line, b[0])
	}
	return "", fmt.Errorf("%w: a line without end", errSurprise)
}

// SetSecure changes how connections are protected. Those that stand are ended: none shall go on unprotected, or with the
// rights of another user. The error is that of a file that cannot be used; all stays as it was then.
func (c *Cluster) SetSecure(o Secure) error {
	if err := o.Check(); err != nil {
		return err
	}
	c.guard.Store(newGuard(o, c.log))
	for _, s := range c.servers() {
		s.connectAnew()
	}
	return nil
}

// connectAnew ends the connections that stand.
func (s *server) connectAnew() {
	s.mu.Lock()
	conns := append([]*conn(nil), s.conns...)
	in := s.info
	if in != nil && in.classic != nil {
		s.info = nil
		s.epoch++
	}
	s.mu.Unlock()
	for _, c := range conns {
		if c != nil {
			c.fail(errAnew)
		}
	}
	if in != nil && in.classic != nil {
		in.classic.close()
	}
}

var errAnew = errors.New("the connection is made anew, with another protection")
