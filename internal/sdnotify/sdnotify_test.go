package sdnotify

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// listen is systemd's end; the function returned reads one message.
func listen(t *testing.T, name string) func() string {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", name)
	return func() string {
		t.Helper()
		conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		b := make([]byte, 4096)
		n, err := conn.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestMessages(t *testing.T) {
	for _, name := range []string{filepath.Join(t.TempDir(), "notify"), fmt.Sprintf("@sessfs-test-%d", os.Getpid())} {
		read := listen(t, name)
		for _, tc := range []struct {
			err  error
			want string
		}{
			{Ready(""), "READY=1"},
			{Ready("serving /x"), "READY=1\nSTATUS=serving /x"},
			{Status("a\nREADY=1"), "STATUS=a READY=1"},
			{Stopping(), "STOPPING=1"},
			{Notify("WATCHDOG=1"), "WATCHDOG=1"},
		} {
			must(t, tc.err)
			if got := read(); got != tc.want {
				t.Errorf("%s: got %q, want %q", name, got, tc.want)
			}
		}
		must(t, Reloading())
		usec, ok := strings.CutPrefix(read(), "RELOADING=1\nMONOTONIC_USEC=")
		if n, err := strconv.ParseInt(usec, 10, 64); !ok || err != nil || n <= 0 {
			t.Errorf("%s: the reload's time is %q", name, usec)
		}
	}
}

func TestNobodyListens(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	must(t, Ready("x"))
	for _, bad := range []string{"relative", filepath.Join(t.TempDir(), "none")} {
		t.Setenv("NOTIFY_SOCKET", bad)
		if Ready("x") == nil {
			t.Errorf("no error for NOTIFY_SOCKET=%s", bad)
		}
	}
}

func TestUnsetKeepsTheDaemonsVoice(t *testing.T) {
	t.Cleanup(func() { kept = nil })
	read := listen(t, filepath.Join(t.TempDir(), "notify"))
	Unset()
	Unset()
	if v, set := os.LookupEnv("NOTIFY_SOCKET"); set {
		t.Errorf("children inherit NOTIFY_SOCKET=%s", v)
	}
	must(t, Stopping())
	if got := read(); got != "STOPPING=1" {
		t.Errorf("got %q", got)
	}
}

func TestWatchdogInterval(t *testing.T) {
	own := strconv.Itoa(os.Getpid())
	for _, tc := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"", "", 0}, {"3000000", "", 1500 * time.Millisecond}, {"3000000", own, 1500 * time.Millisecond},
		{"3000000", "1", 0}, {"0", own, 0}, {"-5", own, 0}, {"x", own, 0}, {"9223372036854775807", own, 0},
	} {
		t.Setenv("WATCHDOG_USEC", tc.usec)
		t.Setenv("WATCHDOG_PID", tc.pid)
		if got := WatchdogInterval(); got != tc.want {
			t.Errorf("WATCHDOG_USEC=%s WATCHDOG_PID=%s: %s, want %s", tc.usec, tc.pid, got, tc.want)
		}
	}
}
