package lab

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"sessfs/internal/testkit"
)

// clockVerb makes the test binary a program that prints the time, and how long it has run, for each line it is told.
const clockVerb = "print-the-time"

func printTime() {
	begin := time.Now()
	for in := bufio.NewReader(os.Stdin); ; {
		if _, err := in.ReadString('\n'); err != nil {
			return
		}
		t := time.Now()
		fmt.Println(t.Unix(), int64(t.Sub(begin)/time.Second))
	}
}

// The time of one process is stepped, to and fro. Its monotonic time goes on, and so does the time of everybody else.
func TestClock(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the clock of a process can be stepped on amd64 only")
	}
	in, tell, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	hear, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []io.Closer{in, tell, hear, out} {
		defer f.Close()
	}
	cmd := exec.Command("/proc/self/exe", clockVerb)
	cmd.Stdin, cmd.Stdout = in, out
	p := testkit.StartCmd(t, cmd)
	lines := bufio.NewReader(hear)
	ask := func() (unix, ran int64) {
		t.Helper()
		fmt.Fprintln(tell)
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Sscan(line, &unix, &ran); err != nil {
			t.Fatal(err)
		}
		return unix, ran
	}
	ask() // it runs
	var c *clock
	for _, step := range []int64{7200, -86400, 0} {
		p.Freeze(t)
		if c == nil {
			if c, err = newClock(p.PID()); err != nil {
				t.Fatal(err)
			}
			defer c.mem.Close()
		}
		if err := c.set(int32(step)); err != nil {
			t.Fatal(err)
		}
		p.Thaw()
		before := time.Now().Unix()
		unix, ran := ask()
		after := time.Now().Unix()
		if unix < before+step || unix > after+step {
			t.Errorf("stepped by %d s it says %d, between %d and %d here", step, unix, before, after)
		}
		if ran < 0 || ran > 3600 {
			t.Errorf("stepped by %d s it has run for %d s", step, ran)
		}
	}
}
