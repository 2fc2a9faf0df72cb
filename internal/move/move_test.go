package move

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"sessfs"
	"sessfs/backend/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var flat = Names{
	Match: func(name string) (string, bool) { return strings.CutPrefix(name, "sess_") },
	Level: func(name string) bool { return len(name) == 1 },
}

// setup is a store in this process and a directory.
func setup(t *testing.T) (*memory.Backend, *Dir, ImportOptions) {
	t.Helper()
	b := memory.New(memory.Options{Lifetime: time.Hour, Lease: 2 * time.Second, MaxSize: 1 << 20})
	t.Cleanup(func() { b.Close() })
	path := t.TempDir()
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return b, d, ImportOptions{Names: flat, Lifetime: time.Hour, MaxSize: 1 << 20, Lease: 2 * time.Second, Journal: filepath.Join(t.TempDir(), "journal"), Patience: 10 * time.Second}
}

func put(t *testing.T, d *Dir, name, data string, age time.Duration) string {
	t.Helper()
	path := filepath.Join(d.Path, name)
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(-age)
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
	return path
}

func run(t *testing.T, b sessfs.Backend, d *Dir, o ImportOptions) Report {
	t.Helper()
	r, err := Import(context.Background(), b, d, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestDecide: of file and session the later one counts, and a destroyed session is destroyed unless the file is certainly
// that of a new one.
func TestDecide(t *testing.T) {
	now := time.Now().UnixNano()
	ago := func(d time.Duration) int64 { return now - int64(d) }
	live := func(mtime int64, size int) *sessfs.Session {
		return &sessfs.Session{State: sessfs.Live, Attr: sessfs.Attr{Mtime: mtime}, Data: make([]byte, size)}
	}
	tomb := func(at int64) *sessfs.Session {
		return &sessfs.Session{State: sessfs.Destroyed, Attr: sessfs.Attr{Ctime: at}}
	}
	const take = Outcome("")
	for i, c := range []struct {
		session *sessfs.Session
		mtime   int64
		size    int64
		want    Outcome
	}{
		{&sessfs.Session{}, ago(time.Minute), 5, take},
		{&sessfs.Session{}, ago(time.Hour + time.Second), 5, Expired},
		{&sessfs.Session{}, ago(time.Minute), 101, TooLarge},
		{live(ago(time.Minute), 5), ago(time.Minute), 5, Unchanged},
		{live(ago(time.Minute), 4), ago(time.Minute), 5, take},
		{live(ago(time.Minute)-1, 5), ago(time.Minute), 5, take},
		{live(ago(time.Minute)+1, 5), ago(time.Minute), 5, Newer},
		{tomb(ago(time.Minute)), ago(2 * time.Minute), 5, Destroyed},
		{tomb(ago(time.Minute)), ago(time.Minute - time.Second), 5, Destroyed},
		{tomb(ago(time.Minute)), ago(time.Minute - 3*time.Second), 5, take},
		{tomb(0), ago(time.Second), 5, Destroyed},
	} {
		im := &importer{o: ImportOptions{Lifetime: time.Hour, MaxSize: 100}, journal: &journal{}}
		got, done := im.decide(&file{}, c.session, info{attr: sessfs.Attr{Mtime: c.mtime, Ctime: c.mtime}, size: c.size})
		if got.outcome != c.want || done != (c.want != take) {
			t.Errorf("%d: %q (%v), want %q", i, got.outcome, done, c.want)
		}
	}
}

// TestTombstoneTime: a destroyed session tells when that was.
func TestTombstoneTime(t *testing.T) {
	b, d, o := setup(t)
	put(t, d, "sess_a", "x", time.Minute)
	run(t, b, d, o)
	b.Destroy(context.Background(), "sess_a")
	if v, _ := b.Read(context.Background(), "sess_a"); time.Since(time.Unix(0, v.Attr.Ctime)) > time.Minute {
		t.Errorf("destroyed at %v", time.Unix(0, v.Attr.Ctime))
	}
	if r := run(t, b, d, o); r.Counts[Destroyed] != 1 {
		t.Errorf("%+v", r)
	}
}

// TestRacy: a file that may be changed again without another time of change is looked at again by the next import.
func TestRacy(t *testing.T) {
	b, d, o := setup(t)
	path := filepath.Join(d.Path, "sess_a")
	store := func(data string, at time.Time) {
		if err := errors.Join(os.WriteFile(path, []byte(data), 0o600), os.Chtimes(path, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	d.nfs = true // whose clocks tick slowly
	at := time.Now().Add(-100 * time.Millisecond)
	store("1", at)
	if r := run(t, b, d, o); r.Counts[Imported] != 1 {
		t.Fatalf("%+v", r)
	}
	store("2", at)
	if r := run(t, b, d, o); r.Counts[Imported] != 1 {
		t.Errorf("%+v", r)
	}
	v, _ := b.Read(context.Background(), "sess_a")
	if string(v.Data) != "2" {
		t.Errorf("%q is stored", v.Data)
	}
}

// TestLongInUse: the lock of a session whose file is open is renewed, for as long as that lasts.
func TestLongInUse(t *testing.T) {
	t.Parallel()
	b, d, o := setup(t)
	f, err := os.OpenFile(put(t, d, "sess_a", "1", time.Minute), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	settled := make(chan struct{})
	o.Settled = func() { close(settled) }
	done := make(chan Report)
	go func() { done <- run(t, b, d, o) }()
	<-settled
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if h, _ := b.Locked(context.Background(), "sess_a"); h == nil {
			t.Fatal("the session is not locked while its file is open")
		}
	}
	f.WriteString("2")
	f.Close()
	if r := <-done; r.Counts[Imported] != 1 {
		t.Errorf("%+v", r)
	}
	if v, _ := b.Read(context.Background(), "sess_a"); string(v.Data) != "2" {
		t.Errorf("%q is stored", v.Data)
	}
	if h, _ := b.Locked(context.Background(), "sess_a"); h != nil {
		t.Error("the session stays locked")
	}
}

// TestLockedThere: what a mount holds is waited for, and what it has stored stays.
func TestLockedThere(t *testing.T) {
	b, d, o := setup(t)
	ctx := context.Background()
	put(t, d, "sess_a", "1", time.Minute)
	put(t, d, "sess_b", "1", time.Minute)
	lease, v, err := b.TryLock(ctx, "sess_a", sessfs.Holder{Host: "other"})
	if lease == nil || err != nil {
		t.Fatal(err)
	}
	done := make(chan Report)
	go func() { done <- run(t, b, d, o) }()
	time.Sleep(50 * time.Millisecond)
	if _, err := b.Commit(ctx, "sess_a", v, sessfs.Attr{Mtime: time.Now().UnixNano()}, []byte("2"), lease); err != nil {
		t.Fatal(err)
	}
	b.Unlock(lease)
	if r := <-done; r.Counts[Imported] != 1 || r.Counts[Newer] != 1 {
		t.Errorf("%+v", r)
	}
	if v, _ := b.Read(ctx, "sess_a"); string(v.Data) != "2" {
		t.Errorf("%q is stored", v.Data)
	}
}

// TestEnded: an import that is ended lets go of all locks; two of one directory at a time are refused.
func TestEnded(t *testing.T) {
	b, d, o := setup(t)
	f, err := os.OpenFile(put(t, d, "sess_a", "1", time.Minute), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ctx, cancel := context.WithCancel(context.Background())
	o.Settled = func() {
		if _, err := Import(context.Background(), b, d, o); !errors.Is(err, errImporting) {
			t.Errorf("a second import: %v", err)
		}
		dry := o
		dry.DryRun, dry.Settled = true, nil
		if r, err := Import(context.Background(), b, d, dry); err != nil || r.Counts[Imported] != 1 {
			t.Errorf("a dry run beside it: %+v, %v", r, err)
		}
		cancel()
	}
	if _, err := Import(ctx, b, d, o); !errors.Is(err, context.Canceled) {
		t.Errorf("an import that was ended: %v", err)
	}
	if h, _ := b.Locked(context.Background(), "sess_a"); h != nil {
		t.Error("the session stays locked")
	}
}

// broken is a store whose servers do not answer after a while.
type broken struct {
	*memory.Backend
	left int
}

func (b *broken) Commit(ctx context.Context, id sessfs.ID, base *sessfs.Session, attr sessfs.Attr, data []byte, lease *sessfs.Lease) (*sessfs.Session, error) {
	if b.left--; b.left < 0 {
		return nil, fmt.Errorf("cache server x: %w", sessfs.ErrUnavailable)
	}
	return b.Backend.Commit(ctx, id, base, attr, data, lease)
}

// TestOutage: servers that do not answer end the import; what they have refused is not taken for imported.
func TestOutage(t *testing.T) {
	t.Parallel()
	b, d, o := setup(t)
	put(t, d, "sess_a", "1", time.Minute)
	if _, err := Import(context.Background(), &broken{Backend: b}, d, o); !errors.Is(err, sessfs.ErrUnavailable) {
		t.Errorf("servers that do not answer: %v", err)
	}
	if r := run(t, b, d, o); r.Counts[Imported] != 1 {
		t.Errorf("%+v", r)
	}
}

// TestJournal: the last line of a name counts, and one that is cut is none.
func TestJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	os.WriteFile(path, []byte(journalLine("sess_a", 1)+journalLine("sess_\n\xff", 2)+journalLine("sess_a", 3)+"5 \"sess_b"), 0o600)
	j, err := openJournal(path, false)
	if err != nil {
		t.Fatal(err)
	}
	j.note("sess_c", 4)
	if err := j.close(false); err != nil {
		t.Fatal(err)
	}
	j, err = openJournal(path, true)
	if err != nil {
		t.Fatal(err)
	}
	if len(j.at) != 3 || j.at["sess_a"] != (stored{3, 1}) || j.at["sess_\n\xff"] != (stored{2, 0}) || j.at["sess_c"] != (stored{4, 0}) {
		t.Errorf("%v", j.at)
	}
}

// TestNothingOpened: what is no regular file is not even opened, since that may wait, or do something.
func TestNothingOpened(t *testing.T) {
	b, d, o := setup(t)
	unix.Mkfifo(filepath.Join(d.Path, "sess_a"), 0o600)
	done := make(chan Report)
	go func() { done <- run(t, b, d, o) }()
	select {
	case r := <-done:
		if r.Counts[Refused] != 1 {
			t.Errorf("%+v", r)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it waits for a fifo")
	}
	// Nor what has taken a file's place since.
	if _, _, err := d.root.open("sess_a"); err == nil || err.Error() != "a fifo" {
		t.Errorf("opening a fifo: %v", err)
	}
	os.Symlink("/etc/passwd", filepath.Join(d.Path, "sess_b"))
	if _, _, err := d.root.open("sess_b"); err == nil || err.Error() != "a symbolic link" {
		t.Errorf("opening a link: %v", err)
	}
}

// TestExportLate: a file that has become newer since it was looked at is not replaced.
func TestExportLate(t *testing.T) {
	_, d, _ := setup(t)
	path := put(t, d, "sess_a", "later", time.Minute)
	ex := &exporter{o: ExportOptions{Names: flat}, dir: d}
	v := &sessfs.Session{State: sessfs.Live, Attr: sessfs.Attr{Mode: 0o600, Mtime: time.Now().Add(-2 * time.Minute).UnixNano()}, Data: []byte("old")}
	if err := ex.replace(d.root, "sess_a", v); !errors.Is(err, errLocked) {
		t.Errorf("%v", err)
	}
	if r := ex.write(context.Background(), d.root, "sess_a", v); r.outcome != Newer {
		t.Errorf("%+v", r)
	}
	if b, _ := os.ReadFile(path); string(b) != "later" {
		t.Errorf("%q", b)
	}
}

// Files that are refused, because of another depth for one, are there all the same: nobody has logged out by that.
func TestRefusedIsNotGone(t *testing.T) {
	b, d, o := setup(t)
	put(t, d, "sess_a", "1", time.Minute)
	if r, err := Import(context.Background(), b, d, o); err != nil || r.Counts[Imported] != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	o.Depth = 1
	if r, err := Import(context.Background(), b, d, o); err != nil || r.Counts[Refused] != 1 || r.Counts[Removed] != 0 {
		t.Errorf("with another depth: %+v, %v", r, err)
	}
	if v, err := b.Read(context.Background(), "sess_a"); err != nil || !v.Exists() {
		t.Errorf("the session is %+v, %v", v, err)
	}
}

// An import that was killed has noted a change that it has not stored; then PHP has destroyed the session.
func TestGoneAfterKill(t *testing.T) {
	b, d, o := setup(t)
	path := put(t, d, "sess_a", "1", time.Minute)
	if r, err := Import(context.Background(), b, d, o); err != nil || r.Counts[Imported] != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	f, err := os.OpenFile(o.Journal, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString(journalLine("sess_a", time.Now().UnixNano()))
	f.Close()
	os.Remove(path)
	if r, err := Import(context.Background(), b, d, o); err != nil || r.Counts[Removed] != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	if v, err := b.Read(context.Background(), "sess_a"); err != nil || v.Exists() {
		t.Errorf("the session is %+v, %v", v, err)
	}
}
