package backend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sessfs"
	"sessfs/backend/backendtest"
	"sessfs/internal/testkit"
)

func saslLogin(t testing.TB, password string) *Login {
	t.Helper()
	return &Login{User: testkit.SASLUser, PasswordFile: testkit.Secret(t, password)}
}

// All but the listing of sessions is as on other servers.
func TestConformanceSASL(t *testing.T) {
	backendtest.RunWithout(t, "List", func(t *testing.T, lifetime time.Duration) sessfs.Backend {
		o := testOptions(testkit.StartSASL(t, "-m", "256").Addr, testkit.StartSASL(t, "-m", "256").Addr)
		o.Timeout, o.Lifetime, o.Secure.Login = 5*time.Second, lifetime, saslLogin(t, testkit.SASLPassword)
		return open(t, o)
	})
}

func TestSASL(t *testing.T) {
	v := testkit.NewSafe(t)
	m := testkit.StartSASL(t, "-Z", "-o", "ssl_chain_cert="+v.Server.Cert+",ssl_key="+v.Server.Key)
	o := testOptions(m.Addr)
	o.Timeout, o.Secure = time.Minute, secure(v)
	o.Secure.Login = saslLogin(t, testkit.SASLPassword)
	c := open(t, o)
	s := mustCommit(t, c, sid, &sessfs.Session{}, "x", nil)
	if st := c.Servers(ctx)[0]; st.Login != "sasl" || st.TLS != "1.3" || st.Protocol != "classic" || st.Version == "" || st.Items == 0 || st.ItemMax != 1<<20 {
		t.Errorf("%+v", st)
	}
	if e := Examine(ctx, o)[0]; e.Err != nil || e.Login != "sasl" || e.Meta {
		t.Errorf("Examine: %+v", e)
	}
	// What does not fit leaves what was there.
	if _, err := c.Commit(ctx, sid, s, s.Attr, bytes.Repeat([]byte("y"), int(o.MaxSize)+1), nil); err == nil {
		t.Error("too large a session was stored")
	}
	if s := mustRead(t, c, sid); string(s.Data) != "x" {
		t.Errorf("read %d bytes", len(s.Data))
	}
	if err := c.List(ctx, func(sessfs.Entry) error { return nil }); !errors.Is(err, sessfs.ErrNotSupported) || !strings.Contains(err.Error(), "started with -S") {
		t.Errorf("List: %v", err)
	}
	var r *Refusal
	o.Secure.Login = saslLogin(t, "wrong")
	if err := open(t, o).Check(ctx); !errors.As(err, &r) || r.Kind != RefusedPassword || strings.Contains(err.Error(), "wrong") {
		t.Errorf("a wrong password: %v", err)
	}
}

// A server may come back with SASL that had another login, and the other way around.
func TestAnotherLogin(t *testing.T) {
	v := testkit.NewSafe(t)
	sasl, ascii := testkit.StartSASL(t).Addr, testkit.StartMemcached(t, "-Y", v.Logins).Addr
	var target atomic.Pointer[string]
	target.Store(&ascii)
	o := testOptions(forward(t, &target))
	o.Secure.Login = secure(v).Login
	c := open(t, o)
	for _, to := range []*string{&ascii, &sasl, &ascii} {
		target.Store(to)
		login := *secure(v).Login
		if to == &sasl {
			login = *saslLogin(t, testkit.SASLPassword)
		}
		if err := c.SetSecure(Secure{Login: &login}); err != nil {
			t.Fatal(err)
		}
		until(t, "it answers", func() bool {
			st := c.Servers(ctx)[0]
			return c.Check(ctx) == nil && st.Up && (st.Login == "sasl") == (to == &sasl)
		})
	}
}

// forward hands connections on to a server that changes.
func forward(t *testing.T, target *atomic.Pointer[string]) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
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
			up, err := net.Dial("tcp", *target.Load())
			if err != nil {
				c.Close()
				continue
			}
			for _, way := range [][2]net.Conn{{c, up}, {up, c}} {
				all.Go(func() {
					io.Copy(way[0], way[1])
					c.Close()
					up.Close()
				})
			}
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return l.Addr().String()
}

// A store that the server has no memory for leaves the old session; with the binary protocol's set it would be gone.
func TestSASLStoreThatFails(t *testing.T) {
	o := testOptions(testkit.StartSASL(t, "-m", "8", "-M").Addr)
	o.Timeout, o.Secure.Login = 5*time.Second, saslLogin(t, testkit.SASLPassword)
	c := open(t, o)
	s := mustCommit(t, c, sid, &sessfs.Session{}, "old", nil)
	var err error
	for i := 0; err == nil; i++ {
		_, err = c.Commit(ctx, sessfs.ID(fmt.Sprintf("sess_%d", i)), &sessfs.Session{}, s.Attr, bytes.Repeat([]byte("x"), 400_000), nil)
	}
	if _, err := c.Commit(ctx, sid, s, s.Attr, bytes.Repeat([]byte("x"), 400_000), nil); err == nil || !strings.Contains(err.Error(), "emory") {
		t.Errorf("%v", err)
	}
	if s := mustRead(t, c, sid); string(s.Data) != "old" {
		t.Errorf("read %q", s.Data)
	}
}

// A cas of 0 fits no item, as in the text protocol; in the binary one it would fit all.
func TestSASLCasOfNothing(t *testing.T) {
	o := testOptions(testkit.StartSASL(t).Addr)
	o.Timeout, o.Secure.Login = 5*time.Second, saslLogin(t, testkit.SASLPassword)
	c := open(t, o)
	dialing, end := context.WithDeadline(ctx, c.deadline())
	defer end()
	p, err := c.servers()[0].plain(dialing)
	if err != nil {
		t.Fatal(err)
	}
	defer p.nc.Close()
	for _, st := range [][2]string{{"cas k 0 60 1 0\r\nx", "NOT_FOUND"}, {"add k 0 60 1\r\na", "STORED"}, {"add k 0 60 1\r\nb", "NOT_STORED"},
		{"cas k 0 60 1 0\r\nx", "EXISTS"}, {"cas k 0 60 1 99999\r\nx", "EXISTS"}} {
		if err := p.send("%s\r\n", st[0]); err != nil {
			t.Fatal(err)
		}
		if l, err := p.line(); err != nil || l != st[1] {
			t.Errorf("%q: %q, %v", st[0], l, err)
		}
	}
	if v, err := p.value("k", 10); err != nil || string(v) != "a" {
		t.Errorf("there is %q, %v", v, err)
	}
}

// FuzzBinary: whatever a server answers, the translation gives an error or lines, and asks for no memory on its word.
func FuzzBinary(f *testing.F) {
	f.Add([]byte("\x81\x0d\x00\x01\x04\x00\x00\x00\x00\x00\x00\x06\x00\x00\x00\x0d\x00\x00\x00\x00\x00\x00\x00\x07\x00\x00\x00\x01kv\x81\x0a\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x0a\x00\x00\x00\x00\x00\x00\x00\x00"), "gets k\r\n")
	f.Add([]byte("\x81\x0d\xff\xff\xff\x00\x00\x00\xff\xff\xff\xff\x00\x00\x00\x0d\x00\x00\x00\x00\x00\x00\x00\x07"), "get a b\r\n")
	f.Add([]byte("VERSION 1\r\n"), "version\r\nstats settings\r\ndelete k\r\nmn\r\n\r\n")
	f.Add([]byte{}, "cas k 1 -1 2 3\r\nab\r\nadd k 0 0 99999999999\r\nset k 0 0 1\r\nx\r\n")
	f.Fuzz(func(t *testing.T, answers []byte, commands string) {
		c := newBinaryConn(&deaf{r: bytes.NewReader(answers)})
		_, err := c.Write([]byte(commands))
		if out, _ := io.ReadAll(io.LimitReader(&c.out, 1<<20)); len(out) > 4*(len(answers)+len(commands))+100 {
			t.Errorf("%d bytes of %d: %v", len(out), len(answers), err)
		}
	})
}

// deaf is a server that answers whatever it is asked.
type deaf struct {
	net.Conn
	r io.Reader
}

func (d *deaf) Read(b []byte) (int, error)  { return d.r.Read(b) }
func (d *deaf) Write(b []byte) (int, error) { return len(b), nil }
