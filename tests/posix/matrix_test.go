package posix

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sessfs/internal/testkit"
)

// The permission matrix: every operation by every kind of user on files and directories of all modes that make a
// difference, on a mount and on tmpfs. What differs is what docs/semantics.md says, and all of that does differ.

// difference is a row of docs/semantics.md that the matrix meets.
type difference struct {
	row  string // the first column
	is   func(o operation, mount, local string) bool
	seen int
}

func first(outcome string) string { word, _, _ := strings.Cut(outcome, " "); return word }

// knownDifferences are those of every mount, and with owner: USER.
func knownDifferences() []*difference {
	onto := func(names ...string) func(operation, string, string) bool {
		return func(o operation, mount, _ string) bool {
			return slices.Contains(names, o.name) && strings.HasSuffix(first(mount), "=EPERM")
		}
	}
	return []*difference{
		{row: "`open(O_CREAT\\|O_EXCL)`, `mkdir`, `link`, … of a name that no process on this host has touched", is: func(o operation, mount, local string) bool {
			return o.name == "link" && first(mount) == "link=EEXIST" || o.on == onMissing && first(mount) == "readdir=ENOTDIR"
		}},
		{row: "`open(O_EXCL)` and `opendir` of a session in a directory that the caller may not enter", is: func(o operation, mount, local string) bool {
			return strings.HasSuffix(first(local), "=EACCES") && (first(mount) == "readdir=ENOTDIR" || o.name == "open O_EXCL" && first(mount) == "open=EEXIST")
		}},
		{row: "`mkdir`, `symlink`, `link`, `rename`, `mknod`", is: onto("mkdir", "symlink", "link", "rename", "mknod")},
		{row: "Extended attributes, `fallocate`", is: func(o operation, mount, _ string) bool { return first(mount) == "setxattr=ENOTSUP" }},
		{row: "`chmod`, `chown`, `utimensat` of the directory", is: func(o operation, mount, local string) bool {
			return o.on == onDirectory && onto("chmod", "chown", "touch", "set times")(o, mount, local)
		}},
		{row: "Names that do not match `files`", is: func(o operation, mount, local string) bool {
			return o.on == onOther && (strings.HasSuffix(first(mount), "=ENOENT") || strings.HasSuffix(first(mount), "=EPERM"))
		}},
		{row: "`access(X_OK)` of a missing name", is: func(o operation, mount, local string) bool {
			return o.name == "access to run" && first(mount) == "access=EACCES"
		}},
	}
}

// inDocument fails unless the row stands in docs/semantics.md.
func inDocument(t *testing.T, row string) {
	t.Helper()
	b, err := os.ReadFile("../../docs/semantics.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), "\n| "+row+" |") {
		t.Errorf("docs/semantics.md has no row %q", row)
	}
}

func TestPermissionMatrix(t *testing.T) {
	protectedRegular(t)
	m := testkit.StartMemcached(t)
	for _, owner := range []string{"keep", "2001"} {
		t.Run("owner="+owner, func(t *testing.T) {
			known, where := knownDifferences(), places
			mine, theirs := job{UID: filesOwner, GID: filesGroup}, job{UID: filesOwner, GID: filesGroup}
			if owner != "keep" {
				known, where = append(known, ownerDifferences()...), places[:3]
				mine.UID, mine.GID, theirs.GID = 2002, 2004, filesOwner // whose it is does not matter
			}
			for i, p := range where {
				more := fmt.Sprintf("directory: {owner: %d, group: %d, mode: \"%04o\"}\nowner: %s\n", p.Owner, p.Group, p.Mode, owner)
				h := testkit.Mount(t, testkit.Conf{Servers: []*testkit.Memcached{m}, More: more})
				mine.Dir, mine.Place, theirs.Dir, theirs.Place = h.Dir, p, tmpfs(t), p
				mine.Name = fmt.Sprint(owner, "x", i, "x")
				theirs.Name = mine.Name
				theirs.reset()
				compare(t, p, known, matrix(t, mine), matrix(t, theirs))
				h.Stop()
			}
			for _, d := range known {
				inDocument(t, d.row)
				if d.seen == 0 {
					t.Errorf("docs/semantics.md says of %s that it differs, and it does not", d.row)
				}
			}
		})
	}
}

// matrix has a process do all operations of a job, and returns its lines.
func matrix(t *testing.T, j job) []string {
	t.Helper()
	text, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), matrixEnv+"="+string(text))
	p := testkit.StartCmd(t, cmd)
	if err := p.Wait(t, 5*time.Minute); err != nil {
		t.Fatalf("%v: %s", err, p.Output())
	}
	return strings.Split(strings.TrimSuffix(p.Output(), "\n"), "\n")
}

// compare judges what came of a place's operations.
func compare(t *testing.T, p place, known []*difference, mount, local []string) {
	if len(mount) != len(local) || len(mount) < 1000 {
		t.Fatalf("%v: %d operations on the mount, %d on tmpfs", p, len(mount), len(local))
	}
	for i := range mount {
		got, want := strings.Split(mount[i], "\x00"), strings.Split(local[i], "\x00")
		if len(got) != 4 || len(want) != 4 || !slices.Equal(got[:3], want[:3]) {
			t.Fatalf("%v: %q and %q are not of one operation", p, mount[i], local[i])
		}
		on, err := strconv.Atoi(got[2])
		if err != nil {
			t.Fatal(err)
		}
		o := operation{name: got[1], on: target(on)}
		if got[3] == want[3] || slices.ContainsFunc(known, func(d *difference) bool { return d.meets(o, got[3], want[3]) }) {
			continue
		}
		t.Errorf("%v, %s, %s:\n mount %s\n tmpfs %s", p, got[0], o.name, got[3], want[3])
	}
}

// meets counts what it is.
func (d *difference) meets(o operation, mount, local string) bool {
	if !d.is(o, mount, local) {
		return false
	}
	d.seen++
	return true
}

// ownerDifferences are those that owner: USER adds: nothing but whose a file is.
func ownerDifferences() []*difference {
	return []*difference{
		{row: "With `owner: USER`: a file that another user makes", is: func(o operation, mount, local string) bool {
			return o.on == onMissing && strings.HasPrefix(o.name, "open") && butForOwners(mount) == butForOwners(local)
		}},
		{row: "With `owner: USER`: `chown`", is: func(o operation, mount, local string) bool {
			return strings.HasPrefix(o.name, "chown") && butForOwners(mount) == butForOwners(local)
		}},
	}
}

var owners = regexp.MustCompile(` \d+:\d+`)

func butForOwners(outcome string) string { return owners.ReplaceAllString(outcome, "") }
