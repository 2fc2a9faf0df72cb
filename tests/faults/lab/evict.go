package lab

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"time"
)

// drawEvicting is a server that is restarted with too little memory, and filled from outside, so that it evicts sessions
// and locks. At the end it is restarted as it was: what it has lost is known to nobody else.
func (l *Lab) drawEvicting(r *rand.Rand, s *server) (string, func()) {
	d, megabytes := between(r, 2*time.Second, 2*lease), 3+r.IntN(6)
	return fmt.Sprintf("%s with %d MiB for %v", s.name, megabytes, d), func() {
		s.mem.Stop()
		s.mem.Start("-m", strconv.Itoa(megabytes))
		for end := time.Now().Add(d); time.Now().Before(end); l.sleep(100 * time.Millisecond) {
			if err := fill(s.mem.Addr, r.Uint64()); err != nil {
				l.t.Fatalf("filling %s: %v", s.name, err)
			}
		}
		n, err := evictions(s.mem.Addr)
		if err != nil {
			l.t.Fatalf("asking %s for its evictions: %v", s.name, err)
		}
		l.report.evictions += n
		s.mem.Stop()
		s.mem.Start()
	}
}

// fill stores 2 MiB in items of all the sizes that sessions and locks have.
func fill(addr string, seed uint64) error {
	r := rand.New(rand.NewPCG(seed, 2))
	var b bytes.Buffer
	for n := 0; b.Len() < 2<<20; n++ {
		size := 50 + r.IntN(150)
		if r.IntN(2) == 0 {
			size = 100 + r.IntN(4000)
		}
		fmt.Fprintf(&b, "set filler.%x.%d 0 0 %d noreply\r\n%s\r\n", seed, n, size, bytes.Repeat([]byte{'f'}, size))
	}
	b.WriteString("mn\r\n")
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write(b.Bytes()); err != nil {
		return err
	}
	for in := bufio.NewReader(c); ; {
		line, err := in.ReadString('\n')
		if err != nil || strings.HasPrefix(line, "MN") {
			return err
		}
	}
}

// evictions is how many items a server has evicted.
func evictions(addr string) (int, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write([]byte("stats\r\n")); err != nil {
		return 0, err
	}
	for in := bufio.NewReader(c); ; {
		line, err := in.ReadString('\n')
		if err != nil {
			return 0, err
		}
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), "STAT evictions "); ok {
			return strconv.Atoi(n)
		}
	}
}
