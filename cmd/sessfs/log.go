package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"log/syslog"
	"os"
	"strings"
	"sync/atomic"
)

// fallbackLog is where a daemon in the background writes on machines without syslog.
const fallbackLog = "/var/log/sessfs.log"

// logger is a slog handler whose level, format and sink may change.
type logger struct {
	level   slog.LevelVar
	sink    io.Writer
	current atomic.Pointer[slog.Handler]
}

func newLogger(sink io.Writer, level slog.Level, format string) *logger {
	l := &logger{sink: sink}
	l.set(level, format)
	return l
}

func (l *logger) set(level slog.Level, format string) {
	l.level.Set(level)
	var h slog.Handler = slog.NewTextHandler(l.sink, &slog.HandlerOptions{Level: &l.level})
	if format == "json" {
		h = slog.NewJSONHandler(l.sink, &slog.HandlerOptions{Level: &l.level})
	}
	l.current.Store(&h)
}

func (l *logger) Enabled(_ context.Context, level slog.Level) bool { return level >= l.level.Level() }
func (l *logger) Handle(ctx context.Context, r slog.Record) error {
	return (*l.current.Load()).Handle(ctx, r)
}
func (l *logger) WithAttrs(a []slog.Attr) slog.Handler { return (*l.current.Load()).WithAttrs(a) }
func (l *logger) WithGroup(name string) slog.Handler   { return (*l.current.Load()).WithGroup(name) }

// backgroundSink opens the log of a daemon that has no terminal: syslog, or a file where there is none.
func backgroundSink() (io.Writer, error) {
	if w, err := syslog.New(syslog.LOG_DAEMON|syslog.LOG_INFO, "sessfs"); err == nil {
		return syslogLines{w}, nil
	}
	return os.OpenFile(fallbackLog, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
}

// startingLines is the sink of a daemon whose parent still waits at a terminal: all goes to the log, what is wrong to the
// terminal too.
type startingLines struct{ terminal, log io.Writer }

func (s startingLines) Write(b []byte) (int, error) {
	if is(b, slog.LevelWarn) || is(b, slog.LevelError) {
		s.terminal.Write(b)
	}
	return s.log.Write(b)
}

// is tells whether a line, in either format, has that level.
func is(line []byte, level slog.Level) bool {
	return bytes.Contains(line, []byte("level="+level.String())) || bytes.Contains(line, []byte(`"level":"`+level.String()+`"`))
}

// syslogLines gives each line the priority of its level.
type syslogLines struct{ w *syslog.Writer }

func (s syslogLines) Write(b []byte) (int, error) {
	line := strings.TrimSuffix(string(b), "\n")
	var err error
	switch {
	case is(b, slog.LevelError):
		err = s.w.Err(line)
	case is(b, slog.LevelWarn):
		err = s.w.Warning(line)
	default:
		err = s.w.Info(line)
	}
	return len(b), err
}
