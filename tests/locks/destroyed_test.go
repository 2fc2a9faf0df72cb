package locks

import (
	"strings"
	"testing"
	"time"

	"sessfs/internal/testkit"
)

// makeAndDestroy uses two sessions for so many seconds, and destroys every second time. It prints how often, and what
// failed to open.
const makeAndDestroy = `$stale = ''; set_error_handler(function ($l, $m) use (&$stale) { if (str_contains($m, 'open(')) $stale .= "$m\n"; return true; });
	for ($n = 0, $end = hrtime(true) + $argv[1] * 1e9; hrtime(true) < $end; $n++) {
		session_id('brief' . mt_rand(0, 1));
		if (!session_start()) continue;
		$_SESSION['n'] = 1;
		mt_rand(0, 1) ? session_destroy() : session_write_close();
	}
	echo $n > 100 ? 'used' : "used $n times", "\n$stale";`

// However often sessions are destroyed on two hosts while others open them, no session_start() fails to open: the kernel
// tries an open that met a session which is gone once more, and that may meet the next one that is gone.
func TestDestroyedWhileOpened(t *testing.T) {
	a, b := pair(t, "")
	var procs []*testkit.Process
	for _, h := range []*testkit.Host{a, a, a, b, b} {
		procs = append(procs, testkit.StartPHP(t, h, nil, makeAndDestroy, "4"))
	}
	for _, p := range procs {
		p.Wait(t, time.Minute)
		if out := strings.TrimSpace(p.Output()); out != "used" {
			t.Errorf("a process printed %s", out)
		}
	}
}
