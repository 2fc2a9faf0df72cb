package tls

import (
	"bytes"
	"encoding/binary"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sessfs/internal/testkit"
)

// capture is what goes to and from a port of the loopback interface.
type capture struct {
	t    *testing.T
	fd   int
	done chan struct{}

	mu      sync.Mutex
	streams map[[2]uint16][]byte // by source and destination, in the order of the packets
}

// ethernet header, and offsets in an IPv4 header
const (
	link     = 14
	protocol = link + 9
	tcp      = 6
)

// listenTo captures until the test ends.
func listenTo(t *testing.T, address string) *capture {
	t.Helper()
	_, p, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0) // nothing comes before bind
	if err != nil {
		t.Fatal(err)
	}
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 12},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.ETH_P_IP, Jf: 8},
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: protocol},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: tcp, Jf: 6},
		{Code: unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH, K: link},
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_IND, K: link}, // source
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(port), Jt: 2},
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_IND, K: link + 2}, // destination
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(port), Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1 << 20},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	for _, err := range []error{
		unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000}),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL}), Ifindex: lo.Index}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	c := &capture{t: t, fd: fd, done: make(chan struct{}), streams: make(map[[2]uint16][]byte)}
	var running sync.WaitGroup
	running.Go(c.run)
	t.Cleanup(func() { close(c.done); running.Wait(); unix.Close(fd) })
	return c
}

func (c *capture) run() {
	b := make([]byte, 1<<20)
	for {
		select {
		case <-c.done:
			return
		default:
		}
		n, from, err := unix.Recvfrom(c.fd, b, 0)
		if err != nil {
			continue // time to look whether it is over
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); !ok || ll.Pkttype == unix.PACKET_OUTGOING {
			continue // the loopback interface shows each packet twice
		}
		p := b[link:n]
		p = p[int(p[0]&0xf)*4:]
		key := [2]uint16{binary.BigEndian.Uint16(p), binary.BigEndian.Uint16(p[2:])}
		payload := p[int(p[12]>>4)*4:]
		c.mu.Lock()
		c.streams[key] = append(c.streams[key], payload...)
		c.mu.Unlock()
	}
}

// bytes is how many were seen.
func (c *capture) bytes() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.streams {
		n += len(s)
	}
	return n
}

// sees tells whether a text went over the wire as it is.
func (c *capture) sees(text string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.streams {
		if bytes.Contains(s, []byte(text)) {
			return true
		}
	}
	return false
}

// settle waits until all that was sent so far has been seen, and none was lost.
func (c *capture) settle() {
	c.t.Helper()
	before := -1
	testkit.Until(c.t, 10*time.Second, "the wire is quiet", func() bool {
		n := c.bytes()
		if n == before && n > 0 {
			return true
		}
		before = n
		time.Sleep(100 * time.Millisecond)
		return false
	})
	stats, err := unix.GetsockoptTpacketStats(c.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil || stats.Drops > 0 {
		c.t.Fatalf("the capture lost packets: %+v, %v", stats, err)
	}
}
