package mountopt

import (
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const always = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		lists   []string
		flags   uintptr
		ignored string // joined by spaces
	}{
		{nil, always, ""},
		{[]string{"", ",,"}, always, ""},
		{[]string{"rw,_netdev,nofail"}, always, "rw _netdev nofail"},
		{[]string{"defaults", "noauto,user=root"}, always, "defaults noauto user=root"},
		{[]string{"x-systemd.requires=a.service,x-systemd.after=b,X-mount.mkdir=0755,comment=x"}, always,
			"x-systemd.requires=a.service x-systemd.after=b X-mount.mkdir=0755 comment=x"},
		{[]string{"noatime"}, always | unix.MS_NOATIME, ""},
		{[]string{"noatime,nodiratime"}, always | unix.MS_NOATIME, "nodiratime"},
		{[]string{"noatime", "relatime"}, always, "relatime"},
		{[]string{"nosuid,nodev,noexec,allow_other"}, always, "nosuid nodev noexec allow_other"},
		{[]string{"ro,rw"}, always, "rw"},           // the last one counts
		{[]string{"exec,noexec"}, always, "noexec"}, //
		{[]string{`comment="a,ro",nofail`}, always, `comment="a,ro" nofail`},
		{[]string{`comment=a\,ro,nofail`}, always, `comment=a\,ro nofail`},
		{[]string{`comment=a\`}, always, `comment=a\`},
	} {
		o, err := Parse(tc.lists...)
		if err != nil {
			t.Errorf("%q: %v", tc.lists, err)
		} else if got := strings.Join(o.Ignored, " "); o.Flags() != tc.flags || got != tc.ignored {
			t.Errorf("%q: flags %#x, ignored %q; want %#x, %q", tc.lists, o.Flags(), got, tc.flags, tc.ignored)
		}
	}
}

func TestRefused(t *testing.T) {
	for options, want := range map[string]string{
		"ro":                  "must be writable",
		"rw,ro":               "must be writable",
		"suid":                "always nosuid",
		"dev":                 "always nodev",
		"noexec,exec":         "always noexec",
		"remount,rw":          "cannot change while mounted",
		"default_permissions": "checks permissions itself",
		"nofial":              `unknown mount option "nofial"; did you mean nofail?`,
		"rw=1":                "unknown mount option",
		"lifetime=3s":         "configuration file",
		`comment="a`:          "not closed",
		`context=a\,ro`:       "a backslash in a label",
	} {
		if _, err := Parse(options); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", options, err, want)
		}
	}
}

func TestHelperArgs(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want Helper
	}{
		{[]string{"/c.yaml", "/mnt"}, Helper{Source: "/c.yaml", Mountpoint: "/mnt"}},
		{[]string{"/c.yaml", "/mnt", "-sfnv", "-o", "rw,noatime,bogus=1", "-t", "fuse.sessfs"}, Helper{
			Source: "/c.yaml", Mountpoint: "/mnt", Sloppy: true, Fake: true, Verbose: true,
			Raw: []string{"rw", "noatime"}, Options: Options{NoAtime: true, Ignored: []string{"rw"}}}},
		{[]string{"-orw", "-v", "-o", "nofail", "--", "/c.yaml", "-odd"}, Helper{
			Source: "/c.yaml", Mountpoint: "-odd", Verbose: true,
			Raw: []string{"rw", "nofail"}, Options: Options{Ignored: []string{"rw", "nofail"}}}},
	} {
		got, err := ParseHelperArgs(tc.args)
		if err != nil || !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%q: %+v, %v\nwant %+v", tc.args, got, err, tc.want)
		}
		if o, err := Parse(got.Raw...); err != nil || !reflect.DeepEqual(o, got.Options) {
			t.Errorf("%q: Raw reads as %+v, %v", tc.args, o, err)
		}
	}
	for want, args := range map[string][]string{
		"usage":                    {},
		"a mount point are needed": {"/c.yaml"},
		"are needed":               {"/c.yaml", "/mnt", "/more"},
		"-o needs a value":         {"/c.yaml", "/mnt", "-o"},
		"unknown flag":             {"/c.yaml", "/mnt", "-x"},
		"unknown mount option":     {"/c.yaml", "/mnt", "-o", "bogus"},
		"another namespace":        {"/c.yaml", "/mnt", "-N", "/proc/1/ns/mnt"},
	} {
		if _, err := ParseHelperArgs(args); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", args, err, want)
		}
	}
}
