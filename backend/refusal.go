package backend

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"
)

// Refusal is why a server and this host do not trust each other: trying again does not help.
type Refusal struct {
	Kind   RefusalKind
	Reason string
}

// RefusalKind is what is to be put right.
type RefusalKind string

// The kinds of refusals.
const (
	RefusedLogin       RefusalKind = "login"              // it wants a login, and none is configured
	RefusedPassword    RefusalKind = "password"           // it does not take the password
	RefusedCertificate RefusalKind = "certificate"        // its certificate is not accepted
	RefusedClient      RefusalKind = "client-certificate" // it does not accept this host's
	RefusedTLS         RefusalKind = "tls"                // one side wants TLS and the other does not, or has too old a version
)

func (r *Refusal) Error() string { return r.Reason }

// versionOf takes the answer to version apart. The error may be a Refusal.
func versionOf(line string) (string, error) {
	version, ok := strings.CutPrefix(line, "VERSION ")
	switch {
	case ok:
		return shown(version, 40), nil
	case strings.HasPrefix(line, "CLIENT_ERROR unauthenticated"):
		return "", &Refusal{RefusedLogin, "it wants a login, and cache.auth is not set"}
	case strings.HasPrefix(line, "\x15\x03"): // an alert
		return "", &Refusal{RefusedTLS, "it wants TLS, and cache.tls is not set"}
	}
	return "", fmt.Errorf("it does not speak memcached's protocol: %.40q to version", line)
}

// explainFirst says what the end of a connection means over which nothing was answered yet.
func (g *guard) explainFirst(err error) error {
	if g.o.TLS == nil && hasEnded(err) {
		return &Refusal{RefusedTLS, "it ends the connection instead of an answer: it wants TLS, it seems, and cache.tls is not set"}
	}
	return plainError(err)
}

// hasEnded tells whether err is that the server has ended the connection.
func hasEnded(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, errClosed) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

func isAlert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

func timedOut(err error) error {
	switch {
	case isTimeout(err):
		return errTimeout
	case errors.Is(err, io.EOF):
		return errClosed
	}
	return err
}

// explainTLS says in other words what went wrong in a handshake with a server that should be name, or just after it, where
// a server tells what it thinks of this host's certificate.
func explainTLS(err error, name string) error {
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var header tls.RecordHeaderError
	var op *net.OpError
	certificate := func(format string, args ...any) error {
		return &Refusal{RefusedCertificate, "its certificate is not accepted: " + fmt.Sprintf(format, args...)}
	}
	switch {
	case errors.As(err, &unknown):
		by := "somebody who is unknown"
		if unknown.Cert != nil {
			by = fmt.Sprintf("%q", unknown.Cert.Issuer.String())
		}
		return certificate("it is signed by %s, and by nobody of cache.tls.ca", by)
	case errors.As(err, &host):
		return certificate("it is that of %s, and not of %s", namesOf(host.Certificate), name)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil:
		if time.Now().Before(invalid.Cert.NotBefore) {
			return certificate("it begins at %s only", invalid.Cert.NotBefore.Format(time.RFC3339))
		}
		return certificate("it has expired at %s", invalid.Cert.NotAfter.Format(time.RFC3339))
	case errors.As(err, new(*tls.CertificateVerificationError)), errors.As(err, &invalid):
		return certificate("%v", err)
	case errors.As(err, &header):
		return &Refusal{RefusedTLS, "it speaks no TLS, and cache.tls is set"}
	case isAlert(err) && errors.As(err, &op):
		return alert(strings.TrimPrefix(op.Err.Error(), "tls: "))
	case errors.Is(err, context.DeadlineExceeded), isTimeout(err), errors.Is(err, errTimeout):
		return errTimeout
	case errors.Is(err, io.EOF):
		return errors.New("it closed the connection in the middle of the TLS handshake")
	case strings.Contains(err.Error(), "unsupported protocol version"):
		return &Refusal{RefusedTLS, "it speaks too old a version of TLS only (cache.tls.min_version)"}
	}
	return plainError(err)
}

// alert is what a server says that does not go on.
func alert(what string) error {
	switch {
	case strings.Contains(what, "protocol version"):
		return &Refusal{RefusedTLS, fmt.Sprintf("it does not speak this version of TLS (%s; cache.tls.min_version)", what)}
	case strings.Contains(what, "certificate"):
		return &Refusal{RefusedClient, fmt.Sprintf("it does not accept this host's certificate (%s; cache.tls.cert)", what)}
	}
	return &Refusal{RefusedTLS, fmt.Sprintf("it refuses the TLS handshake (%s)", what)}
}

// namesOf are the names that a certificate is for.
func namesOf(c *x509.Certificate) string {
	var names []string
	names = append(names, c.DNSNames...)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return "nobody (it has no subject alternative name)"
	}
	return strings.Join(names, ", ")
}
