package php

import (
	"fmt"
	"testing"
	"time"

	"sessfs/internal/testkit"
)

// Processes that come to a new session at the same moment make it once and all get it: one that read it as missing finds
// it after all.
func TestMadeTogether(t *testing.T) {
	a, _, _ := pair(t, "")
	const code = `for ($i = 0; $i < (int)$argv[1]; $i++) {
		while ((int)(microtime(true) * 100) % 2 == $i % 2) usleep(100); // in step
		session_id("together$i"); session_start() or exit("no session");
		$_SESSION['n'] = ($_SESSION['n'] ?? 0) + 1; session_write_close() or exit("not written"); } echo 'ok';`
	const processes, sessions = 8, 300
	var procs []*testkit.Process
	for range processes {
		procs = append(procs, testkit.StartPHP(t, a, nil, code, fmt.Sprint(sessions)))
	}
	for _, p := range procs {
		p.Wait(t, 2*time.Minute)
		testkit.Want(t, p.Output(), "ok")
	}
	for _, i := range []int{0, sessions / 2, sessions - 1} {
		testkit.Want(t, testkit.PHP(t, a, start+`echo $_SESSION['n'];`, fmt.Sprint("together", i)), fmt.Sprint(processes))
	}
}
