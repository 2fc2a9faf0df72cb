package handover

import (
	"os"
	"strings"
	"testing"
	"time"

	"sessfs/internal/testkit"
)

// upgrade has the daemon replaced, and checks that it was, or was not.
func upgrade(t *testing.T, h *testkit.Host, code int, says string) {
	t.Helper()
	before := h.Process().PID()
	out, got := testkit.Run(t, testkit.Binary(t), "upgrade", h.Dir)
	if got != code || !strings.Contains(out, says) {
		t.Errorf("upgrade: exit %d, not %d: %s", got, code, out)
	}
	if after := h.Process().PID(); (after != before) != (code == 0) {
		t.Errorf("exit %d; before it was process %d, after %d", code, before, after)
	}
}

// Whatever is wrong with the new binary, the old daemon goes on.
func TestUpgrade(t *testing.T) {
	h := testkit.NewHost(t, testkit.Conf{Servers: servers(t, 2)})
	h.Binary = testkit.OwnBinary(t)
	h.Start()
	testkit.Want(t, testkit.PHP(t, h, write, "u", "x"), "ok")
	upgrade(t, h, 0, "has taken over")
	testkit.CopyBinary(t, h.Binary, []byte("#!/bin/sh\necho this is broken >&2\nexit 7\n"))
	upgrade(t, h, 1, "exit status 7")
	testkit.CopyBinary(t, h.Binary, []byte("nothing that could be run"))
	upgrade(t, h, 1, "exec format error")
	testkit.Want(t, testkit.PHP(t, h, read, "u"), "x")
	testkit.CopyBinary(t, h.Binary, nil)
	upgrade(t, h, 0, "has taken over")
	// Of a package that was removed the keeper still has the binary that it was started from.
	if err := os.Remove(h.Binary); err != nil {
		t.Fatal(err)
	}
	kill(t, h)
	testkit.Want(t, testkit.PHP(t, h, read, "u"), "x")
}

// A configuration that is broken at that moment, or changed, is dealt with as in a reload.
func TestConfigurationMeanwhile(t *testing.T) {
	c := testkit.Conf{Servers: servers(t, 1), More: "session: {lifetime: 1h}\ndepth: 0\n"}
	h := testkit.Mount(t, c)
	testkit.Want(t, testkit.PHP(t, h, write, "c", "x"), "ok")
	good, err := os.ReadFile(h.Config)
	if err != nil {
		t.Fatal(err)
	}
	testkit.WriteFile(t, h.Config, "%s", string(good)+"nonsense: 1\n")
	upgrade(t, h, 3, "nonsense")
	kill(t, h)
	testkit.Want(t, testkit.PHP(t, h, read, "c"), "x")
	testkit.Until(t, 10*time.Second, "it is said", func() bool { return strings.Contains(h.Log(), "the new configuration is not used") })
	c.More = "session: {lifetime: 2h}\ndepth: 2\n"
	h.Configure(c)
	upgrade(t, h, 0, "has taken over")
	testkit.Want(t, testkit.PHP(t, h, read, "c"), "x") // at depth 0 still
	testkit.Until(t, 10*time.Second, "it is said", func() bool {
		return strings.Contains(h.Log(), "these changes need a remount") && strings.Contains(h.Log(), "session.lifetime")
	})
}

// Without cache servers the sessions are in the daemon's memory: an upgrade hands them on, with their locks.
func TestUpgradeWithoutServers(t *testing.T) {
	h := testkit.Mount(t, testkit.Conf{})
	testkit.Want(t, testkit.PHP(t, h, write, "e", "x"), "ok")
	a, b := newActor(t, h.Path("sess_e")), newActor(t, h.Path("sess_e"))
	a.do("open", "ok")
	a.do("lock", "ok")
	b.do("open", "ok")
	upgrade(t, h, 0, "has taken over")
	b.do("try", "resource temporarily unavailable")
	a.do("size", "10")
	a.do("write 0 10 97", "ok")
	a.do("close", "ok")
	b.do("lock", "ok")
	b.do("read", "10a")
	b.do("close", "ok")
	kill(t, h)
	if !strings.Contains(h.Log(), "with it the sessions of this host") {
		t.Errorf("the loss was not said:\n%s", h.Log())
	}
}
