// Package admin is the control socket of a running daemon: HTTP with JSON over a unix socket for root, and a group where
// one is named. `sessfs status`, ls, show, rm, unlock and rebalance are its clients. Metrics, health and profiles are there, too;
// what of that everybody may see can be had on an address (Public).
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"
	"unicode/utf8"

	"sessfs"
)

// Daemon is what the socket gives access to.
type Daemon struct {
	Status    func(ctx context.Context) any // is sent as JSON
	Store     sessfs.Store
	Backend   sessfs.Backend
	Rebalance RebalanceFunc // nil: sessions are kept in the process
	Metrics   http.Handler  // for Prometheus
	Health    Health
	// Named finds a session that is in use on this host by its hash, which is all that logs, status and top show.
	Named func(hash string) (sessfs.ID, bool)
	Group *uint32 // whose members may use the socket as root may; nil: none
	Log   *slog.Logger
}

// Entry is one session of `sessfs ls`, and the head of `sessfs show`.
type Entry struct {
	ID      string     `json:"id"`
	Hash    string     `json:"hash"`               // what stands for it in logs, status and top
	IDBytes []byte     `json:"id_bytes,omitempty"` // the id where it is not UTF-8, which JSON cannot carry
	Size    int64      `json:"size"`
	UID     uint32     `json:"uid"`
	GID     uint32     `json:"gid"`
	Mode    uint32     `json:"mode"`
	Mtime   time.Time  `json:"mtime"`
	Ctime   time.Time  `json:"ctime"`
	Expires *time.Time `json:"expires,omitempty"`
	Server  string     `json:"server,omitempty"`
}

// Name is the id, byte for byte.
func (e Entry) Name() string {
	if e.IDBytes != nil {
		return string(e.IDBytes)
	}
	return e.ID
}

// Session is `sessfs show`.
type Session struct {
	Entry
	State   string  `json:"state"` // live, missing, destroyed
	Counter uint64  `json:"version"`
	Holder  *Holder `json:"holder,omitempty"` // of the lock among hosts
	Data    []byte  `json:"data,omitempty"`
}

// Holder is who holds a lock.
type Holder struct {
	Host  string    `json:"host"`
	PID   uint32    `json:"pid"`
	Since time.Time `json:"since"`
}

// Server answers on the socket.
type Server struct {
	http   *http.Server
	path   string
	inode  uint64 // of the socket: one that another daemon has put in its place is left alone
	served chan struct{}
}

// ErrInUse: another daemon answers on the socket.
var ErrInUse = errors.New("the admin socket is in use")

// Serve listens on path and answers until Close. The directory is made if need be; a socket whose daemon is gone is
// replaced, one whose daemon answers is ErrInUse.
func Serve(path string, d Daemon) (*Server, error) {
	l, err := Listen(path, d.Group)
	if err != nil {
		return nil, fmt.Errorf("admin.socket: %w", err)
	}
	s := &Server{path: path, inode: inode(path), served: make(chan struct{})}
	s.http = &http.Server{Handler: d.routes(), ReadHeaderTimeout: 5 * time.Second, ErrorLog: slog.NewLogLogger(d.Log.Handler(), slog.LevelWarn)}
	go func() {
		defer close(s.served)
		if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			d.Log.Error("the admin socket ended", "path", path, "err", err)
		}
	}()
	return s, nil
}

// listenPatience is how long a socket in use is waited for.
const listenPatience = 3 * time.Second

// Listen makes a socket for root and the members of a group (nil: none), in the place of one whose process is gone. ErrInUse.
func Listen(path string, group *uint32) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	// One whose mount has just gone is about to end.
	for end := time.Now().Add(listenPatience); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.DialTimeout("unix", path, time.Second)
		if err != nil {
			if errors.Is(err, syscall.ECONNREFUSED) {
				if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
					return nil, fmt.Errorf("removing the old socket: %w", err)
				}
			}
			break
		}
		c.Close()
		if time.Now().After(end) {
			return nil, fmt.Errorf("%s: %w by another sessfs: give each mount a socket of its own", path, ErrInUse)
		}
	}
	// Made under a mask that lets nobody but root in, not even for a moment; see members.
	mask := 0o177
	if group != nil {
		mask = 0o111
	}
	old := syscall.Umask(mask)
	l, err := net.Listen("unix", path)
	syscall.Umask(old)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if group != nil {
		return newMembers(l, *group, path), nil
	}
	return l, nil
}

func inode(path string) uint64 {
	var st syscall.Stat_t
	if syscall.Lstat(path, &st) != nil {
		return 0
	}
	return st.Ino
}

// Close ends the server and removes the socket.
func (s *Server) Close() {
	s.http.Close()
	<-s.served
	if ino := inode(s.path); ino != 0 && ino == s.inode {
		os.Remove(s.path)
	}
}

func (d Daemon) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) { answer(w, d.Status(r.Context())) })
	mux.HandleFunc("GET /sessions", d.list)
	mux.HandleFunc("GET /session", d.show)
	mux.HandleFunc("DELETE /session", d.remove)
	mux.HandleFunc("DELETE /lock", d.unlock)
	mux.HandleFunc("POST /rebalance", d.rebalance(new(atomic.Bool)))
	d.public(mux)
	profiles(mux)
	return mux
}

// profiles adds pprof: for the socket alone, since a profile stops the world and a heap has what sessions hold.
func profiles(mux *http.ServeMux) {
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v) // a client that is gone needs no answer
}

// failure is the body of an answer that is not 200.
type failure struct {
	Error       string `json:"error"`
	Unavailable bool   `json:"unavailable,omitempty"`
}

func refuse(w http.ResponseWriter, err error) {
	f := failure{Error: err.Error(), Unavailable: errors.Is(err, sessfs.ErrUnavailable)}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusInternalServerError)
	json.NewEncoder(w).Encode(f)
}

// list streams the sessions, one JSON object a line. An error after the first line is a line with "error".
func (d Daemon) list(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	enc := json.NewEncoder(w)
	err := d.Store.List(r.Context(), func(e sessfs.Entry) error { return enc.Encode(entry(e)) })
	if err != nil {
		enc.Encode(failure{Error: err.Error(), Unavailable: errors.Is(err, sessfs.ErrUnavailable)})
	}
}

func entry(e sessfs.Entry) Entry {
	out := Entry{ID: string(e.ID), Hash: e.ID.Hash(), Size: e.Size, UID: e.Attr.UID, GID: e.Attr.GID, Mode: e.Attr.Mode,
		Mtime: time.Unix(0, e.Attr.Mtime), Ctime: time.Unix(0, e.Attr.Ctime), Server: e.Server}
	if !utf8.ValidString(out.ID) {
		out.IDBytes = []byte(out.ID)
	}
	if !e.Expires.IsZero() {
		out.Expires = &e.Expires
	}
	return out
}

func (d Daemon) show(w http.ResponseWriter, r *http.Request) {
	id, ok := d.sessionOrHash(w, r)
	if !ok {
		return
	}
	s, err := d.Backend.Read(r.Context(), id)
	if err != nil {
		refuse(w, err)
		return
	}
	out := Session{Entry: entry(sessfs.Entry{ID: id, Attr: s.Attr, Size: int64(len(s.Data))}), Counter: s.Version.Counter}
	switch s.State {
	case sessfs.Live:
		out.State = "live"
	case sessfs.Destroyed:
		out.State = "destroyed"
	default:
		out.State = "missing"
	}
	if r.FormValue("data") != "" {
		out.Data = s.Data
	}
	h, err := d.Backend.Locked(r.Context(), id)
	if err != nil {
		refuse(w, err)
		return
	}
	out.Holder = holder(h)
	answer(w, out)
}

func holder(h *sessfs.Holder) *Holder {
	if h == nil {
		return nil
	}
	return &Holder{Host: h.Host, PID: h.PID, Since: h.Since}
}

// Removed is the answer to `sessfs rm`.
type Removed struct {
	Existed bool `json:"existed"`
}

func (d Daemon) remove(w http.ResponseWriter, r *http.Request) {
	id, ok := sessionID(w, r)
	if !ok {
		return
	}
	existed, err := d.Store.Destroy(r.Context(), id)
	if err != nil {
		refuse(w, err)
		return
	}
	d.Log.Info("a session was removed by the administrator", "session", id.Hash(), "existed", existed)
	answer(w, Removed{existed})
}

// Unlocked is the answer to `sessfs unlock`.
type Unlocked struct {
	Holder *Holder `json:"holder,omitempty"` // nil: nobody held it
}

func (d Daemon) unlock(w http.ResponseWriter, r *http.Request) {
	id, ok := d.sessionOrHash(w, r)
	if !ok {
		return
	}
	h, err := d.Backend.Break(r.Context(), id)
	if err != nil {
		refuse(w, err)
		return
	}
	if h != nil {
		d.Log.Warn("a session's lock was broken by the administrator", "session", id.Hash(), "holder_host", h.Host, "holder_pid", h.PID)
	}
	answer(w, Unlocked{holder(h)})
}

func sessionID(w http.ResponseWriter, r *http.Request) (sessfs.ID, bool) {
	id := r.FormValue("id")
	if id == "" || len(id) > 255 {
		w.WriteHeader(http.StatusBadRequest)
		json.NewEncoder(w).Encode(failure{Error: "id: 1 to 255 bytes are needed"})
		return "", false
	}
	return sessfs.ID(id), true
}

// sessionOrHash is sessionID, but for the hash of a session that is in use here: a new one that is locked is in no list yet.
func (d Daemon) sessionOrHash(w http.ResponseWriter, r *http.Request) (sessfs.ID, bool) {
	id, ok := sessionID(w, r)
	if ok && d.Named != nil {
		if named, found := d.Named(string(id)); found {
			return named, true
		}
	}
	return id, ok
}
