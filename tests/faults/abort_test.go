package faults

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"sessfs/internal/testkit"
)

// A mount that is taken away by force, while a process holds a lock there and another waits for it: the daemon ends, and
// the lock is free for other hosts.
func TestUnmountedByForce(t *testing.T) {
	m := testkit.StartMemcached(t)
	c := testkit.Conf{Servers: []*testkit.Memcached{m}}
	a, b := testkit.Mount(t, c), testkit.Mount(t, c)
	testkit.Want(t, testkit.PHP(t, a, write, "forced", "x"), "ok")
	holder := testkit.StartPHP(t, a, nil, start+`echo "held\n"; sleep(60);`, "forced")
	testkit.Until(t, 10*time.Second, "the lock is held", func() bool { return strings.Contains(holder.Output(), "held") })
	waiter := testkit.StartPHP(t, a, nil, `echo "waiting\n"; `+start, "forced")
	testkit.Until(t, 10*time.Second, "somebody waits", func() bool {
		var f struct{ Locking struct{ Waiting int } }
		a.Status(&f)
		return f.Locking.Waiting == 1
	})
	syscall.Unmount(a.Dir, syscall.MNT_FORCE) // aborts the connection; the mount itself is busy
	select {
	case <-a.Process().Done():
	case <-time.After(20 * time.Second):
		t.Errorf("the daemon is still there 20 s after its mount was aborted:\n%s", a.Log())
	}
	testkit.Want(t, testkit.PHP(t, b, read, "forced"), "x")
	holder.Signal(syscall.SIGKILL)
	waiter.Signal(syscall.SIGKILL)
	a.Crash()
}

// A signal for a process whose request waits for a server is no reason to end the request, nor for the kernel and the
// daemon to talk about it all the time.
func TestSignalInARequest(t *testing.T) {
	h, m := one(t, "", "  timeout: 3s\n")
	testkit.Want(t, testkit.PHP(t, h, write, "signal", "x"), "ok")
	m.Process().Freeze(t)
	p := testkit.StartPHP(t, h, nil, `echo "begin\n"; `+start, "signal")
	testkit.Until(t, 10*time.Second, "it begins", func() bool { return strings.Contains(p.Output(), "begin") })
	time.Sleep(300 * time.Millisecond)
	p.Signal(syscall.SIGTERM)
	time.Sleep(time.Second)
	m.Process().Thaw()
	p.Wait(t, 30*time.Second)
	testkit.Until(t, 10*time.Second, "the server is used again", func() bool { _, code := h.Sessfs("status"); return code == 0 })
	var f struct {
		Files struct{ Operations map[string]int }
	}
	h.Status(&f)
	t.Logf("%d INTERRUPTs", f.Files.Operations["INTERRUPT"])
	if n := f.Files.Operations["INTERRUPT"]; n == 0 || n > 20 {
		t.Errorf("%d INTERRUPTs for one signal: %v", n, f.Files.Operations)
	}
}
