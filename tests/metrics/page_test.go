package metrics

import (
	"bytes"
	"fmt"
	"image/png"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sessfs/internal/testkit"
)

// browser runs headless Chromium and returns what it printed, and what it logged.
func browser(t *testing.T, args ...string) (out, log string) {
	t.Helper()
	all := append([]string{"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions",
		"--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "--enable-logging=stderr", "--user-data-dir=" + testkit.Dir(t)}, args...)
	cmd := exec.Command("chromium", all...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = 10 * time.Second
	cmd.Env = append(os.Environ(), "HOME="+testkit.Dir(t))
	done := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	defer done.Stop()
	if err := cmd.Run(); err != nil {
		t.Fatalf("chromium %v: %v\n%s", args, err, stderr.String())
	}
	return stdout.String(), stderr.String()
}

// twice is a proxy in front of the page. The page that a script fetches has a sign in it.
func twice(t *testing.T, s *site) (address string, fetched *atomic.Int32) {
	fetched = new(atomic.Int32)
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: s.address})
	proxy.ModifyResponse = func(res *http.Response) error {
		if res.Request.URL.Path != "/" || res.Request.Header.Get("Sec-Fetch-Dest") != "empty" {
			return nil
		}
		fetched.Add(1)
		b, err := io.ReadAll(res.Body)
		if err != nil {
			return err
		}
		b = bytes.Replace(b, []byte("<footer>"), []byte("<footer>fetched by the script "), 1)
		res.Body, res.ContentLength = io.NopCloser(bytes.NewReader(b)), int64(len(b))
		res.Header.Set("Content-Length", strconv.Itoa(len(b)))
		return nil
	}
	srv := httptest.NewServer(proxy)
	t.Cleanup(srv.Close)
	return srv.URL + "/", fetched
}

var (
	started = regexp.MustCompile(`<h2>Sessions started</h2><p class="value">([0-9.]+)( k)? /s</p>`)
	opened  = regexp.MustCompile(`<th scope="row">OPEN</th><td class="n">([0-9.]+)( k)? /s</td><td class="n">[0-9.]+ [µm]?s</td><td class="n">[0-9.]+ [µm]?s</td><td class="n">([0-9.]+)( k)?</td>`)
)

// A browser shows the live figures, draws the charts, and fetches the page again by the page's own script under its own
// policy.
func TestPageInABrowser(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	load(t, s)
	p := testkit.StartPHP(t, s.Host, nil, hold, "long", "120000")
	testkit.Until(t, 20*time.Second, "there are figures", func() bool {
		m := opened.FindStringSubmatch(get(t, "http://"+s.address+"/"))
		return m != nil && m[3] != "0"
	})
	time.Sleep(2 * time.Second) // for a last sample of the charts, a second from the first
	address, fetched := twice(t, s)
	dom, log := browser(t, "--virtual-time-budget=7000", "--dump-dom", address)
	m := started.FindStringSubmatch(dom)
	if m == nil {
		t.Fatalf("the page shows no sessions started:\n%s", dom)
	}
	if rate, err := strconv.ParseFloat(m[1], 64); err != nil || rate < 1 {
		t.Errorf("%s sessions a second", m[1])
	}
	for _, want := range []string{"<title>Ready: sessfs on ", "cache1", "cache2", "2 of 2", s.Dir, s.servers[0].Addr, fmt.Sprintf("<td>%d</td><td>exclusive</td>", p.PID()), `<path class="line0" d="M`, "</html>"} {
		if !strings.Contains(dom, want) {
			t.Errorf("the page has no %q", want)
		}
	}
	if opened.FindString(dom) == "" {
		t.Errorf("the page has no line of OPEN")
	}
	if fetched.Load() == 0 || !strings.Contains(dom, "fetched by the script") {
		t.Errorf("the script fetched the page %d times, and did not show it", fetched.Load())
	}
	if strings.Contains(log, "Content Security Policy") || strings.Contains(log, "Refused to") || strings.Contains(log, "Uncaught") {
		t.Errorf("the browser complains:\n%s", log)
	}
	screenshot(t, "http://"+s.address+"/")
}

// screenshot takes one and sees that the page is drawn: text, the style's background, a chart's colour.
func screenshot(t *testing.T, url string) {
	file := filepath.Join(testkit.Dir(t), "page.png")
	browser(t, "--window-size=1400,1000", "--screenshot="+file, url)
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	if keep := os.Getenv("SESSFS_SCREENSHOT"); keep != "" { // to look at it
		b, _ := os.ReadFile(file)
		os.WriteFile(keep, b, 0o644)
	}
	count := make(map[string]int)
	for y := range img.Bounds().Dy() {
		for x := range img.Bounds().Dx() {
			r, g, b, _ := img.At(x, y).RGBA()
			count[fmt.Sprintf("#%02x%02x%02x", r>>8, g>>8, b>>8)]++
		}
	}
	for colour, least := range map[string]int{"#f4f5f7": 50000 /* page */, "#ffffff": 200000 /* cards */, "#1b1f24": 500 /* text */, "#1f6feb": 50 /* a line */, "#dafbe1": 500 /* ready */} {
		if count[colour] < least {
			t.Errorf("%d points are %s, not %d", count[colour], colour, least)
		}
	}
}
