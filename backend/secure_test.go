package backend

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"sessfs"
	"sessfs/backend/backendtest"
	"sessfs/internal/testkit"
)

// secure is what a host has that may talk to the servers of a testkit.Safe.
func secure(v *testkit.Safe) Secure {
	return Secure{TLS: &TLS{CA: v.CA.File, Cert: v.Client.Cert, Key: v.Client.Key, MinVersion: tls.VersionTLS12},
		Login: &Login{User: testkit.SafeUser, PasswordFile: v.Password}}
}

func secureOptions(t testing.TB, v *testkit.Safe, servers int) Options {
	t.Helper()
	var addresses []string
	for range servers {
		addresses = append(addresses, testkit.StartSafe(t, v, "-m", "256").Addr)
	}
	o := testOptions(addresses...)
	o.Timeout, o.Secure = 5*time.Second, secure(v)
	return o
}

// The contract holds over TLS with a login, on both wires.
func TestConformanceTLS(t *testing.T) {
	for name, classic := range map[string]bool{"meta": false, "classic": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := testkit.NewSafe(t)
			backendtest.Run(t, func(t *testing.T, lifetime time.Duration) sessfs.Backend {
				o := secureOptions(t, v, 2)
				o.Timeout = 15 * time.Second // megabytes under the race detector, by many at once
				if o.Lifetime, o.ForceClassic = lifetime, classic; !classic {
					o.Replicas = 2
				}
				return open(t, o)
			})
		})
	}
}

// memcached below 1.6.39 sleeps over what it has not read of a TLS record. Values of all sizes, large ones and those around
// the sizes of records and buffers, are stored and read by many at once over one connection, whose commands go out together.
func TestRecordsEndWhereCommandsEnd(t *testing.T) {
	o := secureOptions(t, testkit.NewSafe(t), 1)
	o.MaxSize, o.Lifetime, o.Lease = 4<<20, time.Minute, time.Minute
	c := open(t, o)
	sizes := []int{0, 1, 100, 3000, smallBody - 60, smallBody, smallBody + 1, recordSize, 16<<10 - 200, 16 << 10, 16<<10 + 1, 50_000, 300_000, 1 << 20, 3 << 20}
	// Alone, where nobody wakes the server with what he sends next, and together.
	for _, workers := range []int{1, 32} {
		var all sync.WaitGroup
		for worker := range workers {
			all.Go(func() {
				id := sessfs.ID(fmt.Sprintf("sess_%d_%d_%s", workers, worker, strings.Repeat("k", rand.IntN(150))))
				s := &sessfs.Session{}
				for range 25 {
					data := bytes.Repeat([]byte("x"), sizes[rand.IntN(len(sizes)-(worker+1)%3)])
					l, now, err := c.TryLock(ctx, id, holder)
					if err != nil || l == nil || string(now.Data) != string(s.Data) {
						t.Errorf("TryLock: %v, %v, %v, want %d bytes", l, err, now, len(s.Data))
						return
					}
					if s, err = c.Commit(ctx, id, now, sessfs.Attr{Mode: 0o600}, data, l); err != nil {
						t.Errorf("Commit of %d bytes: %v", len(data), err)
						return
					}
					c.Unlock(l)
				}
			})
		}
		all.Wait()
	}
	// Commands without values, of two full records together, but for some bytes.
	w, err := c.servers()[0].wire(c.deadline())
	if err != nil {
		t.Fatal(err)
	}
	for short := 0; short < 240; short += 15 {
		var keys []string
		for size := 0; size < 32<<10; {
			b := newBatch()
			b.get(strings.Repeat("k", 240), "v c")
			n := min(240, 240+32<<10-short-size-len(b.text))
			keys = append(keys, strings.Repeat("k", max(n, 1)))
			size += len(b.text)
		}
		if _, _, err := w.get(0, keys, c.deadline()); err != nil {
			t.Fatal(err)
		}
	}
	if st := c.Servers(ctx)[0]; st.TLS != "1.3" || st.Login != "ascii" || st.Protocol != "meta" || st.Failures != 0 {
		t.Errorf("%+v", st)
	}
}

// Whoever is not who he should be is refused at once, for the reason that there is, and both by the daemon and by those who
// look at a server from outside.
func TestRefusals(t *testing.T) {
	v, other := testkit.NewSafe(t), testkit.NewAuthority(t, "other")
	past, future := time.Now().Add(-time.Minute).UTC().Truncate(time.Second), time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	with := func(c testkit.Certificate) string {
		w := *v
		w.Server = c
		return testkit.StartSafe(t, &w).Addr
	}
	good, plain := testkit.StartSafe(t, v).Addr, testkit.StartMemcached(t).Addr
	old := tlsServer(t, v, tls.VersionTLS12)
	for name, tc := range map[string]struct {
		address string
		change  func(s *Secure)
		kind    RefusalKind
		reason  string
	}{
		"unknown authority":       {with(other.Valid(t, "127.0.0.1")), nil, RefusedCertificate, `it is signed by "CN=other", and by nobody of cache.tls.ca`},
		"another name":            {with(v.CA.Valid(t, "a.example", "10.0.0.9")), nil, RefusedCertificate, "it is that of a.example, 10.0.0.9, and not of 127.0.0.1"},
		"no name":                 {with(v.CA.Valid(t)), nil, RefusedCertificate, "it is that of nobody"},
		"another configured name": {good, func(s *Secure) { s.TLS.ServerName = "b.example" }, RefusedCertificate, "and not of b.example"},
		"expired":                 {with(v.CA.Issue(t, past.Add(-time.Hour), past, "127.0.0.1")), nil, RefusedCertificate, "it has expired at " + past.Format(time.RFC3339)},
		"not yet":                 {with(v.CA.Issue(t, future, future.Add(time.Hour), "127.0.0.1")), nil, RefusedCertificate, "it begins at " + future.Format(time.RFC3339)},
		"no client certificate":   {good, func(s *Secure) { s.TLS.Cert, s.TLS.Key = "", "" }, RefusedClient, "certificate required"},
		"another's client":        {good, func(s *Secure) { c := other.Valid(t, "x"); s.TLS.Cert, s.TLS.Key = c.Cert, c.Key }, RefusedClient, "certificate"},
		"an expired client": {good, func(s *Secure) {
			c := v.CA.Issue(t, past.Add(-time.Hour), past, "x")
			s.TLS.Cert, s.TLS.Key = c.Cert, c.Key
		}, RefusedClient, "expired certificate"},
		"wrong password":          {good, func(s *Secure) { s.Login.PasswordFile = testkit.Secret(t, "wrong") }, RefusedPassword, "the password of user web"},
		"a password with a space": {good, func(s *Secure) { s.Login.PasswordFile = testkit.Secret(t, "correct horse") }, RefusedPassword, "with a space"},
		"wrong user":              {good, func(s *Secure) { s.Login.User = "nobody" }, RefusedPassword, "the password of user nobody"},
		"no login":                {good, func(s *Secure) { s.Login = nil }, RefusedLogin, "it wants a login, and cache.auth is not set"},
		"no TLS there":            {plain, nil, RefusedTLS, "it speaks no TLS, and cache.tls is set"},
		"no TLS here":             {good, func(s *Secure) { *s = Secure{} }, RefusedTLS, "cache.tls is not set"},
		"no TLS here but a login": {good, func(s *Secure) { s.TLS = nil }, RefusedTLS, "cache.tls is not set"},
		"too old a version":       {old, func(s *Secure) { s.TLS.MinVersion = tls.VersionTLS13 }, RefusedTLS, "cache.tls.min_version"},
	} {
		t.Run(name, func(t *testing.T) {
			o := testOptions(tc.address)
			o.Timeout, o.Secure = time.Minute, secure(v) // what waits for it fails the test
			if tc.change != nil {
				tc.change(&o.Secure)
			}
			short, end := context.WithTimeout(ctx, 20*time.Second)
			defer end()
			c := open(t, o)
			err := c.Check(short)
			var r *Refusal
			if !errors.As(err, &r) || r.Kind != tc.kind || !strings.Contains(err.Error(), tc.reason) || !errors.Is(err, sessfs.ErrUnavailable) {
				t.Errorf("Check: %v", err)
			}
			if _, err := c.Read(short, sid); err == nil || !strings.Contains(err.Error(), tc.reason) {
				t.Errorf("Read: %v", err)
			}
			if e := Examine(short, o)[0]; !errors.As(e.Err, &r) || r.Kind != tc.kind {
				t.Errorf("Examine: %v", e.Err)
			}
			if strings.Contains(fmt.Sprint(err, c.Servers(ctx)), testkit.SafePassword) {
				t.Error("the password is told")
			}
		})
	}
}

// tlsServer answers version over one version of TLS.
func tlsServer(t *testing.T, v *testkit.Safe, version uint16) string {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(v.Server.Cert, v.Server.Key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, MaxVersion: version})
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				b := make([]byte, 64)
				for {
					if _, err := c.Read(b); err != nil {
						return
					}
					c.Write([]byte("VERSION 1\r\n"))
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return l.Addr().String()
}

// A server that wants no login is not told the password, which it would store.
func TestAPasswordIsToldOnlyToThoseWhoAskForIt(t *testing.T) {
	m := testkit.StartMemcached(t)
	o := testOptions(m.Addr)
	o.Secure.Login = secure(testkit.NewSafe(t)).Login
	c := open(t, o)
	mustCommit(t, c, sid, &sessfs.Session{}, "x", nil)
	if dump := m.Dump(); strings.Contains(dump, "key=auth ") || !strings.Contains(dump, "sess_a ") {
		t.Error(dump)
	}
	if st := c.Servers(ctx)[0]; st.Login != "" || st.TLS != "" {
		t.Errorf("%+v", st)
	}
}

// Files are read again for each connection, and what is not whole is not taken.
func TestFilesThatChange(t *testing.T) {
	v := testkit.NewSafe(t)
	m := testkit.StartSafe(t, v)
	o := testOptions(m.Addr)
	o.Timeout, o.Secure = 5*time.Second, secure(v)
	c := open(t, o)
	mustRead(t, c, sid)
	replace := func(path, from string) {
		t.Helper()
		b, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(path, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	// Everything is another one, and the server restarted with it.
	w := testkit.NewSafe(t)
	replace(v.CA.File, w.CA.File)
	replace(v.Server.Cert, w.Server.Cert)
	replace(v.Server.Key, w.Server.Key)
	replace(v.Logins, testkit.Secret(t, testkit.SafeUser+":other\n"))
	m.Stop()
	m.Start()
	refused := func(kind RefusalKind) {
		t.Helper()
		var r *Refusal
		if err := c.Check(ctx); !errors.As(err, &r) || r.Kind != kind {
			t.Fatalf("%v, want it refused for its %s", err, kind)
		}
	}
	refused(RefusedClient)
	// Half of a new pair is not taken: the old one, which does not help here, holds.
	replace(v.Client.Cert, w.Client.Cert)
	refused(RefusedClient)
	replace(v.Client.Key, w.Client.Key)
	refused(RefusedPassword)
	replace(o.Secure.Login.PasswordFile, testkit.Secret(t, "other\n"))
	until(t, "it answers", func() bool { return c.Check(ctx) == nil })
	mustRead(t, c, sid)
	// A file that others may read is not taken at the start, and the former one holds later.
	if err := os.Chmod(v.Client.Key, 0o644); err != nil {
		t.Fatal(err)
	}
	m.Stop()
	m.Start()
	until(t, "it answers", func() bool { return c.Check(ctx) == nil })
	if _, err := New(o); err == nil || !strings.Contains(err.Error(), "cache.tls.key") || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that others may read: %v", err)
	}
}
