package mountopt

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzParse: options that are taken are taken again as they were kept, never take a protection away, and give the kernel
// labels and nothing else.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "rw,noatime", `context="a,ro",nofail`, `comment=a\,ro`, `context="a`, "exec,noexec", `context=a\`, " rw , ,ro", "x-systemd.requires=a b",
		`context="x"y"z,w"`, "noatime,relatime,noatime", "context=a,fscontext=b", "context=", "nodev,dev", `context=a\,ro`, `context=a\ ,nofail`, "X-mount.mkdir=0755,user=root"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		o, err := Parse(s)
		if err != nil {
			return
		}
		if o.Flags()&always != always || o.Flags()&^(unix.MS_NOATIME|always) != 0 {
			t.Fatalf("%q: flags %#x", s, o.Flags())
		}
		for _, l := range o.Labels {
			if name, _, ok := strings.Cut(l, "="); !ok || !slices.Contains(labels, name) {
				t.Fatalf("%q: the label %q", s, l)
			}
		}
		if got := kernelSplit(o.Data()); !slices.Equal(got, o.Labels) {
			t.Fatalf("%q: the kernel reads %q of %q", s, got, o.Labels)
		}
		for _, w := range slices.Concat(o.Labels, o.Ignored) {
			if w == "" || refused[w] != "" {
				t.Fatalf("%q: the option %q", s, w)
			}
		}
		_, raw, err := parse([]string{s}, false)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := Parse(raw...); err != nil || !reflect.DeepEqual(again, o) {
			t.Fatalf("%q: %q reads as %+v, %v", s, raw, again, err)
		}
		if strings.Contains(s, `\`) {
			return // an option may end with one, which is no end of a list before others
		}
		if again, err := Parse(strings.Join(raw, ",")); err != nil || !reflect.DeepEqual(again, o) {
			t.Fatalf("%q: %q joined reads as %+v, %v", s, raw, again, err)
		}
	})
}

// kernelSplit splits the data of mount(2) as SELinux does: at commas that are not in double quotes.
func kernelSplit(data string) []string {
	quoted := false
	return strings.FieldsFunc(data, func(r rune) bool {
		quoted = quoted != (r == '"')
		return r == ',' && !quoted
	})
}

// FuzzHelperArgs: arguments that are taken name a file and a directory, and give the same when they are put in order; -s takes
// whatever is taken without it.
func FuzzHelperArgs(f *testing.F) {
	for _, s := range []string{"/c\n/m\n-sfnv\n-o\nrw", "/c\n/m\n-orw\n--\n-x", "-N\n/proc/1", "--\n-c\n-m", "/c\n/m\n-o\nbogus,rw", "\n", "/c\n/m\n-so\nbogus\n-vorw"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		args := strings.Split(s, "\n")
		h, err := ParseHelperArgs(args)
		sloppy, sloppyErr := ParseHelperArgs(append([]string{"-s"}, args...))
		if err != nil {
			if sloppyErr == nil && !strings.Contains(err.Error(), "unknown mount option") {
				t.Fatalf("%q: %v without -s", args, err)
			}
			return
		}
		if h.Source == "" || h.Mountpoint == "" {
			t.Fatalf("%q: %+v", args, h)
		}
		h.Sloppy = true
		if sloppyErr != nil || !reflect.DeepEqual(sloppy, h) {
			t.Fatalf("%q: %+v, with -s %+v, %v", args, h, sloppy, sloppyErr)
		}
		inOrder := []string{"-s"}
		for _, word := range h.Raw {
			inOrder = append(inOrder, "-o", word)
		}
		if h.Fake {
			inOrder = append(inOrder, "-f")
		}
		if h.Verbose {
			inOrder = append(inOrder, "-v")
		}
		if again, err := ParseHelperArgs(append(inOrder, "--", h.Source, h.Mountpoint)); err != nil || !reflect.DeepEqual(again, h) {
			t.Fatalf("%q: %+v, in order %+v, %v", args, h, again, err)
		}
	})
}
