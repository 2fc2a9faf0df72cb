package php

import (
	"fmt"
	"io"
	"net/http"
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
	const id, size = "uploader", 3000000
	head := "--x\r\nContent-Disposition: form-data; name=\"PHP_SESSION_UPLOAD_PROGRESS\"\r\n\r\nmine\r\n" +
		"--x\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x\"\r\nContent-Type: text/plain\r\n\r\n"
	const tail = "\r\n--x--\r\n"
	body, rest := io.Pipe()
	req, err := http.NewRequest(http.MethodPost, web.URL+"/upload.php", body)
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = int64(len(head) + size + len(tail))
	req.Header.Set("Content-Type", "multipart/form-data; boundary=x")
	req.AddCookie(&http.Cookie{Name: "PHPSESSID", Value: id})
	answer := make(chan string, 1)
	go func() {
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			answer <- err.Error()
			return
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		answer <- string(b)
	}()
	defer rest.Close()
	io.WriteString(rest, head+strings.Repeat("u", 2*size/3))
	progress := func() string {
		return strings.TrimSpace(testkit.PHP(t, b, start+`$p = $_SESSION['upload_progress_mine'] ?? exit('nothing yet');
			echo $p['done'] ? 'done' : 'not done', ' ', $p['content_length'], ' ', $p['bytes_processed'] > 1000000 ? 'over a third' : 'begun';`, id))
	}
	length := fmt.Sprint(req.ContentLength)
	seen := ""
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the other host has seen %q; the daemons:\n%s\n%s", seen, a.Log(), b.Log())
		}
	})
	testkit.Until(t, 20*time.Second, "the other host sees the upload under way", func() bool {
		seen = progress()
		return seen == "not done "+length+" over a third"
	})
	io.WriteString(rest, strings.Repeat("u", size-2*size/3)+tail)
	testkit.Want(t, <-answer, fmt.Sprint("1 ", size))
	testkit.Want(t, progress(), "done "+length+" over a third")
	testkit.Want(t, testkit.PHP(t, b, start+`echo $_SESSION['upload_progress_mine']['files'][0]['bytes_processed'];`, id), fmt.Sprint(size))
}
