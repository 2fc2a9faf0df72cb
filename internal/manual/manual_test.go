package manual

import (
	"strings"
	"testing"
	"time"
)

var day = time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC)

const sample = `# About the file.
# More about it.

# A path. live
path: /a-b

# Of servers. \backslash
cache:
  # The list:
  #
  # servers:
  #   - {a: 1}
  #
  # .name counts.
  servers: []
  # Two. Default: 2. live
  # replicas: 2

log:
  # keep: not a key here. live
  level: info
`

func TestConfig(t *testing.T) {
	got, err := Config(sample, []string{"path", "cache.servers", "cache.replicas", "log.level"}, day, "1.2-3")
	if err != nil {
		t.Fatal(err)
	}
	got, _, _ = strings.Cut(got, ".SH EXAMPLE\n")
	const want = `.TH SESSFS.YAML 5 2026-11-26 "sessfs 1.2\-3" "sessfs"
.SH NAME
sessfs.yaml \- the configuration of sessfs
.SH SYNOPSIS
.I /etc/sessfs/config.yaml
.SH DESCRIPTION
About the file.
More about it.
.SH KEYS
.TP
.B path
Default: /a\-b
.br
A path. live
.SS cache
Of servers. \ebackslash
.TP
.B cache.servers
Default: []
.br
The list:
.IP
.nf
servers:
  \- {a: 1}
.fi
.IP
\&.name counts.
.TP
.B cache.replicas
Two. Default: 2. live
.SS log
.TP
.B log.level
Default: info
.br
keep: not a key here. live
`
	if got != want {
		t.Errorf("got\n%s\nnot\n%s", got, want)
	}
}

// A key that the sample does not mention would be missing in the page.
func TestConfigKnowsEveryKey(t *testing.T) {
	if _, err := Config(sample, []string{"path", "log.format"}, day, "1"); err == nil || !strings.Contains(err.Error(), "log.format") {
		t.Error(err)
	}
}

func TestCommand(t *testing.T) {
	const cobras = ".nh\n.TH \"SESSFS-RM\" \"8\" \"Nov 2026\" \"sessfs 1\" \"sessfs\"\n.SH OPTIONS\n\\fB-c\\fP, \\fB--dry-run\\fP=\"\"\n\tuse-less\n\n.PP\n\\fB--x\\fP[=false]\n\tuse\n\n.SH SEE ALSO\n"
	const want = ".nh\n.TH \"SESSFS-RM\" \"8\" 2026-11-26 \"sessfs 1\" \"sessfs\"\n.SH OPTIONS\n.TP\n\\fB\\-c\\fP, \\fB\\-\\-dry\\-run\\fP=\"\"\nuse-less\n.TP\n\\fB\\-\\-x\\fP[=false]\nuse\n.SH SEE ALSO\n"
	if got := Command(cobras, day); got != want {
		t.Errorf("got\n%s\nnot\n%s", got, want)
	}
}
