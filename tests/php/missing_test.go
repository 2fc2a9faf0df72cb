package php

import (
	"strings"
	"testing"
	"time"

	"sessfs/internal/testkit"
)

// A process that has found a session missing asks again some time later: another host may have made it since.
func TestFoundAfterMissing(t *testing.T) {
	for what, code := range map[string]string{
		"read":   `echo trim(@file_get_contents($f) ?: '-'), "\n"; `,
		"stat":   `clearstatcache(); echo file_exists($f) ? 'v|s:1:"x";' : '-', "\n"; `,
		"access": `clearstatcache(); echo is_readable($f) ? 'v|s:1:"x";' : '-', "\n"; `,
		"unlink": `echo @unlink($f) ? 'v|s:1:"x";' : '-', "\n"; `,
	} {
		t.Run(what, func(t *testing.T) {
			a, b, _ := pair(t, "")
			made := testkit.NewGate(t)
			p := testkit.StartPHP(t, a, nil, `$f = ini_get('session.save_path').'/sess_made'; `+code+made.PHP()+code)
			testkit.Until(t, 10*time.Second, "it was missing", func() bool { return strings.Contains(p.Output(), "-") })
			testkit.Want(t, testkit.PHP(t, b, write, "made", "x"), "ok") // which takes longer than it is believed to be missing
			time.Sleep(100 * time.Millisecond)
			made.Open()
			p.Wait(t, 10*time.Second)
			testkit.Want(t, p.Output(), "-\n"+`v|s:1:"x";`)
		})
	}
}
