package mountopt

import (
	"errors"
	"fmt"
	"strings"
)

// Helper is what mount(8) asks mount.sessfs for.
type Helper struct {
	Source     string // fstab's first column: the configuration file
	Mountpoint string
	Options    Options
	Raw        []string // the options one by one, as Parse takes them; with Sloppy without the unknown ones
	Sloppy     bool     // -s: unknown options are left out
	Fake       bool     // -f: check, but do not mount
	Verbose    bool     // -v
}

const usage = "usage: mount.sessfs CONFIG MOUNTPOINT [-sfnv] [-o OPTIONS]"

// ParseHelperArgs reads the arguments of a mount helper, without the program's name:
//
//	mount.sessfs CONFIG MOUNTPOINT [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]
//
// -n (no mtab) and -t mean nothing here. -N is refused: the mount would end up in the wrong namespace.
func ParseHelperArgs(args []string) (Helper, error) {
	var h Helper
	var plain, lists []string
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if arg == "--" {
			plain = append(plain, args...)
			break
		}
		if len(arg) < 2 || arg[0] != '-' {
			plain = append(plain, arg)
			continue
		}
		letters := arg[1:]
		for letters != "" {
			letter := letters[0]
			letters = letters[1:]
			switch letter {
			case 's':
				h.Sloppy = true
			case 'f':
				h.Fake = true
			case 'v':
				h.Verbose = true
			case 'n':
			case 'o', 'N', 't':
				value := letters // -oOPTIONS
				if letters = ""; value == "" {
					if len(args) == 0 {
						return h, fmt.Errorf("-%c needs a value (%s)", letter, usage)
					}
					value, args = args[0], args[1:]
				}
				if letter == 'N' {
					return h, fmt.Errorf("-N %s: mounting into another namespace is not supported; run mount inside it (nsenter --mount=%s mount …)", value, value)
				}
				if letter == 'o' {
					lists = append(lists, value)
				}
			default:
				return h, fmt.Errorf("unknown flag %q (%s)", strings.ToValidUTF8("-"+string(letter), "?"), usage)
			}
		}
	}
	if len(plain) != 2 || plain[0] == "" || plain[1] == "" {
		return h, errors.New("a configuration file and a mount point are needed (" + usage + ")")
	}
	h.Source, h.Mountpoint = plain[0], plain[1]
	var err error
	h.Options, h.Raw, err = parse(lists, h.Sloppy)
	return h, err
}
