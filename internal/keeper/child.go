package keeper

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Child is the daemon's side.
type Child struct {
	control *os.File
	leave   chan struct{}
	gone    chan struct{}
	goOn    chan struct{}
	once    sync.Once

	asking  sync.Mutex
	answers chan string // to what ask has said
}

// Attach begins to speak with the keeper that started this process.
func Attach() (*Child, error) {
	unix.CloseOnExec(Control)
	if err := unix.SetNonblock(Control, true); err != nil {
		return nil, fmt.Errorf("the keeper's socket: %w (this command is started by sessfs mount)", err)
	}
	c := &Child{control: os.NewFile(Control, "keeper"), leave: make(chan struct{}), gone: make(chan struct{}), goOn: make(chan struct{}),
		answers: make(chan string, 1)}
	go c.listen()
	return c, nil
}

func (c *Child) listen() {
	defer close(c.gone)
	b := make([]byte, maxWord)
	started, left := false, false
	for {
		n, err := c.control.Read(b)
		switch word := string(b[:max(n, 0)]); {
		case n == 0 || err != nil:
			return
		case word == wordGo && !started:
			started = true
			close(c.goOn)
		case word == wordLeave && !left:
			left = true
			close(c.leave)
		case word == wordDone || strings.HasPrefix(word, wordFailed):
			select {
			case c.answers <- word:
			default: // nobody waits for it any more
			}
		}
	}
}

// Prepared says that this process could take the mount, and waits until it may. It reports false when it shall not.
func (c *Child) Prepared() bool {
	c.control.Write([]byte(saidPrepared))
	select {
	case <-c.goOn:
		return true
	case <-c.gone:
		return false
	}
}

// ErrNoKeeper: there is none that would do it.
var ErrNoKeeper = errors.New("the keeper of the mount does not answer")

// askTime is how long the keeper may take to mount or to unmount.
const askTime = 10 * time.Second

// Mount has the keeper make the mount. ErrNoKeeper.
func (c *Child) Mount() error { return c.ask(askMount) }

// Unmount has the keeper take the mount away: umount2(2) with flags. The error is that call's errno, or ErrNoKeeper.
func (c *Child) Unmount(flags int) error { return c.ask(askUnmount + strconv.Itoa(flags)) }

func (c *Child) ask(word string) error {
	c.asking.Lock()
	defer c.asking.Unlock()
	select {
	case <-c.answers: // too late for the question before
	default:
	}
	c.control.Write([]byte(word))
	limit := time.NewTimer(askTime)
	defer limit.Stop()
	select {
	case answer := <-c.answers:
		text, failed := strings.CutPrefix(answer, wordFailed)
		if !failed {
			return nil
		}
		if n, err := strconv.Atoi(text); err == nil {
			return unix.Errno(n)
		}
		return errors.New(text)
	case <-c.gone:
	case <-limit.C:
	}
	return ErrNoKeeper
}

// Serving says that requests are answered.
func (c *Child) Serving() { c.control.Write([]byte(saidServing)) }

// Ended says that the mount is gone.
func (c *Child) Ended() { c.control.Write([]byte(saidEnded)) }

// Leave is closed when another daemon takes the mount over.
func (c *Child) Leave() <-chan struct{} { return c.leave }

// Gone is closed when there is no keeper any more.
func (c *Child) Gone() <-chan struct{} { return c.gone }

// Close ends the speaking.
func (c *Child) Close() {
	c.once.Do(func() { c.control.Close() })
	<-c.gone
}
