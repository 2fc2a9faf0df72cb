package config

import (
	"strings"
	"testing"
)

// An address that others reach is told of, one that only this host reaches is not.
func TestWarnings(t *testing.T) {
	for address, want := range map[string]bool{
		"": false, "127.0.0.1:9115": false, "127.3.2.1:9115": false, "[::1]:9115": false, "localhost:9115": false,
		"0.0.0.0:9115": true, "10.0.0.1:9115": true, "[::]:9115": true, "[fd00::1]:9115": true,
	} {
		c, err := Parse("c.yaml", []byte("admin: {metrics: '"+address+"'}"))
		if err != nil {
			t.Errorf("%q: %v", address, err)
			continue
		}
		if w := c.Warnings(); (len(w) == 1) != want || want && !strings.Contains(w[0], "no password") {
			t.Errorf("%q: warnings %q", address, w)
		}
	}
}
