package php

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sessfs/internal/testkit"
)

// page is the one from the user's document on sharing sessions, with PHP's default handler.
const page = `<?php
session_start();
if (!isset($_SESSION['session_time'])) {
    $_SESSION['session_time'] = time();
}
echo "session_time:" . $_SESSION['session_time'] . "\n";
echo "now_time:" . time() . "\n";
echo "session_id:" . session_id() . "\n";
`

// Two php-fpm and nginx hosts, one cookie: the same session.
func TestTwoHostsShareASession(t *testing.T) {
	a, b, _ := pair(t, "")
	root := testkit.Dir(t)
	testkit.WriteFile(t, filepath.Join(root, "index.php"), "%s", page)
	webA, webB := testkit.StartWeb(t, a, root, 2), testkit.StartWeb(t, b, root, 2)
	const id = "abcdefghijklmnopqrstuvwxyz"
	first := lines(t, webA.Get(t, "/index.php", id))
	time.Sleep(1100 * time.Millisecond) // now_time counts in seconds
	second := lines(t, webB.Get(t, "/index.php", id))
	if first[0] != second[0] || first[2] != second[2] || first[2] != "session_id:"+id {
		t.Errorf("host a: %v\nhost b: %v", first, second)
	}
	if first[1] == second[1] {
		t.Errorf("now_time did not move: %v", first[1])
	}
}

func lines(t *testing.T, page string) []string {
	t.Helper()
	l := strings.Split(strings.TrimSpace(page), "\n")
	if len(l) != 3 {
		t.Fatalf("the page says:\n%s", page)
	}
	return l
}

// session.upload_progress writes the session while the upload runs, and another host sees it.
func TestUploadProgress(t *testing.T) {
	a, b, _ := pair(t, "")
	root := testkit.Dir(t)
	testkit.WriteFile(t, filepath.Join(root, "upload.php"), `<?php session_start(); echo count($_FILES), " ", strlen(file_get_contents($_FILES['f']['tmp_name']));`)
	web := testkit.StartWeb(t, a, root, 2, "session.upload_progress.enabled=1", "session.upload_progress.cleanup=0",
		"session.upload_progress.min_freq=0", "session.upload_progress.freq=10%", "upload_max_filesize=32M", "post_max_size=32M")
	const id = "uploader"
	got := testkit.MustRun(t, "sh", "-c", `head -c 3000000 /dev/zero | curl -s --limit-rate 20M -b PHPSESSID=`+id+
		` -F PHP_SESSION_UPLOAD_PROGRESS=mine -F 'f=@-;filename=x' `+web.URL+`/upload.php`)
	want(t, got, "1 3000000")
	out := testkit.PHP(t, b, start+`$p = $_SESSION['upload_progress_mine']; echo $p['done'] ? 'done' : 'not done', ' ', $p['files'][0]['bytes_processed'];`, id)
	want(t, out, "done 3000000")
}
