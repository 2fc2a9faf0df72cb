// Package sdnotify tells systemd how the daemon does (sd_notify(3)). Without systemd every call does nothing.
package sdnotify

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// settings are the variables that systemd sets for a service.
type settings struct{ socket, watchdogUsec, watchdogPID string }

var (
	mu   sync.Mutex
	kept *settings // by Unset; nil: the environment's. Guarded by mu.
)

func current() settings {
	mu.Lock()
	defer mu.Unlock()
	if kept != nil {
		return *kept
	}
	return environment()
}

func environment() settings {
	return settings{os.Getenv("NOTIFY_SOCKET"), os.Getenv("WATCHDOG_USEC"), os.Getenv("WATCHDOG_PID")}
}

// Unset takes systemd's variables out of the environment, so that children do not speak in the daemon's name. This
// package remembers them and goes on working.
func Unset() {
	mu.Lock()
	defer mu.Unlock()
	if kept == nil {
		s := environment()
		kept = &s
	}
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		os.Unsetenv(name)
	}
}

// Notify sends lines of NAME=VALUE. It does nothing when systemd does not listen (NOTIFY_SOCKET is not set).
func Notify(state string) error {
	socket := current().socket
	if socket == "" {
		return nil
	}
	if socket[0] != '/' && socket[0] != '@' {
		return fmt.Errorf("telling systemd: NOTIFY_SOCKET=%s is neither a path nor an abstract socket", socket)
	}
	// A name that begins with '@' is an abstract socket to package net too.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("telling systemd: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("telling systemd at %s: %w", socket, err)
	}
	return nil
}

// Ready says that the daemon serves; it also ends Reloading. status is shown by systemctl; "" leaves it as it is.
func Ready(status string) error {
	if status == "" {
		return Notify("READY=1")
	}
	return Notify("READY=1\n" + statusLine(status))
}

// Reloading says that a new configuration is being read; Ready must follow.
func Reloading() error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("telling systemd: the monotonic clock: %w", err)
	}
	return Notify(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/1000))
}

// Stopping says that the daemon ends.
func Stopping() error { return Notify("STOPPING=1") }

// Status sets the line that systemctl shows.
func Status(status string) error { return Notify(statusLine(status)) }

func statusLine(status string) string {
	return "STATUS=" + strings.ReplaceAll(status, "\n", " ") // a newline would begin another variable
}

// WatchdogInterval is how often to send WATCHDOG=1: half of what systemd waits. 0: not asked for, or asked of another
// process.
func WatchdogInterval() time.Duration {
	s := current()
	usec, err := strconv.ParseInt(s.watchdogUsec, 10, 64)
	if err != nil || usec <= 0 || usec > int64(1<<63-1)/int64(time.Microsecond) {
		return 0
	}
	if s.watchdogPID != "" && s.watchdogPID != strconv.Itoa(os.Getpid()) {
		return 0
	}
	return time.Duration(usec) * time.Microsecond / 2
}
