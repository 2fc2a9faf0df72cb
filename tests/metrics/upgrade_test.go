package metrics

import (
	"io"
	"strings"
	"testing"
	"time"

	"sessfs/internal/testkit"
)

// Another daemon under the same mount has the address at once, whether the one before left or died.
func TestAddressOutlivesTheDaemon(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for what, replace := range map[string]func(){
		"upgrade": func() {
			if out, code := s.Sessfs("upgrade"); code != 0 {
				t.Fatalf("upgrade: exit %d: %s", code, out)
			}
		},
		"kill": func() { s.Process().KillDaemon() },
	} {
		before := get(t, "http://"+s.address+"/metrics")
		replace()
		testkit.Until(t, 5*time.Second, "another daemon answers after "+what, func() bool {
			res, err := client.Get("http://" + s.address + "/metrics")
			if err != nil {
				return false
			}
			defer res.Body.Close()
			b, err := io.ReadAll(res.Body)
			return err == nil && startedAt(string(b)) != startedAt(before)
		})
		if res, body := ask(t, "GET", "http://"+s.address+"/readyz", ""); res.StatusCode != 200 {
			t.Errorf("after %s: %s: %s", what, res.Status, body)
		}
	}
	if strings.Contains(s.Log(), "cannot be had") {
		t.Errorf("the address was taken:\n%s", s.Log())
	}
}

// startedAt is when the process that answered was started.
func startedAt(metrics string) string {
	_, after, _ := strings.Cut(metrics, "\nprocess_start_time_seconds ")
	value, _, _ := strings.Cut(after, "\n")
	return value
}
