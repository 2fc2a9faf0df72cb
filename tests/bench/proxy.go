package main

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// The delaying proxy stands in for a network: what comes in at one side goes out at the other after a fixed time, in
// order and without a limit of speed. It is a process of its own with one thread that sleeps in ppoll: Go's timers wake
// up to a millisecond late when nothing else happens.

const (
	chunkSize = 256 << 10
	// A receiver that does not read holds its sender back, as a full network would.
	maxQueued = 64 << 20
)

// proxyMain is `bench proxy [-connect] DELAY TARGET [TARGET]`: it prints the address that stands for each target, and
// serves until it is ended.
func proxyMain(args []string) error {
	f := flag.NewFlagSet("bench proxy", flag.ContinueOnError)
	connect := f.Bool("connect", false, "a connection takes a round trip to be made")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() < 2 {
		return errors.New("usage: bench proxy [-connect] DELAY TARGET [TARGET]")
	}
	delay, err := time.ParseDuration(f.Arg(0))
	if err != nil {
		return err
	}
	p := &proxy{delay: delay, connect: *connect}
	for _, target := range f.Args()[1:] {
		address, err := p.listen(target)
		if err != nil {
			return err
		}
		fmt.Println(address)
	}
	os.Stdout.Close()
	return p.serve()
}

type proxy struct {
	delay     time.Duration // of one direction
	connect   bool          // what a new client says first arrives a round trip later: it would have waited for that long
	listeners []listener
	pairs     []*pair
	buf       [chunkSize]byte
}

type listener struct {
	fd     int
	target unix.SockaddrInet4
}

// pair is a connection: what the client says, and what the server answers.
type pair struct {
	halves [2]half
	dead   bool
}

type half struct {
	from, to int
	queue    []chunk
	queued   int
	fresh    bool      // what comes first is to be delayed by a round trip more
	earliest time.Time // nothing is passed on before
	ended    bool      // from has said that nothing more comes
	finished bool      // and to was told
	full     bool      // to takes nothing at the moment
}

type chunk struct {
	due  time.Time
	data []byte // nil: the end
}

func (p *proxy) listen(target string) (string, error) {
	addr, err := net.ResolveTCPAddr("tcp4", target)
	if err != nil {
		return "", err
	}
	l := listener{target: unix.SockaddrInet4{Port: addr.Port, Addr: [4]byte(addr.IP.To4())}}
	if l.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
		return "", err
	}
	if err := unix.Bind(l.fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return "", err
	}
	if err := unix.Listen(l.fd, 1024); err != nil {
		return "", err
	}
	own, err := unix.Getsockname(l.fd)
	if err != nil {
		return "", err
	}
	p.listeners = append(p.listeners, l)
	return fmt.Sprintf("127.0.0.1:%d", own.(*unix.SockaddrInet4).Port), nil
}

// serve runs until a system call fails that must not.
func (p *proxy) serve() error {
	runtime.LockOSThread()
	// The kernel may wake a sleeper 50 µs late by default.
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("timer slack: %w", err)
	}
	// It must not wait for the processes it delays. Where the kernel refuses, the round trip that is measured says so.
	_ = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0)
	for {
		fds, timeout := p.interests()
		if _, err := unix.Ppoll(fds, timeout, nil); err != nil && err != unix.EINTR {
			return fmt.Errorf("ppoll: %w", err)
		}
		for i, l := range p.listeners {
			if fds[i].Revents != 0 {
				p.accept(l)
			}
		}
		next := len(p.listeners)
		known := len(fds)
		for _, c := range p.pairs {
			for i := range c.halves {
				h := &c.halves[i]
				if next+1 < known { // a pair accepted just now has no answer of ppoll yet
					if fds[next].Revents != 0 {
						p.read(c, h)
					}
					h.full = h.full && fds[next+1].Revents == 0
					next += 2
				}
				h.write(c)
			}
		}
		p.forget()
	}
}

// interests lists what to wait for: listeners, then two entries for each half of each pair; and for how long at most.
func (p *proxy) interests() ([]unix.PollFd, *unix.Timespec) {
	fds := make([]unix.PollFd, 0, len(p.listeners)+4*len(p.pairs))
	for _, l := range p.listeners {
		fds = append(fds, unix.PollFd{Fd: int32(l.fd), Events: unix.POLLIN})
	}
	var earliest time.Time
	for _, c := range p.pairs {
		for i := range c.halves {
			h := &c.halves[i]
			in, out := unix.PollFd{Fd: -1}, unix.PollFd{Fd: -1} // -1: ignored
			if !h.ended && h.queued < maxQueued {
				in = unix.PollFd{Fd: int32(h.from), Events: unix.POLLIN}
			}
			switch {
			case h.full:
				out = unix.PollFd{Fd: int32(h.to), Events: unix.POLLOUT}
			case len(h.queue) > 0 && (earliest.IsZero() || h.queue[0].due.Before(earliest)):
				earliest = h.queue[0].due
			}
			fds = append(fds, in, out)
		}
	}
	if earliest.IsZero() {
		return fds, nil
	}
	wait := unix.NsecToTimespec(max(0, time.Until(earliest).Nanoseconds()))
	return fds, &wait
}

func (p *proxy) accept(l listener) {
	for {
		client, _, err := unix.Accept4(l.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return // none is waiting, or it went away
		}
		// Loopback: the connection is made, or refused, at once.
		server, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			unix.Close(client)
			return
		}
		if err := unix.Connect(server, &l.target); err != nil {
			unix.Close(client)
			unix.Close(server)
			continue
		}
		unix.SetNonblock(server, true)
		for _, fd := range []int{client, server} {
			unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		}
		p.pairs = append(p.pairs, &pair{halves: [2]half{{from: client, to: server, fresh: p.connect}, {from: server, to: client}}})
	}
}

func (p *proxy) read(c *pair, h *half) {
	n, err := unix.Read(h.from, p.buf[:])
	due := time.Now().Add(p.delay)
	if h.fresh && n > 0 {
		h.fresh, h.earliest = false, due.Add(2*p.delay)
	}
	if due.Before(h.earliest) {
		due = h.earliest
	}
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
	case err != nil:
		c.dead = true
	case n == 0:
		h.ended = true
		h.queue = append(h.queue, chunk{due: due})
	default:
		h.queue = append(h.queue, chunk{due, append([]byte(nil), p.buf[:n]...)})
		h.queued += n
	}
}

// write passes on what is due.
func (h *half) write(c *pair) {
	for len(h.queue) > 0 && !h.full && !c.dead && !time.Now().Before(h.queue[0].due) {
		first := &h.queue[0]
		if first.data == nil {
			unix.Shutdown(h.to, unix.SHUT_WR)
			h.finished = true
			h.queue = h.queue[1:]
			continue
		}
		n, err := unix.SendmsgN(h.to, first.data, nil, nil, unix.MSG_NOSIGNAL)
		switch {
		case err == unix.EAGAIN:
			h.full = true
		case err == unix.EINTR:
		case err != nil:
			c.dead = true
		case n < len(first.data):
			first.data = first.data[n:]
			h.queued -= n
		default:
			h.queue = h.queue[1:]
			h.queued -= n
		}
	}
}

// forget closes the connections that are over.
func (p *proxy) forget() {
	kept := p.pairs[:0]
	for _, c := range p.pairs {
		if c.dead || c.halves[0].finished && c.halves[1].finished {
			unix.Close(c.halves[0].from)
			unix.Close(c.halves[0].to)
			continue
		}
		kept = append(kept, c)
	}
	clear(p.pairs[len(kept):])
	p.pairs = kept
}
