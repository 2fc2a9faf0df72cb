package backend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"sessfs"
)

// unbalanced stores sessions of 3 servers with one copy each, and returns a cluster that wants two: n small ones, a large
// one, and n/10 that were destroyed.
func unbalanced(t *testing.T, n int) (*Cluster, []*memcached, Options) {
	t.Helper()
	var servers []*memcached
	var sockets []string
	for range 3 {
		servers = append(servers, startMemcached(t))
		sockets = append(sockets, servers[len(servers)-1].socket)
	}
	o := testOptions(sockets...)
	o.Timeout, o.Lifetime, o.Replicas = 4*time.Second, time.Hour, 1
	one := open(t, o)
	for i := range n {
		mustCommit(t, one, sessfs.ID(fmt.Sprintf("sess_%d", i)), &sessfs.Session{}, fmt.Sprint("data", i), nil)
	}
	mustCommit(t, one, "sess_large", &sessfs.Session{}, strings.Repeat("x", 1200<<10), nil)
	for i := range n / 10 {
		id := sessfs.ID(fmt.Sprintf("sess_gone%d", i))
		mustCommit(t, one, id, &sessfs.Session{}, "x", nil)
		if _, _, err := one.Destroy(context.Background(), id); err != nil {
			t.Fatal(err)
		}
	}
	one.Close()
	tell(servers, nil) // that was long ago
	o.Replicas = 2
	return open(t, o), servers, o
}

// items counts all that is on some servers, but for what hosts tell each other there.
func items(servers []*memcached) (sum int) {
	for _, m := range servers {
		n := 0
		_, rest, _ := strings.Cut(m.raw("stats\r\n"), "STAT curr_items ")
		fmt.Sscan(rest, &n)
		sum += n
		for _, mark := range []string{listsMark, mendMark} {
			if strings.HasPrefix(m.raw("mg sessfs:%s\r\n", mark), "HD") {
				sum--
			}
		}
	}
	return sum
}

// tell makes servers say that hosts had some lists; nil: they say nothing.
func tell(servers []*memcached, h history) {
	for _, m := range servers {
		if h == nil {
			m.raw("delete sessfs:%s\r\n", listsMark)
		} else {
			b := h.encode()
			m.raw("set sessfs:%s 0 0 %d\r\n%s\r\n", listsMark, len(b), b)
		}
	}
}

// lists is by how many lists a host looks for sessions.
func lists(c *Cluster) int { return len(*c.views.Load()) }

// quick is Rebalance where nobody reads shortly before, and that soon gives up what is always locked.
func quick(c *Cluster, ctx context.Context, o RebalanceOptions, progress func(RebalanceProgress)) (RebalanceReport, error) {
	r := c.newRebalance(o, progress)
	r.pause, r.patience = listPause, 5*time.Second
	return r.run(ctx)
}

func quietly(RebalanceProgress) {}

func TestRebalance(t *testing.T) {
	const n = 200
	c, servers, o := unbalanced(t, n)
	const records = n + 1 + n/10
	before := items(servers) // records and the parts of the large session
	if before <= records {
		t.Fatalf("%d items were stored", before)
	}
	var shown []RebalanceProgress
	dry, err := quick(c, context.Background(), RebalanceOptions{DryRun: true}, func(p RebalanceProgress) { shown = append(shown, p) })
	if err != nil || dry.Sessions != n+1 || dry.Moved != n+1 || dry.Complete() || items(servers) != before {
		t.Fatalf("a dry run: %+v, %d items: %v", dry, items(servers), err)
	}
	last := shown[len(shown)-1]
	if !last.Finished || last.Done != records || last.Total != records || last.Moved != n+1 || shown[0].Total < uint64(before) || shown[0].Server != "c1" {
		t.Errorf("progress began with %+v and ended with %+v", shown[0], last)
	}
	report, err := quick(c, context.Background(), RebalanceOptions{}, quietly)
	if err != nil || report.Sessions != n+1 || report.Moved != n+1 || !report.Complete() {
		t.Fatalf("%+v: %v", report, err)
	}
	until(t, "all is there twice, and no lock", func() bool { return items(servers) == 2*before })
	report, err = quick(c, context.Background(), RebalanceOptions{}, quietly)
	sum := uint64(0)
	for i, s := range report.Servers {
		if s.Name != fmt.Sprintf("c%d", i+1) || s.Address != servers[i].socket || !s.Present || !s.Off.IsZero() || s.Why != "" {
			t.Errorf("%+v", s)
		}
		sum += s.Sessions
	}
	if err != nil || report.Sessions != n+1 || report.Moved != 0 || sum != 2*(n+1) || len(report.Servers) != 3 {
		t.Errorf("once more: %+v: %v", report, err)
	}
	// One after the other may go and come back empty, with a rebalance between them: all is there, and what was destroyed
	// stays destroyed.
	c.Close()
	for _, m := range servers {
		m.stop()
		c := open(t, o)
		for i := range n {
			if s := mustRead(t, c, sessfs.ID(fmt.Sprintf("sess_%d", i))); string(s.Data) != fmt.Sprint("data", i) {
				t.Fatalf("session %d is %+v", i, s)
			}
		}
		if s := mustRead(t, c, "sess_large"); len(s.Data) != 1200<<10 {
			t.Errorf("the large session has %d bytes", len(s.Data))
		}
		for i := range n / 10 {
			if s := mustRead(t, c, sessfs.ID(fmt.Sprintf("sess_gone%d", i))); s.State != sessfs.Destroyed {
				t.Errorf("a destroyed session is %+v", s)
			}
		}
		c.Close()
		m.start()
		c = open(t, o)
		c.Check(context.Background())
		until(t, "it counts again, and no third server has copies for it", func() bool {
			return !slices.ContainsFunc(c.servers(), func(s *server) bool { return s.young(sessfs.Boottime()) })
		})
		if report, err := c.Rebalance(context.Background(), RebalanceOptions{}, quietly); err != nil || report.Sessions != n+1 || !report.Complete() {
			t.Fatalf("with an empty server: %+v: %v", report, err)
		}
		until(t, "all is there twice again", func() bool { return items(servers) == 2*before })
		c.Close()
	}
}

// Servers do not dump what was read a moment ago: it is found nevertheless.
func TestRebalanceFindsWhatWasJustRead(t *testing.T) {
	const n = 200
	c, _, o := unbalanced(t, n)
	o.Replicas = 1
	one := open(t, o)
	time.Sleep(3 * time.Second) // with nothing to do their threads sleep longer
	for range 2 {
		for i := range n {
			mustRead(t, one, sessfs.ID(fmt.Sprintf("sess_%d", i)))
		}
	}
	if report, err := c.Rebalance(context.Background(), RebalanceOptions{}, quietly); err != nil || report.Sessions != n+1 || report.Moved != n+1 {
		t.Errorf("%+v: %v", report, err)
	}
}

// A session whose lock is held is tried again until it is free.
func TestRebalanceOfLockedSessions(t *testing.T) {
	c, _, o := unbalanced(t, 20)
	other := open(t, func() Options { o := o; o.Replicas = 1; return o }())
	lease, _ := mustLock(t, other, "sess_1")
	impatient := func(patience time.Duration, progress func(RebalanceProgress)) (RebalanceReport, error) {
		r := &rebalance{c: c, show: progress, patience: patience, pause: listPause, moves: rate.NewLimiter(rate.Inf, 1), looks: rate.NewLimiter(rate.Inf, 1)}
		return r.run(context.Background())
	}
	report, err := impatient(time.Millisecond, quietly)
	if err != nil || report.Busy != 1 || report.Moved != 20 || report.Sessions != 21 || report.Complete() {
		t.Errorf("while it is locked: %+v: %v", report, err)
	}
	free := false
	report, err = impatient(time.Minute, func(p RebalanceProgress) {
		if p.Busy == 1 && p.Text != "" && !free {
			free = true
			other.Unlock(lease)
		}
	})
	if err != nil || !free || report.Busy != 0 || report.Moved != 1 || !report.Complete() {
		t.Errorf("freed meanwhile (%v): %+v: %v", free, report, err)
	}
}

// An interrupted one keeps what it moved, and the next one does the rest.
func TestRebalanceGoesOn(t *testing.T) {
	const n = 300
	c, _, _ := unbalanced(t, n)
	ctx, interrupt := context.WithCancel(context.Background())
	first, err := quick(c, ctx, RebalanceOptions{Rate: 100}, func(p RebalanceProgress) {
		if p.Moved > 0 {
			interrupt()
		}
	})
	if !errors.Is(err, context.Canceled) || first.Moved == 0 || first.Moved >= n+1 {
		t.Fatalf("interrupted: %+v: %v", first, err)
	}
	second, err := quick(c, context.Background(), RebalanceOptions{}, quietly)
	// Of those under way when it was interrupted some were moved and not counted.
	if err != nil || second.Sessions != n+1 || !second.Complete() || first.Moved+second.Moved > n+1 || second.Moved == n+1 || second.Moved == 0 {
		t.Errorf("%+v after %+v: %v", second, first, err)
	}
	// A context that would end before the rate allows it stops it too, as it must not look complete.
	ctx, end := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer end()
	c, _, _ = unbalanced(t, 100)
	if r, err := quick(c, ctx, RebalanceOptions{Rate: 1}, quietly); err == nil {
		t.Errorf("with too little time: %+v", r)
	}
}

func TestRebalanceWithoutAServer(t *testing.T) {
	c, servers, _ := unbalanced(t, 50)
	servers[1].stop()
	lost := 0
	for i := range 50 {
		if (*c.views.Load())[0].candidates(sessfs.ID(fmt.Sprintf("sess_%d", i)))[0].name == "c2" {
			lost++
		}
	}
	report, err := quick(c, context.Background(), RebalanceOptions{}, quietly)
	if err != nil || report.Failed != 0 || report.Servers[1].Why == "" || report.Servers[0].Why != "" {
		t.Errorf("%+v: %v", report, err)
	}
	if left := int(report.Sessions); left != 50-lost && left != 51-lost { // the large one may be among them
		t.Errorf("%d sessions, %d were on the server that is gone", left, lost)
	}
	servers[0].stop()
	servers[2].stop()
	if _, err := quick(c, context.Background(), RebalanceOptions{}, quietly); !errors.Is(err, sessfs.ErrUnavailable) {
		t.Errorf("without any: %v", err)
	}
}

// A server is added and another one removed: all sessions move, the old list is dropped once it is certain that no host
// has it, and the other hosts learn that.
func TestRebalanceAfterAChange(t *testing.T) {
	const n = 100
	mem, o := servers(t, 4)
	o.Lifetime = time.Hour
	all := o.Servers
	o.Servers = all[:3]
	c, d := open(t, o), open(t, o)
	for i := range n {
		mustCommit(t, c, sessfs.ID(fmt.Sprintf("sess_%d", i)), &sessfs.Session{}, fmt.Sprint("data", i), nil)
	}
	for _, host := range []*Cluster{c, d} {
		if err := host.SetServers(all[1:], o.Replicas, o.Majority); err != nil {
			t.Fatal(err)
		}
	}
	report, err := quick(c, context.Background(), RebalanceOptions{}, quietly)
	removed := func() RebalanceServer {
		if len(report.Servers) != 4 || report.Servers[0].Name != "c1" || report.Servers[0].Present || !report.Servers[3].Present {
			t.Fatalf("%+v", report.Servers)
		}
		return report.Servers[0]
	}
	if s := removed(); err != nil || report.Sessions != n || report.Moved == 0 || !report.Complete() || s.Sessions == 0 ||
		s.Again.IsZero() || !s.Off.After(s.Again) || lists(c) != 2 {
		t.Fatalf("right after the change: %+v: %v", report, err)
	}
	if report.Servers[3].Sessions == 0 { // it was listed after the others, when it had got its share
		t.Errorf("the new server has nothing: %+v", report.Servers[3])
	}
	// Ten minutes after the change, on all hosts.
	c.Close()
	d.Close()
	old := c.known.history
	for i := range old {
		old[i].Used -= 10 * time.Minute.Milliseconds()
	}
	tell(mem, old)
	o.Servers = all[1:]
	c, d = open(t, o), open(t, o)
	if err := d.Check(ctx); err != nil || lists(d) != 2 {
		t.Fatalf("the other host uses %d lists: %v", lists(d), err)
	}
	report, err = quick(c, context.Background(), RebalanceOptions{DryRun: true}, quietly)
	if s := removed(); err != nil || report.Moved != 0 || lists(c) != 2 || !s.Again.IsZero() {
		t.Fatalf("a dry run: %+v: %v", report, err)
	}
	report, err = quick(c, context.Background(), RebalanceOptions{}, quietly)
	if s := removed(); err != nil || report.Moved != 0 || lists(c) != 1 || !s.Again.IsZero() || s.Off.Before(time.Now()) || s.Off.After(time.Now().Add(listRefresh)) {
		t.Fatalf("long after the change: %+v: %v", report, err)
	}
	for told := time.Now(); lists(d) != 1; d.exchangeLists() { // the first one tells the servers by and by
		if time.Since(told) > 10*time.Second {
			t.Fatalf("the other host uses %d lists", lists(d))
		}
	}
	mem[0].stop()
	for i := range n {
		if s := mustRead(t, d, sessfs.ID(fmt.Sprintf("sess_%d", i))); string(s.Data) != fmt.Sprint("data", i) {
			t.Fatalf("session %d is %+v", i, s)
		}
	}
	// And back again.
	mem[0].start()
	if err := c.SetServers(all, o.Replicas, o.Majority); err != nil {
		t.Fatal(err)
	}
	if report, err = quick(c, context.Background(), RebalanceOptions{}, quietly); err != nil || !report.Complete() || report.Sessions != n || report.Servers[0].Sessions+report.Servers[1].Sessions == 0 {
		t.Errorf("back again: %+v: %v", report, err)
	}
}
