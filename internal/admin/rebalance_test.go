package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sessfs"
	"sessfs/backend"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve answers on a socket until the test ends, with fn for rebalances.
func serve(t *testing.T, fn RebalanceFunc) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "admin.sock")
	s, err := Serve(path, Daemon{Rebalance: fn, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return Dial(path)
}

func TestRebalanceStreams(t *testing.T) {
	want := backend.RebalanceReport{Sessions: 7, Moved: 3, Servers: []backend.RebalanceServer{
		{Name: "a", Address: "h:1", Sessions: 7, Present: true}, {Name: "b", Off: time.Unix(1_800_000_000, 0).UTC(), Why: "x"}}}
	// The next progress is made when the one before has arrived: nothing waits in a buffer.
	arrived := make(chan struct{})
	c := serve(t, func(_ context.Context, o backend.RebalanceOptions, fn func(backend.RebalanceProgress)) (backend.RebalanceReport, error) {
		if o != (backend.RebalanceOptions{DryRun: true, Rate: 70}) {
			t.Errorf("asked with %+v", o)
		}
		for i := range uint64(3) {
			fn(backend.RebalanceProgress{Server: "a", Done: i, Total: 3})
			select {
			case <-arrived:
			case <-time.After(10 * time.Second):
				return backend.RebalanceReport{}, fmt.Errorf("progress %d did not arrive", i)
			}
		}
		return want, nil
	})
	var seen []uint64
	got, err := c.Rebalance(context.Background(), backend.RebalanceOptions{DryRun: true, Rate: 70}, func(p backend.RebalanceProgress) {
		seen = append(seen, p.Done)
		arrived <- struct{}{}
	})
	if err != nil || !reflect.DeepEqual(got, want) || !reflect.DeepEqual(seen, []uint64{0, 1, 2}) {
		t.Errorf("progress %v, report\n%+v, want\n%+v: %v", seen, got, want, err)
	}
}

func TestRebalanceFails(t *testing.T) {
	for _, tc := range []struct {
		fn          RebalanceFunc
		says        string
		unavailable bool
	}{
		{nil, "kept in the process", false},
		{func(context.Context, backend.RebalanceOptions, func(backend.RebalanceProgress)) (backend.RebalanceReport, error) {
			return backend.RebalanceReport{}, errors.New("no luck")
		}, "no luck", false},
		{func(_ context.Context, _ backend.RebalanceOptions, fn func(backend.RebalanceProgress)) (backend.RebalanceReport, error) {
			fn(backend.RebalanceProgress{Done: 1})
			return backend.RebalanceReport{Moved: 1}, fmt.Errorf("in the middle: %w", sessfs.ErrUnavailable)
		}, "in the middle", true},
	} {
		_, err := serve(t, tc.fn).Rebalance(context.Background(), backend.RebalanceOptions{}, func(backend.RebalanceProgress) {})
		if err == nil || !strings.Contains(err.Error(), tc.says) || errors.Is(err, sessfs.ErrUnavailable) != tc.unavailable {
			t.Errorf("%v, want %s", err, tc.says)
		}
	}
}

// A client that goes stops the daemon's work; while it works a second one is refused, after that it is not.
func TestRebalanceIsInterrupted(t *testing.T) {
	stopped := make(chan error, 1)
	c := serve(t, func(ctx context.Context, o backend.RebalanceOptions, fn func(backend.RebalanceProgress)) (backend.RebalanceReport, error) {
		if o.DryRun {
			return backend.RebalanceReport{Sessions: 1}, nil
		}
		fn(backend.RebalanceProgress{Done: 1})
		<-ctx.Done()
		stopped <- ctx.Err()
		return backend.RebalanceReport{}, ctx.Err()
	})
	ctx, interrupt := context.WithCancel(context.Background())
	_, err := c.Rebalance(ctx, backend.RebalanceOptions{}, func(backend.RebalanceProgress) {
		if _, err := c.Rebalance(context.Background(), backend.RebalanceOptions{DryRun: true}, nil); err == nil || !strings.Contains(err.Error(), "under way") {
			t.Errorf("a second one at the same time: %v", err)
		}
		interrupt()
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	select {
	case <-stopped:
	case <-time.After(10 * time.Second):
		t.Fatal("the daemon goes on without its client")
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		r, err := c.Rebalance(context.Background(), backend.RebalanceOptions{DryRun: true}, nil)
		if err == nil && r.Sessions == 1 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("after an interrupted one: %v", err)
		}
	}
}

// A daemon that ends in the middle is told from one that is done.
func TestRebalanceWithoutEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	began := make(chan struct{})
	s, err := Serve(path, Daemon{Log: slog.New(slog.DiscardHandler), Rebalance: func(ctx context.Context, _ backend.RebalanceOptions, fn func(backend.RebalanceProgress)) (backend.RebalanceReport, error) {
		fn(backend.RebalanceProgress{})
		close(began)
		<-ctx.Done()
		return backend.RebalanceReport{}, ctx.Err()
	}})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		<-began
		s.Close()
	}()
	if r, err := Dial(path).Rebalance(context.Background(), backend.RebalanceOptions{}, func(backend.RebalanceProgress) {}); err == nil {
		t.Errorf("taken for done: %+v", r)
	}
	s.Close()
}

func TestRebalanceRefusesRates(t *testing.T) {
	c := serve(t, func(context.Context, backend.RebalanceOptions, func(backend.RebalanceProgress)) (backend.RebalanceReport, error) {
		return backend.RebalanceReport{}, nil
	})
	for _, rate := range []string{"-1", "x", "99999999999"} {
		res, err := c.send(context.Background(), "POST", "/rebalance", map[string][]string{"rate": {rate}})
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 400 {
			t.Errorf("rate %s: %s", rate, res.Status)
		}
	}
}
