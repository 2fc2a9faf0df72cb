package php

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sessfs/internal/testkit"
)

// body stores a session file of exactly the given size: v|s:N:"…"; with its own overhead taken off. It prints what it
// gave PHP to store, not what can be read of it.
const body = start + `$n = (int)$argv[2]; $over = strlen('v|s::"";') ; $digits = 1;
	while (strlen((string)($n - $over - $digits)) != $digits) $digits++;
	mt_srand($n); $s = ''; while (strlen($s) < $n) $s .= pack('N', mt_rand());
	$_SESSION['v'] = substr($s, 0, $n - $over - $digits);
	$all = session_encode(); session_write_close() or exit('not written'); echo strlen($all), ' ', md5($all);`

// Sizes around the write unit, the item limit and their multiples come back identical on the other host.
func TestSizes(t *testing.T) {
	a, b, _ := pair(t, "")
	for _, size := range []int{1000, 1044480, 1044481, 1044482, 1048552, 1048576, 2088962, 5000000} {
		id := fmt.Sprintf("size%d", size)
		wrote := testkit.PHP(t, a, body, id, fmt.Sprint(size))
		got := ""
		look := func() bool {
			got = testkit.PHP(t, b, `clearstatcache(); echo filesize($argv[1]), ' ', md5_file($argv[1]);`, b.Path("sess_"+id))
			return got == wrote
		}
		if size%1044481 == 0 { // it is stored at close, for which PHP does not wait
			testkit.Until(t, 10*time.Second, "it is stored", look)
		} else {
			look()
		}
		if got != wrote || !strings.HasPrefix(got, fmt.Sprint(size, " ")) {
			t.Errorf("%d bytes: written %s, read on the other host %s", size, wrote, got)
		}
		same := testkit.PHP(t, b, start+`$s = $_SESSION['v']; echo strlen($s) > 900 ? 'there' : 'gone';`, id)
		testkit.Want(t, same, "there")
		// and again, over what is there
		testkit.Want(t, testkit.PHP(t, b, start+`$_SESSION['v'] .= ''; $_SESSION['w'] = 1; session_write_close(); echo 'ok';`, id), "ok")
		testkit.Want(t, testkit.PHP(t, a, start+`echo $_SESSION['w'], ' ', strlen($_SESSION['v']) > 900;`, id), "1 1")
	}
	// 0 and 1 byte: no session that PHP's serializer makes, but files that a program makes.
	for _, s := range []string{"", "x"} {
		file := fmt.Sprintf("sess_tiny%d", len(s))
		// touch in a process of its own: one that finds the file open changes what is not stored before it is written.
		testkit.PHP(t, a, `file_put_contents($argv[1], $argv[2]);`, a.Path(file), s)
		testkit.PHP(t, a, `touch($argv[1]);`, a.Path(file))
		got := testkit.PHP(t, b, `clearstatcache(); echo filesize($argv[1]), file_get_contents($argv[1]);`, b.Path(file))
		testkit.Want(t, got, fmt.Sprint(len(s))+s)
	}
}

// One byte over session.max_size is refused at write, where PHP reports it, and the old session stays.
func TestOverMaxSize(t *testing.T) {
	a, b, _ := pair(t, "session: {max_size: 1200000B}\n")
	testkit.Want(t, testkit.PHP(t, a, write, "big", "old"), "ok")
	const grow = start + `$n = (int)$argv[2]; $_SESSION['v'] = str_repeat('x', $n - strlen('v|s:1199987:"";')); session_write_close(); echo 'end';`
	out := testkit.PHP(t, a, grow, "big", "1200001")
	if !strings.Contains(out, "Write failed") && !strings.Contains(out, "Failed to write session data") {
		t.Errorf("PHP was told nothing: %s", out)
	}
	testkit.Want(t, testkit.PHP(t, b, read, "big"), "old")
	testkit.Want(t, testkit.PHP(t, a, grow, "big", "1200000"), "end")
	testkit.Want(t, testkit.PHP(t, b, start+`echo strlen($_SESSION['v']);`, "big"), fmt.Sprint(1200000-len(`v|s:1199987:"";`)))
	testkit.Want(t, testkit.PHP(t, b, `clearstatcache(); echo filesize($argv[1]);`, b.Path("sess_big")), "1200000")
	errno := testkit.PHP(t, a, `$f = fopen($argv[1], 'r+'); ftruncate($f, 0); $n = @fwrite($f, str_repeat('y', 1200001)); echo error_get_last()['message'] ?? 'no error';`, a.Path("sess_big"))
	if !strings.Contains(errno, "errno=27") {
		t.Errorf("the write of one byte too many: %s", errno)
	}
	// The first part of that write was taken, and must not be stored as the whole when the file is closed.
	testkit.Want(t, testkit.PHP(t, a, start+`echo strlen($_SESSION['v']);`, "big"), fmt.Sprint(1200000-len(`v|s:1199987:"";`)))
}
