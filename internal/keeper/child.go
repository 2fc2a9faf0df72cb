package keeper

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Child is the daemon's side.
type Child struct {
	control *os.File
	leave   chan struct{}
	gone    chan struct{}
	goOn    chan struct{}
	once    sync.Once
}

// Attach begins to speak with the keeper that started this process.
func Attach() (*Child, error) {
	unix.CloseOnExec(Control)
	if err := unix.SetNonblock(Control, true); err != nil {
		return nil, fmt.Errorf("the keeper's socket: %w (this command is started by sessfs mount)", err)
	}
	c := &Child{control: os.NewFile(Control, "keeper"), leave: make(chan struct{}), gone: make(chan struct{}), goOn: make(chan struct{})}
	go c.listen()
	return c, nil
}

func (c *Child) listen() {
	defer close(c.gone)
	b := make([]byte, 64)
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
