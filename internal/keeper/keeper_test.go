package keeper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// The daemons of these tests are this test binary. What each is to do stands in a file, so that the next one may be told
// something else; each start is noted in another.
func TestMain(m *testing.M) {
	if file := os.Getenv("KEEPER_TEST"); file != "" {
		fake(file)
	}
	goleak.VerifyTestMain(m)
}

func fake(file string) {
	notes, _ := os.OpenFile(file+".starts", os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	fmt.Fprintln(notes, os.Getpid())
	b, _ := os.ReadFile(file)
	what := string(b)
	if what == "refuse" {
		fmt.Fprintln(os.Stderr, "refused")
		os.Exit(3)
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	c, err := Attach()
	if err != nil {
		panic(err)
	}
	if !c.Prepared() {
		os.Exit(9)
	}
	if what == "panic before" {
		panic("a defect at the start")
	}
	c.Serving()
	if what == "panic" {
		panic("a defect")
	}
	select {
	case <-term:
		c.Ended()
		os.Exit(0)
	case <-c.Leave():
		os.Exit(0)
	case <-c.Gone():
		os.Exit(8)
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// bench is a keeper at work.
type bench struct {
	t         *testing.T
	file      string
	log       lockedBuffer
	upgrades  chan Upgrade
	abandoned chan struct{}
	started   chan struct{}
	end       context.CancelFunc
	done      chan error
}

func run(t *testing.T, what string) *bench {
	t.Helper()
	b := &bench{t: t, file: filepath.Join(t.TempDir(), "what"), upgrades: make(chan Upgrade), abandoned: make(chan struct{}), started: make(chan struct{}), done: make(chan error, 1)}
	b.tell(what)
	t.Setenv("KEEPER_TEST", b.file)
	var ctx context.Context
	ctx, b.end = context.WithCancel(context.Background())
	o := Options{Binary: "/proc/self/exe", Log: slog.New(slog.NewTextHandler(&b.log, nil)), Upgrades: b.upgrades,
		Started: func() error { close(b.started); return nil }, Abandon: func() { close(b.abandoned) }}
	go func() { b.done <- Run(ctx, o) }()
	t.Cleanup(b.end)
	return b
}

func (b *bench) tell(what string) {
	b.t.Helper()
	if err := os.WriteFile(b.file, []byte(what), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) starts() int {
	n, _ := os.ReadFile(b.file + ".starts")
	return bytes.Count(n, []byte("\n"))
}

func (b *bench) until(what string, cond func() bool) {
	b.t.Helper()
	for end := time.Now().Add(20 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("not within 20 s: %s; log:\n%s", what, b.log.String())
		}
	}
}

func (b *bench) wait() error {
	b.t.Helper()
	select {
	case err := <-b.done:
		return err
	case <-time.After(20 * time.Second):
		b.t.Fatalf("the keeper is still there; log:\n%s", b.log.String())
		return nil
	}
}

func TestEndsWithItsDaemon(t *testing.T) {
	b := run(t, "serve")
	<-b.started
	b.end()
	if err := b.wait(); err != nil || b.starts() != 1 {
		t.Errorf("%v after %d starts", err, b.starts())
	}
}

func TestFirstDaemonFails(t *testing.T) {
	b := run(t, "refuse")
	if err := b.wait(); !errors.Is(err, ExitError{3}) || b.starts() != 1 {
		t.Errorf("%v after %d starts", err, b.starts())
	}
}

// A daemon that dies is replaced at once; one that dies again and again after pauses that grow, and what it died of is in
// the log.
func TestPausesBetweenDeaths(t *testing.T) {
	b := run(t, "panic")
	<-b.started
	b.until("some have died", func() bool { return strings.Contains(b.log.String(), "in=800ms") })
	if n := b.starts(); n < 5 || n > 8 {
		t.Errorf("%d starts before the pause of 800 ms", n)
	}
	if log := b.log.String(); !strings.Contains(log, "a defect") || !strings.Contains(log, "goroutine 1") {
		t.Errorf("the log does not say what the daemon died of:\n%s", log)
	}
	b.tell("serve")
	b.until("another serves", func() bool { return strings.HasSuffix(strings.TrimSpace(b.log.String()), "pid="+b.last()) })
	b.end()
	if err := b.wait(); err != nil {
		t.Error(err)
	}
}

// last is the process that was started last.
func (b *bench) last() string {
	n, _ := os.ReadFile(b.file + ".starts")
	f := strings.Fields(string(n))
	return f[len(f)-1]
}

// Told to end while no daemon runs, the keeper takes the mount away.
func TestEndsWithoutDaemon(t *testing.T) {
	b := run(t, "panic")
	<-b.started
	b.until("it pauses", func() bool { return strings.Contains(b.log.String(), "in=1.6s") })
	b.end()
	if b.wait() == nil {
		t.Error("no error")
	}
	select {
	case <-b.abandoned:
	default:
		t.Error("the mount stands")
	}
}

func TestUpgrade(t *testing.T) {
	b := run(t, "serve")
	<-b.started
	ask := func() error {
		u := make(Upgrade, 1)
		b.upgrades <- u
		return <-u
	}
	first := b.last()
	if err := ask(); err != nil || b.last() == first {
		t.Errorf("a good one: %v", err)
	}
	b.tell("refuse")
	if err := ask(); err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "refused") {
		t.Errorf("one that refuses: %v", err)
	}
	b.tell("panic before")
	if err := ask(); err == nil || !strings.Contains(err.Error(), "a defect at the start") {
		t.Errorf("one that dies when it takes over: %v", err)
	}
	b.tell("serve")
	b.until("another serves", func() bool { return strings.Contains(b.log.String(), "another daemon serves") })
	b.end()
	if err := b.wait(); err != nil {
		t.Error(err)
	}
}
