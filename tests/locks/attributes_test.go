package locks

import (
	"testing"

	"sessfs/internal/testkit"
)

// elsewhere: a process of one host looks at a session that nobody has written yet. One of another host takes its lock,
// writes it about 100 ms after that look, which is for how long the kernel may reuse what it was answered, and frees the
// lock, for which the first one waits. It must find what was written: PHP does not read a session whose size is said to be
// 0. The moment matters by a tick of the kernel's clock (1 to 10 ms).
const elsewhere = `[, $here, $there, $rounds] = $argv;
	[$near, $far] = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
	if (pcntl_fork() === 0) {
		fclose($near); ini_set('session.save_path', $there);
		while (($line = fgets($far)) !== false) {
			[$id, $at] = explode(' ', $line);
			session_id($id); session_start() or exit("no session");
			fwrite($far, "held\n");
			while (hrtime(true) < (int)$at) usleep(50);
			$_SESSION['n'] = 1; session_write_close() or exit("not written");
		}
		exit;
	}
	fclose($far); $lost = 0;
	for ($i = 0; $i < $rounds; $i++) {
		session_id("later$i"); session_start(['read_and_close' => true]) or exit("no session");
		fwrite($near, "later$i " . (hrtime(true) + 96000000 + $i % 6 * 1000000) . "\n");
		fgets($near);
		session_start() or exit("no session");
		$lost += ($_SESSION['n'] ?? 0) !== 1;
		session_abort();
	}
	echo "$lost lost";`

// P2: what another host has stored is found by whoever gets the lock after it.
func TestAttributesRunOut(t *testing.T) {
	a, b := pair(t, "")
	if out := testkit.PHP(t, a, elsewhere, a.Dir, b.Dir, "48"); out != "0 lost" {
		t.Errorf("of 48 sessions: %s", out)
	}
}
