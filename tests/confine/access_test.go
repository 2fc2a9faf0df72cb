package confine

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sessfs/internal/testkit"
)

// user is who runs a command.
type user struct {
	name   string
	uid    uint32
	gid    uint32
	groups []uint32
	may    bool // use the admin socket
}

// as runs a command as a user.
func as(u user, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: u.uid, Gid: u.gid, Groups: u.groups}}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// requests are all that the socket answers, so that one which is forgotten here is not forgotten by the test of the next
// route: whoever may not use the socket gets nothing of it at all.
var requests = []string{"GET /status", "GET /sessions", "GET /session?id=sess_a&data=1", "DELETE /session?id=sess_other", "DELETE /lock?id=sess_a", "POST /rebalance",
	"GET /metrics", "GET /healthz", "GET /readyz", "GET /debug/pprof/", "GET /debug/pprof/heap", "GET /debug/pprof/goroutine?debug=2", "GET /debug/pprof/cmdline"}

// Who may use the admin socket: root, and the members of admin.group where there is one.
func TestAdminSocket(t *testing.T) {
	many := make([]uint32, 0, 200)
	for i := range uint32(199) {
		many = append(many, 3000+i)
	}
	const group = 2500
	for _, tc := range []struct {
		more  string
		users []user
	}{
		{"", []user{{"root", 0, 0, nil, true}, {"another user", 2001, 2001, nil, false}, {"a member of root's group", 2001, 0, []uint32{0}, false}, {"a member", 2002, 2002, []uint32{group}, false}}},
		{"2500", []user{{"root", 0, 0, nil, true}, {"another user", 2001, 2001, nil, false}, {"whose number is the group's", group, 2001, nil, false},
			{"by its own group", 2002, group, nil, true}, {"a member", 2002, 2002, []uint32{7, group}, true}, {"a member of many", 2002, 2002, append(many, group), true}, {"of many others", 2002, 2002, many, false}}},
	} {
		t.Run("group="+tc.more, func(t *testing.T) {
			h := mount(t, "")
			if tc.more != "" {
				h.Stop()
				testkit.ReplaceFile(t, h.Config, "%s", strings.Replace(string(readFile(t, h.Config)), "admin: {", "admin: {group: "+tc.more+", ", 1))
				h.Start()
			}
			socket := filepath.Join(filepath.Dir(h.Config), "admin.sock")
			testkit.Want(t, testkit.PHP(t, h, write, "a", "SECRET"), "ok")
			for _, u := range tc.users {
				testkit.Want(t, testkit.PHP(t, h, write, "other", "x"), "ok")
				for _, request := range requests {
					method, path, _ := strings.Cut(request, " ")
					out, err := as(u, "curl", "-sS", "--max-time", "20", "-o", "-", "-w", " status=%{http_code}", "-X", method, "--unix-socket", socket, "http://sessfs"+path)
					if answered := err == nil && !strings.HasSuffix(out, "status=403"); answered != u.may {
						t.Errorf("%s: %s: %v: %.300s", u.name, request, err, out)
					}
					if !u.may && (strings.Contains(out, "SECRET") || strings.Contains(out, "sess_")) {
						t.Errorf("%s: %s told: %s", u.name, request, out)
					}
				}
				for _, args := range [][]string{{"status"}, {"ls"}, {"show", "sess_a"}, {"unlock", "sess_a"}, {"rm", "sess_a"}, {"upgrade"}} {
					may := u.may && (args[0] != "upgrade" || u.uid == 0)
					out, err := as(u, h.Binary, append(args, "--config", h.Config)...)
					if (err == nil) != may || !may && !strings.Contains(out, "only root") && !strings.Contains(out, "permission denied") {
						t.Errorf("%s: sessfs %s: %v: %s", u.name, strings.Join(args, " "), err, out)
					}
					if args[0] == "rm" && may {
						testkit.Want(t, testkit.PHP(t, h, write, "a", "SECRET"), "ok")
					}
				}
				testkit.Want(t, testkit.PHP(t, h, read, "a"), "SECRET")
			}
			for name, mode := range map[string]os.FileMode{socket + ".keeper": 0o600, socket: map[bool]os.FileMode{true: 0o600, false: 0o666}[tc.more == ""]} {
				if info, err := os.Stat(name); err != nil || info.Mode().Perm() != mode {
					t.Errorf("%s: %v, %v", name, info.Mode(), err)
				}
			}
		})
	}
}

// A stranger who connects again and again, and keeps silent, costs nobody anything.
func TestStrangersAtTheSocket(t *testing.T) {
	h := testkit.NewHost(t, testkit.Conf{Servers: []*testkit.Memcached{testkit.StartMemcached(t)}})
	testkit.ReplaceFile(t, h.Config, "%s", strings.Replace(string(readFile(t, h.Config)), "admin: {", "admin: {group: \"2500\", ", 1))
	h.Start()
	socket := filepath.Join(filepath.Dir(h.Config), "admin.sock")
	out, err := as(user{uid: 2001, gid: 2001}, "php", "-n", "-r", `$all = [];
		for ($i = 0; $i < 500; $i++) { $s = stream_socket_client("unix://$argv[1]") or exit("no connection"); $all[] = $s; }
		foreach ($all as $s) strpos(stream_get_contents($s), '403 Forbidden') or exit('no refusal'); echo count($all);`, "--", socket)
	if err != nil || out != "500" {
		t.Fatalf("%v: %s", err, out)
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", h.Process().PID()))
	if err != nil || len(fds) > 100 {
		t.Errorf("%d descriptors are left: %v", len(fds), err)
	}
	if out, code := h.Sessfs("status"); code != 0 {
		t.Errorf("status: exit %d: %s", code, out)
	}
}

// The names of sessions stand in the journal of an import, and the secret of the node ids in its file: both are root's. What
// speaks with the servers itself needs the configuration's own files.
func TestFilesOfRoot(t *testing.T) {
	h := mount(t, "")
	files := testkit.Dir(t)
	testkit.WriteFile(t, filepath.Join(files, "sess_a"), `v|s:1:"x";`)
	if out, code := h.Sessfs("import", files); code != 0 {
		t.Fatalf("import: exit %d: %s", code, out)
	}
	journals, _ := filepath.Glob(filepath.Join(filepath.Dir(h.Config), "import-*.journal"))
	if len(journals) != 1 {
		t.Fatalf("journals: %s", journals)
	}
	for _, name := range append(journals, "/run/sessfs/node.key") {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if err := os.Chmod(h.Config, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"export", files}, {"import", files}, {"rebalance"}, {"ls"}} {
		if out, err := as(user{uid: 2001, gid: 2001}, h.Binary, append(args, "--config", h.Config)...); err == nil || !strings.Contains(out, "permission denied") {
			t.Errorf("sessfs %s: %v: %s", args[0], err, out)
		}
	}
}
