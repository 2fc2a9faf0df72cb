package keeper

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxWord is the length of the longest word; what is longer is cut.
const maxWord = 1024

// The words.
const (
	saidPrepared = "prepared"
	saidServing  = "serving"
	saidEnded    = "ended"
	wordGo       = "go"
	wordLeave    = "leave"
	// What a daemon asks for; the flags of an unmounting follow. The answer is wordDone, or wordFailed with an errno or a text.
	askMount   = "mount"
	askUnmount = "unmount "
	wordDone   = "done"
	wordFailed = "failed "
)

// daemon is one that was started.
type daemon struct {
	cmd     *exec.Cmd
	o       *Options
	control *os.File
	stderr  *tail // nil: not kept
	words   chan string
	exited  chan struct{}
	pumps   sync.WaitGroup

	served  bool      // it has begun to serve
	since   time.Time // when
	mounted bool      // the keeper has mounted for it
	ended   bool      // it has unmounted
}

// start starts a daemon. What it has said is to be read from words until exited is closed, then finish is called.
func (k *Keeper) start() (*daemon, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("starting a daemon: socketpair: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "keeper")
	defer theirs.Close()
	// In non-blocking mode: a read of it ends when it is closed.
	unix.SetNonblock(pair[0], true)
	d := &daemon{cmd: k.command(), o: &k.o, control: os.NewFile(uintptr(pair[0]), "daemon"), words: make(chan string, 8), exited: make(chan struct{})}
	d.cmd.ExtraFiles = append([]*os.File{theirs}, k.o.Files...)
	d.cmd.Stderr = k.o.Stderr
	var pipe *os.File
	if k.o.Stderr == nil {
		r, w, err := os.Pipe()
		if err != nil {
			d.control.Close()
			return nil, fmt.Errorf("starting a daemon: pipe: %w", err)
		}
		defer w.Close()
		d.cmd.Stderr, pipe, d.stderr = w, r, &tail{}
		if k.now == nil && k.o.Terminal != nil {
			d.stderr.echo = k.o.Terminal
		}
	}
	begin := k.o.Start
	if begin == nil {
		begin = (*exec.Cmd).Start
	}
	if err := begin(d.cmd); err != nil {
		d.control.Close()
		pipe.Close()
		return nil, fmt.Errorf("starting a daemon: %w", err)
	}
	d.pumps.Add(1)
	go func() {
		defer d.pumps.Done()
		defer close(d.words)
		b := make([]byte, maxWord)
		for {
			n, err := d.control.Read(b)
			if n == 0 || err != nil {
				return
			}
			d.words <- string(b[:n])
		}
	}()
	if pipe != nil {
		d.pumps.Add(1)
		go func() {
			defer d.pumps.Done()
			defer pipe.Close()
			io.Copy(d.stderr, pipe)
		}()
	}
	go func() {
		d.cmd.Wait()
		close(d.exited)
	}()
	return d, nil
}

// say tells the daemon a word. One that is gone does not hear it, which is seen by its end.
func (d *daemon) say(word string) { d.control.Write([]byte(word)) }

func (d *daemon) signal(s syscall.Signal) { d.cmd.Process.Signal(s) }

// heard notes what the daemon has said; "": it has closed its end.
func (d *daemon) heard(word string) {
	switch word {
	case saidServing:
		d.served, d.since = true, time.Now()
	case saidEnded:
		d.ended = true
	case "":
		d.words = nil // closed: not to be selected any more
	case askMount:
		err := d.o.Mount()
		d.mounted = err == nil
		d.answer(err)
	default:
		if flags, asked := strings.CutPrefix(word, askUnmount); asked {
			n, err := strconv.Atoi(flags)
			if err == nil {
				err = d.o.Unmount(n)
			}
			d.answer(err)
		}
	}
}

// answer tells what came of a question.
func (d *daemon) answer(err error) {
	switch errno, is := err.(unix.Errno); {
	case err == nil:
		d.say(wordDone)
	case is:
		d.say(wordFailed + strconv.Itoa(int(errno)))
	default:
		d.say(wordFailed + err.Error())
	}
}

// finish takes the last words of a daemon that has exited, and lets go of it. It tells whether it has unmounted.
func (d *daemon) finish() (ended bool) {
	if d.words != nil {
		for w := range d.words {
			d.heard(w)
			if w == "" {
				break
			}
		}
		d.words = nil
	}
	d.pumps.Wait()
	d.control.Close()
	return d.ended
}

// exitCode is -1 for one that was killed.
func (d *daemon) exitCode() int { return d.cmd.ProcessState.ExitCode() }

// end tells how it ended.
func (d *daemon) end() string {
	if d.cmd.ProcessState == nil {
		return fmt.Sprintf("pid %d", d.cmd.Process.Pid)
	}
	return fmt.Sprintf("pid %d, %s", d.cmd.Process.Pid, d.cmd.ProcessState)
}

// trace is the end of what it has written to standard error, where that is kept.
func (d *daemon) trace() string {
	if d.stderr == nil {
		return ""
	}
	return d.stderr.String()
}

// tail keeps the first and the last of what is written to it: a Go program begins with what it died of.
type tail struct {
	mu         sync.Mutex
	head, last bytes.Buffer
	echo       io.Writer // nil: none
}

const tailSize = 32 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(b)
	if t.echo != nil {
		t.echo.Write(b)
	}
	if room := tailSize - t.head.Len(); room > 0 {
		m := min(room, len(b))
		t.head.Write(b[:m])
		b = b[m:]
	}
	t.last.Write(b)
	if over := t.last.Len() - tailSize; over > 0 {
		t.last.Next(over)
	}
	return n, nil
}

// quiet ends the echo.
func (t *tail) quiet() {
	if t == nil {
		return
	}
	t.mu.Lock()
	t.echo = nil
	t.mu.Unlock()
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(t.head.String() + t.last.String())
}
