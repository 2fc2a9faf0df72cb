package php

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sessfs/internal/testkit"
)

func TestWrittenHereReadThere(t *testing.T) { testkit.EachKeep(t, testWrittenHereReadThere) }

func testWrittenHereReadThere(t *testing.T, k testkit.Keep) {
	a, b, _ := pair(t, k.Lock(""))
	testkit.Want(t, testkit.PHP(t, a, read, "s1"), "-")
	testkit.Want(t, testkit.PHP(t, a, write, "s1", "from a"), "ok")
	testkit.Want(t, testkit.PHP(t, b, read, "s1"), "from a")
	testkit.Want(t, testkit.PHP(t, b, write, "s1", "b"), "ok") // shorter
	testkit.Want(t, testkit.PHP(t, a, read, "s1"), "b")
	testkit.Want(t, testkit.PHP(t, a, write, "s1", strings.Repeat("longer ", 100)), "ok")
	testkit.Want(t, testkit.PHP(t, b, read, "s1"), strings.TrimSpace(strings.Repeat("longer ", 100)))
}

// The orders in which PHP versions replace a session's bytes, with the calls of userland streams. All are one atomic
// replacement: a reader that looks at every moment sees the old session or the new one.
func TestWriteOrders(t *testing.T) { testkit.EachKeep(t, testWriteOrders) }

func testWriteOrders(t *testing.T, k testkit.Keep) {
	a, b, _ := pair(t, k.Lock(""))
	for name, order := range map[string]string{
		"1: truncate only when shrinking, then write": `if (strlen($new) < strlen($old)) ftruncate($f, 0); fseek($f, 0); fwrite($f, $new);`,
		"2: truncate, then write":                     `ftruncate($f, 0); fseek($f, 0); fwrite($f, $new);`,
		"3: write, then cut":                          `fseek($f, 0); fwrite($f, $new); if (strlen($new) < strlen($old)) ftruncate($f, strlen($new));`,
	} {
		t.Run(name, func(t *testing.T) {
			file := fmt.Sprintf("sess_order%c", name[0])
			done := filepath.Join(testkit.Dir(t), "done")
			watch := testkit.StartPHP(t, b, nil, `$seen = [];
				while (!file_exists($argv[2])) {
					clearstatcache();
					$s = @file_get_contents($argv[1]);
					$seen[$s === false ? 'none' : ($s === '' ? 'empty' : (strlen(count_chars($s, 3)) > 1 ? 'mixed' : 'whole'))] = 1;
				}
				unset($seen['none']); echo implode(' ', array_keys($seen));`, b.Path(file), done)
			testkit.PHP(t, a, `$f = fopen($argv[1], 'c+'); stream_set_write_buffer($f, 0); $old = '';
				for ($i = 0; $i < 300; $i++) {
					$new = str_repeat(chr(97 + $i % 26), $i % 3 == 0 ? 5000 : 100 + $i);
					flock($f, LOCK_EX); `+order+` flock($f, LOCK_UN); $old = $new;
				}
				fclose($f);`, a.Path(file))
			got := testkit.PHP(t, b, `echo file_get_contents($argv[1]);`, b.Path(file))
			if len(got) != 100+299 || strings.Trim(got, string(rune('a'+299%26))) != "" {
				t.Errorf("at the end there are %d bytes: %.50s", len(got), got)
			}
			testkit.WriteFile(t, done, "")
			watch.Wait(t, 30*time.Second)
			testkit.Want(t, watch.Output(), "whole")
		})
	}
}

func TestEmptySession(t *testing.T) { testkit.EachKeep(t, testEmptySession) }

func testEmptySession(t *testing.T, k testkit.Keep) {
	a, b, _ := pair(t, k.Lock(""))
	testkit.Want(t, testkit.PHP(t, a, write, "e1", "x"), "ok")
	testkit.Want(t, testkit.PHP(t, a, start+`$_SESSION = []; session_write_close(); echo 'emptied';`, "e1"), "emptied")
	testkit.Until(t, 5*time.Second, "the other host sees the emptied session", func() bool { // it is stored at RELEASE, after close
		return strings.TrimSpace(testkit.PHP(t, b, start+`echo count($_SESSION);`, "e1")) == "0"
	})
}

func TestReadAndClose(t *testing.T) { testkit.EachKeep(t, testReadAndClose) }

func testReadAndClose(t *testing.T, k testkit.Keep) {
	a, b, _ := pair(t, k.Lock(""))
	testkit.Want(t, testkit.PHP(t, a, write, "r1", "x"), "ok")
	// The reader is still there, but holds no lock.
	reader := testkit.StartPHP(t, a, nil, `session_id($argv[1]); session_start(['read_and_close' => true]); echo $_SESSION['v']; sleep(30);`, "r1")
	testkit.Until(t, 10*time.Second, "the reader has read", func() bool { return reader.Output() == "x" })
	testkit.Want(t, testkit.PHP(t, b, write, "r1", "y"), "ok")
	reader.Kill()
	testkit.Want(t, testkit.PHP(t, a, read, "r1"), "y")
}

func TestResetAndAbort(t *testing.T) { testkit.EachKeep(t, testResetAndAbort) }

func testResetAndAbort(t *testing.T, k testkit.Keep) {
	a, b, _ := pair(t, k.Lock(""))
	testkit.Want(t, testkit.PHP(t, a, write, "ra", "kept"), "ok")
	testkit.Want(t, testkit.PHP(t, a, start+`$_SESSION['v'] = 'lost'; session_reset(); echo $_SESSION['v'];`, "ra"), "kept")
	testkit.Want(t, testkit.PHP(t, a, start+`$_SESSION['v'] = 'lost'; session_abort(); echo 'aborted';`, "ra"), "aborted")
	testkit.Want(t, testkit.PHP(t, b, read, "ra"), "kept")
}

func TestRegenerate(t *testing.T) { testkit.EachKeep(t, testRegenerate) }

func testRegenerate(t *testing.T, k testkit.Keep) {
	a, b, _ := pair(t, k.Lock(""))
	for _, del := range []string{"false", "true"} {
		testkit.Want(t, testkit.PHP(t, a, write, "old"+del, "cart"), "ok")
		id := strings.TrimSpace(testkit.PHP(t, a, start+`session_regenerate_id(`+del+`) or exit('no'); echo session_id();`, "old"+del))
		if id == "old"+del || len(id) < 20 {
			t.Fatalf("PHP printed %s", id)
		}
		testkit.Want(t, testkit.PHP(t, b, read, id), "cart")
		old := "cart"
		if del == "true" {
			old = "-"
		}
		testkit.Want(t, testkit.PHP(t, b, read, "old"+del), old)
	}
}

// P8: who waits for a session that is destroyed does not bring it back. PHP closes the file, and with it frees the lock,
// before it unlinks it: a waiter may still see the old session in that moment, as in a local directory.
func TestDestroyWhileAnotherWaits(t *testing.T) { testkit.EachKeep(t, testDestroyWhileAnotherWaits) }

func testDestroyWhileAnotherWaits(t *testing.T, k testkit.Keep) {
	a, b, _ := pair(t, k.Lock(""))
	for i := range 10 {
		id, waiterHost := fmt.Sprint("d", i), []*testkit.Host{a, b}[i%2]
		testkit.Want(t, testkit.PHP(t, a, write, id, "secret"), "ok")
		holder := testkit.StartPHP(t, a, nil, start+`echo "held\n"; usleep(300000); $_SESSION['v'] = 'late'; session_destroy(); echo 'destroyed';`, id)
		testkit.Until(t, 10*time.Second, "the lock is held", func() bool { return strings.Contains(holder.Output(), "held") })
		waiter := testkit.StartPHP(t, waiterHost, nil, start+`$_SESSION['w'] = ($_SESSION['v'] ?? 'nothing') . ' seen'; usleep(100000); @session_write_close(); echo $_SESSION['w'];`, id)
		holder.Wait(t, 30*time.Second)
		waiter.Wait(t, 30*time.Second)
		saw := strings.TrimSpace(waiter.Output())
		if saw != "nothing seen" && saw != "secret seen" {
			t.Fatalf("the waiter printed %s", saw)
		}
		for _, h := range []*testkit.Host{a, b} {
			got := strings.TrimSpace(testkit.PHP(t, h, start+`echo $_SESSION['v'] ?? '-', ' ', $_SESSION['w'] ?? '-';`, id))
			if got != "- -" && (got != "- nothing seen" || saw == "secret seen") {
				t.Errorf("round %d: the waiter saw %q; the session is back: %s", i, saw, got)
			}
		}
	}
}

// A session that a late writer still has in memory does not come back either.
func TestDestroyedStaysDestroyed(t *testing.T) { testkit.EachKeep(t, testDestroyedStaysDestroyed) }

func testDestroyedStaysDestroyed(t *testing.T, k testkit.Keep) {
	a, b, _ := pair(t, k.Lock(""))
	testkit.Want(t, testkit.PHP(t, a, write, "d2", "secret"), "ok")
	destroyed := testkit.NewGate(t)
	late := testkit.StartPHP(t, b, nil, start+`echo "held\n"; `+destroyed.PHP()+`$_SESSION['v'] = 'back again'; session_write_close(); echo 'end';`, "d2")
	testkit.Until(t, 10*time.Second, "the lock is held", func() bool { return strings.Contains(late.Output(), "held") })
	// Destroyed without the lock, as an administrator or a "log out everywhere" does.
	testkit.PHP(t, a, `unlink($argv[1]);`, a.Path("sess_d2"))
	destroyed.Open()
	late.Wait(t, 30*time.Second)
	if !strings.Contains(late.Output(), "Failed to write session data") {
		t.Errorf("the late writer was told nothing: %s", late.Output())
	}
	testkit.Want(t, testkit.PHP(t, a, read, "d2"), "-")
}

func TestStrictMode(t *testing.T) { testkit.EachKeep(t, testStrictMode) }

func testStrictMode(t *testing.T, k testkit.Keep) {
	a, b, _ := pair(t, k.Lock(""))
	strict := []string{"session.use_strict_mode=1"}
	testkit.Want(t, testkit.PHPWith(t, a, strict, start+`echo session_id() === $argv[1] ? 'taken' : 'new id';`, "foreign"), "new id")
	testkit.Want(t, testkit.PHPWith(t, b, strict, start+`echo session_id() === $argv[1] ? 'taken' : 'new id';`, "foreign"), "new id")
	id := strings.TrimSpace(testkit.PHPWith(t, a, strict, `session_start(); $_SESSION['v'] = 'mine'; echo session_id();`))
	for _, h := range []*testkit.Host{a, b} {
		testkit.Want(t, testkit.PHPWith(t, h, strict, start+`echo session_id() === $argv[1] ? 'kept ' : 'new id ', $_SESSION['v'] ?? '-';`, id), "kept mine")
	}
}

// lazy_write only touches an unchanged session; when the server has evicted it meanwhile, it is written whole.
func TestTouchOfAnEvictedSession(t *testing.T) { testkit.EachKeep(t, testTouchOfAnEvictedSession) }

func testTouchOfAnEvictedSession(t *testing.T, k testkit.Keep) {
	a, b, m := pair(t, k.Lock(""))
	testkit.Want(t, testkit.PHP(t, a, write, "ev", "kept"), "ok")
	evicted := testkit.NewGate(t)
	holder := testkit.StartPHP(t, a, nil, start+`echo "held\n"; `+evicted.PHP()+`session_write_close(); echo 'end';`, "ev")
	testkit.Until(t, 10*time.Second, "the lock is held", func() bool { return strings.Contains(holder.Output(), "held") })
	if out := m.Command("delete sessfs:sess_ev"); out != "DELETED\r\n" {
		t.Fatalf("delete: %s", out)
	}
	evicted.Open()
	holder.Wait(t, 30*time.Second)
	testkit.Want(t, holder.Output(), "held\nend")
	testkit.Want(t, testkit.PHP(t, b, read, "ev"), "kept")
}

// A touch moves mtime and ctime, and prolongs the session on the server.
func TestLazyWriteTouches(t *testing.T) { testkit.EachKeep(t, testLazyWriteTouches) }

func testLazyWriteTouches(t *testing.T, k testkit.Keep) {
	a, b, _ := pair(t, k.Lock("")+"session: {lifetime: 4s}\n")
	testkit.Want(t, testkit.PHP(t, a, write, "lazy", "x"), "ok")
	times := func() (mtime, ctime int) {
		out := testkit.PHP(t, b, `clearstatcache(); $s = stat($argv[1]); echo $s['mtime'], ' ', $s['ctime'], "\n";`, b.Path("sess_lazy"))
		if n, _ := fmt.Sscan(out, &mtime, &ctime); n != 2 {
			t.Fatalf("stat: %s", out)
		}
		return mtime, ctime
	}
	mtime, ctime := times()
	for range 3 {
		time.Sleep(1500 * time.Millisecond)
		testkit.Want(t, testkit.PHP(t, a, read, "lazy"), "x")
	}
	if m, c := times(); m <= mtime || c <= ctime {
		t.Errorf("mtime was %d and is %d, ctime was %d and is %d", mtime, m, ctime, c)
	}
	time.Sleep(6 * time.Second)
	testkit.Want(t, testkit.PHP(t, b, read, "lazy"), "-")
}
