package admin

import (
	"net"
	"testing"
	"time"
)

func listenUnixgram(path string) (*net.UnixConn, error) {
	return net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
}

func receive(t *testing.T, l *net.UnixConn) string {
	t.Helper()
	l.SetReadDeadline(time.Now().Add(30 * time.Second))
	b := make([]byte, 4096)
	n, err := l.Read(b)
	if err != nil {
		t.Fatalf("systemd was told nothing: %v", err)
	}
	return string(b[:n])
}
