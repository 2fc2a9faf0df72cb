package admin

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/netutil"
)

// Public shows metrics, health and the web page to everybody who can connect to an address: nothing there changes anything,
// or tells of a single session.
//
// A web site that an administrator visits could have his browser ask here, by a name of its own that it lets mean this
// address (DNS rebinding). The name is still in the request's Host then, so that the page answers to addresses, localhost
// and this host's own name alone; on a loopback address all the rest does so, too. On other addresses the rest answers to
// any name, since Prometheus and load balancers call hosts as they like.
type Public struct {
	handler  http.Handler
	hostname string
	log      *slog.Logger

	mu     sync.Mutex
	wanted string // the address; "": none. Guarded by mu
	closed bool   // guarded by mu
	http   *http.Server
	served chan struct{} // closed when http has ended
}

// maxConnections is how many there may be at a time; others wait.
const maxConnections = 64

// NewPublic makes one that does not listen yet. page may handle any path that is not one of metrics and health.
func NewPublic(d Daemon, page http.Handler, hostname string) *Public {
	mux := http.NewServeMux()
	d.public(mux)
	mux.Handle("GET /", page)
	p := &Public{hostname: hostname, log: d.Log}
	p.handler = p.guard(mux)
	return p
}

// public adds what everybody may see.
func (d Daemon) public(mux *http.ServeMux) {
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) { d.Metrics.ServeHTTP(w, r) })
	d.Health.routes(mux)
}

// Listen changes the address; "" is none. Where one cannot be listened on, the one before goes on.
func (p *Public) Listen(address string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if address == p.wanted && (p.http != nil || address == "") || p.closed {
		return nil
	}
	old := p.wanted
	if address == "" {
		p.stop()
		p.wanted = ""
		return nil
	}
	l, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) && p.http != nil { // by us, perhaps: the same port on another address
		p.stop()
		if l, err = net.Listen("tcp", address); err != nil {
			if l, again := net.Listen("tcp", old); again == nil {
				p.serve(l)
			}
		}
	}
	if err != nil {
		if p.http == nil {
			p.wanted = address // for Retry
		}
		return fmt.Errorf("admin.metrics: %w", err)
	}
	p.stop()
	p.wanted = address
	p.serve(l)
	return nil
}

// Retry tries again to listen where that was not possible: an address may come up later than the daemon.
func (p *Public) Retry() {
	p.mu.Lock()
	address, missing := p.wanted, p.http == nil && p.wanted != ""
	p.mu.Unlock()
	if missing && p.Listen(address) == nil {
		p.log.Info("metrics and the web page can be asked for now", "address", address)
	}
}

// On tells whether there is an address.
func (p *Public) On() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.wanted != ""
}

// serve answers on l. The caller holds mu.
func (p *Public) serve(l net.Listener) {
	s := &http.Server{Handler: p.handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(p.log.Handler(), slog.LevelDebug)}
	served := make(chan struct{})
	p.http, p.served = s, served
	go func() {
		defer close(served)
		if err := s.Serve(netutil.LimitListener(l, maxConnections)); !errors.Is(err, http.ErrServerClosed) {
			p.log.Error("metrics and the web page cannot be asked for any more", "address", l.Addr(), "err", err)
		}
	}()
}

// stop ends the server. The caller holds mu.
func (p *Public) stop() {
	if p.http != nil {
		p.http.Close()
		<-p.served
		p.http, p.served = nil, nil
	}
}

// Close ends it for good.
func (p *Public) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stop()
	p.closed, p.wanted = true, ""
}

// guard refuses names that are not this host's, and tells browsers to trust nothing that comes from elsewhere.
func (p *Public) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		if !p.ours(r.Host) && (isPage(r.URL.Path) || atLoopback(r)) {
			http.Error(w, "this host does not answer to that name: ask for it by its address, as localhost, or as "+p.hostname, http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// isPage tells the web page from what machines ask for.
func isPage(path string) bool { return path != "/metrics" && path != "/healthz" && path != "/readyz" }

// atLoopback tells whether the request came to a loopback address.
func atLoopback(r *http.Request) bool {
	a, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return ok && a.IP.IsLoopback()
}

// ours tells whether a Host is an address, localhost or this host's name. Old probes send none.
func (p *Public) ours(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	if name == "" || strings.EqualFold(name, "localhost") || strings.EqualFold(name, p.hostname) {
		return true
	}
	_, err := netip.ParseAddr(strings.Trim(name, "[]"))
	return err == nil
}
