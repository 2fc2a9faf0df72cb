package faults

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"sessfs/internal/testkit"
)

// A session that is deleted while one process has its lock and another waits for it: what that makes then belongs to its
// user, as the one before did.
func TestDeletedUnderAWaiter(t *testing.T) { testkit.EachKeep(t, testDeletedUnderAWaiter) }

func testDeletedUnderAWaiter(t *testing.T, k testkit.Keep) {
	const user = 33
	h, _ := one(t, k.Lock(""), "")
	waiting := func(n int) {
		testkit.Until(t, 10*time.Second, "somebody waits", func() bool {
			var f struct{ Locking struct{ Waiting int } }
			h.Status(&f)
			return f.Locking.Waiting == n
		})
	}
	as := func(code string) *testkit.Process {
		cmd := testkit.PHPCommand(h, nil, code, "deleted", "x")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
		return testkit.StartCmd(t, cmd)
	}
	first := testkit.NewGate(t)
	holder := as(start + `$_SESSION['v'] = 1; echo "held\n"; ` + first.PHP() + `exit;`)
	testkit.Until(t, 10*time.Second, "the lock is held", func() bool { return strings.Contains(holder.Output(), "held") })
	waiter := as(write)
	waiting(1)
	testkit.Want(t, testkit.PHPAs(t, h, user, nil, `echo unlink($argv[1]) ? 'ok' : 'no';`, h.Path("sess_deleted")), "ok")
	waiter.Wait(t, 10*time.Second)
	testkit.Want(t, waiter.Output(), "ok")
	first.Open()
	holder.Wait(t, 10*time.Second)
	testkit.Want(t, testkit.PHPAs(t, h, user, nil, `echo fileowner($argv[1]), ' ', decoct(fileperms($argv[1]) & 07777);`, h.Path("sess_deleted")), "33 600")
	testkit.Want(t, testkit.PHPAs(t, h, user, nil, read, "deleted"), "x")
}
