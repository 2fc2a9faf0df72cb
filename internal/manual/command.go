package manual

import (
	"regexp"
	"strings"
	"time"
)

const dateFormat = "2006-01-02"

var (
	heading = regexp.MustCompile(`(?m)^(\.TH "[^"]*" "[^"]*") "[^"]*"`)
	// option is one of cobra's options: its names in bold and its default, and below it, behind a tab, its use.
	option = regexp.MustCompile(`(?m)^(?:\.PP\n)?(\\fB-.*)\n\t(.*)\n\n?`)
	bold   = regexp.MustCompile(`\\fB[^\\]*`)
)

// Command mends what cobra wrote of a command: the date becomes one that man knows, options become a list instead of
// text behind tabs, and the hyphens of their names become such that can be copied.
func Command(page string, date time.Time) string {
	page = heading.ReplaceAllString(page, "$1 "+date.Format(dateFormat))
	return option.ReplaceAllStringFunc(page, func(s string) string {
		m := option.FindStringSubmatch(s)
		names := bold.ReplaceAllStringFunc(m[1], func(name string) string { return strings.ReplaceAll(name, "-", `\-`) })
		return ".TP\n" + names + "\n" + m[2] + "\n"
	})
}
