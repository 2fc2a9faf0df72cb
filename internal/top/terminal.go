package top

import (
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/term"
)

// TTY is the terminal of this process.
type TTY struct {
	f       *os.File
	keys    chan []byte
	resized chan struct{}
	size    chan os.Signal
	stop    chan struct{}
	running sync.WaitGroup
	old     *term.State // nil: not entered
}

// OpenTerminal opens the controlling terminal (tty(4)); its Close must be called. It is opened anew, so that reading it
// can be given up, and so that nothing that shares the standard streams sees another mode of its descriptor.
func OpenTerminal() (*TTY, error) {
	f, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("the terminal: %w", err)
	}
	t := &TTY{f: f, keys: make(chan []byte), resized: make(chan struct{}, 1), size: make(chan os.Signal, 1), stop: make(chan struct{})}
	signal.Notify(t.size, syscall.SIGWINCH)
	t.running.Go(t.read)
	t.running.Go(t.watch)
	return t, nil
}

// Close ends the use of the terminal.
func (t *TTY) Close() {
	t.Leave()
	signal.Stop(t.size)
	close(t.stop)
	t.f.Close()
	t.running.Wait()
}

// control calls fn with the descriptor; f.Fd would make it one that blocks.
func (t *TTY) control(fn func(fd int) error) (err error) {
	raw, err := t.f.SyscallConn()
	if err != nil {
		return err
	}
	if e := raw.Control(func(fd uintptr) { err = fn(int(fd)) }); e != nil {
		return e
	}
	return err
}

const (
	// The alternate screen, no cursor; and back (xterm's control sequences, which ncurses has as smcup, civis, cnorm, rmcup).
	enter = "\x1b[?1049h\x1b[?25l\x1b[2J"
	leave = "\x1b[0m\x1b[?25h\x1b[?1049l"
)

// Enter implements Terminal.
func (t *TTY) Enter() error {
	err := t.control(func(fd int) (err error) {
		t.old, err = term.MakeRaw(fd)
		return err
	})
	if err != nil {
		return fmt.Errorf("the terminal: %w", err)
	}
	_, err = t.f.WriteString(enter)
	return err
}

// Leave implements Terminal. A second one does nothing.
func (t *TTY) Leave() {
	if t.old == nil {
		return
	}
	t.f.WriteString(leave)
	t.control(func(fd int) error { return term.Restore(fd, t.old) })
	t.old = nil
}

// Write implements io.Writer.
func (t *TTY) Write(b []byte) (int, error) { return t.f.Write(b) }

// Size implements Terminal: 80 by 24 where the terminal does not know it.
func (t *TTY) Size() (width, height int) {
	err := t.control(func(fd int) (err error) {
		width, height, err = term.GetSize(fd)
		return err
	})
	if err != nil || width == 0 || height == 0 {
		return 80, 24
	}
	return width, height
}

// Keys implements Terminal.
func (t *TTY) Keys() <-chan []byte { return t.keys }

// Resized implements Terminal.
func (t *TTY) Resized() <-chan struct{} { return t.resized }

func (t *TTY) read() {
	defer close(t.keys)
	b := make([]byte, 64)
	for {
		n, err := t.f.Read(b)
		if n > 0 {
			select {
			case t.keys <- append([]byte{}, b[:n]...):
			case <-t.stop:
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (t *TTY) watch() {
	for {
		select {
		case <-t.stop:
			return
		case <-t.size:
			select {
			case t.resized <- struct{}{}:
			default:
			}
		}
	}
}

var _ Terminal = (*TTY)(nil)
