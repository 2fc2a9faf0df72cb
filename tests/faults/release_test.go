package faults

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"sessfs/internal/testkit"
)

// An emptied session is stored when the file is closed, and PHP ignores what close says. While the server is away
// longer than a lease the change is lost, and that is said: in the log, in status, and at the next start, once.
func TestLostAtClose(t *testing.T) { testkit.EachKeep(t, testLostAtClose) }

func testLostAtClose(t *testing.T, k testkit.Keep) {
	h, m := one(t, k.Lock("lease: 3s"), "  timeout: 500ms\n  retry_interval: 500ms\n")
	testkit.Want(t, testkit.PHP(t, h, write, "empty", "x"), "ok")
	frozen := testkit.NewGate(t)
	p := testkit.StartPHP(t, h, nil, start+`echo "held\n"; `+frozen.PHP()+`$_SESSION = []; session_write_close(); echo 'end'; sleep(60);`, "empty")
	testkit.Until(t, 10*time.Second, "the session is open", func() bool { return strings.Contains(p.Output(), "held") })
	m.Process().Freeze(t)
	defer m.Process().Thaw()
	frozen.Open()
	testkit.Until(t, 15*time.Second, "the loss is logged", func() bool { return strings.Contains(h.Log(), "could not be stored after close") })
	var s struct {
		Files struct {
			Lost int `json:"lost_stores"`
		}
	}
	out, code := h.Sessfs("status", "--json")
	if err := json.Unmarshal([]byte(out[:strings.LastIndex(out, "}")+1]), &s); err != nil || code != 4 || s.Files.Lost != 1 {
		t.Errorf("status: exit %d, %v, %+v", code, err, s)
	}
	m.Process().Thaw()
	testkit.Until(t, 10*time.Second, "the server is used again", func() bool {
		return strings.TrimSpace(testkit.PHP(t, h, write, "other", "y")) == "ok"
	})
	if out := testkit.PHP(t, h, read, "empty"); !strings.Contains(out, "Input/output error") {
		t.Errorf("the next start was told nothing: %s", out)
	}
	// The server that was away may do what it was sent: the session is the old one or the emptied one.
	if out := strings.TrimSpace(testkit.PHP(t, h, read, "empty")); out != "x" && out != "-" {
		t.Errorf("the session is now %s", out)
	}
}

// The same with a server that is away for a moment: the store is retried.
func TestRetriedAtClose(t *testing.T) { testkit.EachKeep(t, testRetriedAtClose) }

func testRetriedAtClose(t *testing.T, k testkit.Keep) {
	h, m := one(t, k.Lock(""), "  timeout: 300ms\n  retry_interval: 300ms\n")
	testkit.Want(t, testkit.PHP(t, h, write, "retry", "x"), "ok")
	frozen := testkit.NewGate(t)
	p := testkit.StartPHP(t, h, nil, start+`echo "held\n"; `+frozen.PHP()+`$_SESSION = []; session_write_close(); echo 'end'; sleep(60);`, "retry")
	testkit.Until(t, 10*time.Second, "the session is open", func() bool { return strings.Contains(p.Output(), "held") })
	m.Process().Freeze(t)
	frozen.Open()
	testkit.Until(t, 15*time.Second, "it is closed", func() bool { return strings.Contains(p.Output(), "end") })
	time.Sleep(500 * time.Millisecond)
	m.Process().Thaw()
	testkit.Until(t, 10*time.Second, "the emptied session is stored", func() bool {
		return strings.TrimSpace(testkit.PHP(t, h, read, "retry")) == "-"
	})
	if log := h.Log(); strings.Contains(log, "could not be stored") {
		t.Error(log)
	}
}
