package lab

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"sessfs/internal/testkit"
)

// clock steps the time of day (CLOCK_REALTIME) of one process, and of nothing else on the machine. Go asks the kernel's
// code in the process for the time, the vDSO; a debugger may write there, which gives the process a copy of its own. The
// function becomes a system call whose answer is shifted. Nothing has to be put back: it ends with the process.
type clock struct {
	mem    *os.File
	offset int64 // where the shift stands in memory
}

// shifted is __vdso_clock_gettime: the system call, and for CLOCK_REALTIME so many seconds more.
var shifted = []byte{
	0xb8, 0xe4, 0, 0, 0, // mov eax, 228 (clock_gettime)
	0x0f, 0x05, // syscall
	0x85, 0xc0, // test eax, eax
	0x75, 0x0b, // jnz to the end
	0x85, 0xff, // test edi, edi
	0x75, 0x07, // jnz to the end
	0x48, 0x81, 0x06, 0, 0, 0, 0, // add qword [rsi], the shift
	0xc3, // ret
}

const shiftAt = 18

// newClock puts that function into a process that stands still.
func newClock(pid int) (*clock, error) {
	if runtime.GOARCH != "amd64" {
		return nil, errors.New("its machine code is for amd64")
	}
	from, size, err := vdso(pid)
	if err != nil {
		return nil, err
	}
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	image := make([]byte, size)
	if _, err := mem.ReadAt(image, from); err != nil {
		mem.Close()
		return nil, err
	}
	at, err := symbol(image, "__vdso_clock_gettime")
	if err != nil {
		mem.Close()
		return nil, err
	}
	busy, err := inside(pid, from, from+size)
	if err == nil && busy {
		err = errBusy
	}
	if err == nil {
		_, err = mem.WriteAt(shifted, from+at)
	}
	if err != nil {
		mem.Close()
		return nil, err
	}
	return &clock{mem, from + at + shiftAt}, nil
}

// errBusy: a thread stands in the function that is to be replaced.
var errBusy = errors.New("a thread is asking for the time")

// set shifts the time by so many seconds.
func (c *clock) set(seconds int32) error {
	b := make([]byte, 4)
	binary.LittleEndian.PutUint32(b, uint32(seconds))
	_, err := c.mem.WriteAt(b, c.offset)
	return err
}

func vdso(pid int) (from, size int64, err error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(maps)) {
		if strings.HasSuffix(strings.TrimSpace(line), "[vdso]") {
			var to int64
			_, err := fmt.Sscanf(line, "%x-%x", &from, &to)
			return from, to - from, err
		}
	}
	return 0, 0, errors.New("it has no vDSO")
}

func symbol(image []byte, name string) (int64, error) {
	f, err := elf.NewFile(io.NewSectionReader(bytes.NewReader(image), 0, int64(len(image))))
	if err != nil {
		return 0, err
	}
	list, err := f.DynamicSymbols()
	if err != nil {
		return 0, err
	}
	for _, s := range list {
		if s.Name == name && s.Size >= uint64(len(shifted)) {
			return int64(s.Value), nil
		}
	}
	return 0, fmt.Errorf("the vDSO has no %s that is long enough", name)
}

// inside tells whether a thread of a stopped process stands at an address between.
func inside(pid int, from, to int64) (bool, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", pid))
	if err != nil || len(files) == 0 {
		return false, errors.New("it has no threads to be seen")
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			return false, err
		}
		f := strings.Fields(string(b))
		if len(f) == 0 {
			return false, errors.New("a thread has no state")
		}
		pc, err := strconv.ParseUint(strings.TrimPrefix(f[len(f)-1], "0x"), 16, 64)
		if err != nil {
			return false, err // "running"
		}
		if int64(pc) >= from && int64(pc) < to {
			return true, nil
		}
	}
	return false, nil
}

// drawClock is a step of the time of a host's daemon and, after a while, a step back.
func (l *Lab) drawClock(r *rand.Rand, h *host) (string, func()) {
	steps := []time.Duration{-400 * 24 * time.Hour, -2 * time.Hour, -30 * time.Second, -time.Second, time.Second, 30 * time.Second, 2 * time.Hour, 400 * 24 * time.Hour}
	step, d := steps[r.IntN(len(steps))], between(r, time.Second, 2*lease)
	return fmt.Sprintf("host%d by %v for %v", h.number, step, d), func() {
		l.step(h, step)
		l.sleep(d)
		l.step(h, 0)
	}
}

// step shifts the time of a host's daemon, which stands still for a moment.
func (l *Lab) step(h *host, by time.Duration) {
	l.t.Helper()
	p := h.mount.Process()
	try := func() error {
		p.Freeze(l.t)
		defer p.Thaw()
		if h.clock == nil {
			c, err := newClock(p.PID())
			if err != nil {
				return err
			}
			h.clock = c
			l.t.Cleanup(func() { c.mem.Close() })
		}
		return h.clock.set(int32(by / time.Second))
	}
	var err error
	testkit.Until(l.t, 10*time.Second, "no thread is asking for the time", func() bool {
		err = try()
		return !errors.Is(err, errBusy)
	})
	if err != nil {
		l.t.Fatalf("stepping the clock of host%d: %v", h.number, err)
	}
}
