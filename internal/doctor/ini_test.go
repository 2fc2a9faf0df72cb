package doctor

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func scanned(text string) map[string]string {
	all := make(map[string]string)
	for _, e := range scanINI(text, os.Getenv) {
		all[e.key] = e.value
	}
	return all
}

// asPHP reads each file as PHP does.
func asPHP(t *testing.T, files []string) (all []map[string]string) {
	t.Helper()
	dir := t.TempDir()
	for i, text := range files {
		if err := os.WriteFile(filepath.Join(dir, string(rune('a'+i/26))+string(rune('a'+i%26))), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command("php", "-n", "-r", `foreach (glob("$argv[1]/*") as $f) $all[] = (object)parse_ini_file($f); echo json_encode($all);`, dir).CombinedOutput()
	if err == nil {
		err = json.Unmarshal(out, &all)
	}
	if err != nil {
		t.Fatalf("php: %v\n%s", err, out)
	}
	return all
}

const sample = `; comment
session.a = 2;/var/lib
session.b = "2;/var/lib"
session.c = "a"b
session.d = On ; yes
session.e = a "b" c
session.f = 'x\y;z'
session.g = "a\\b\"c\'d\n"
session.h = "several
lines"
session.i = ${HOME}/x
session.j = /plain path/with  blanks  ; c
[section]
session.k=none
 session.l = "On"
session.n =
session.o = "${HOME}/y"
session.p = null
session.q = 1440 ; x
session.r = 1
session.r = 2
`

func TestINIIsReadAsByPHP(t *testing.T) {
	if got, want := scanned(sample), asPHP(t, []string{sample})[0]; !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	entries := scanINI(sample, os.Getenv)
	for _, e := range entries {
		if lines := strings.Split(sample, "\n"); strings.TrimSpace(lines[e.line-1]) != e.text || !strings.HasPrefix(e.text, e.key) {
			t.Errorf("%s is said to be line %d, %q", e.key, e.line, e.text)
		}
	}
	if last := entries[len(entries)-1]; last.section != "section" {
		t.Errorf("the last entry is in section %q", last.section)
	}
}

// What is put together of such pieces PHP reads, too.
func TestINIIsReadAsByPHPInAllOrders(t *testing.T) {
	piece := rapid.SampledFrom([]string{"a", "/p", " ", "\t", `"q;q"`, `'s "s'`, `"\"\\"`, ";c", "1", "K", ",", ".", "${HOME}", `""`})
	var files []string
	rapid.Check(t, func(t *rapid.T) {
		if len(files) >= 26*26 {
			return
		}
		text := ""
		for i, value := range rapid.SliceOfN(rapid.SliceOfN(piece, 0, 6), 1, 4).Draw(t, "lines") {
			text += "session." + string(rune('a'+i)) + " = " + strings.Join(value, "") + "\n"
		}
		files = append(files, text)
	})
	for i, want := range asPHP(t, files) {
		if got := scanned(files[i]); !reflect.DeepEqual(got, want) {
			t.Errorf("%q\ngot  %q\nwant %q", files[i], got, want)
		}
	}
}

// Any bytes end in some result.
func TestINIOfAnyBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		scanINI(rapid.StringOf(rapid.SampledFrom([]rune("a=;\"'\\[]${}\n \r:-"))).Draw(t, "text"), func(string) string { return "v" })
	})
}
