package sessfs

import (
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

func kernelBoottime(t *testing.T) int64 {
	var ts syscall.Timespec
	if _, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockBoottime, uintptr(unsafe.Pointer(&ts)), 0); errno != 0 {
		t.Fatal(errno)
	}
	return ts.Nano()
}

// Boottime lies between two answers of the kernel, a step of the wall clock or a suspension before it or not.
func TestBoottime(t *testing.T) {
	const slack = int64(time.Millisecond) // the wall clock is steered all the time
	check := func(when string) {
		t.Helper()
		before := kernelBoottime(t)
		got := Boottime()
		after := kernelBoottime(t)
		if got < before-slack || got > after+slack {
			t.Errorf("%s: %d is not between %d and %d", when, got, before, after)
		}
	}
	check("at first")
	check("again")
	for _, d := range []time.Duration{-time.Hour, time.Hour} {
		// As if the machine had been suspended since: the clocks are further apart than they were, by more than drift.
		boot.apart.Add(int64(d))
		boot.offset.Add(int64(d))
		check("after a suspension of " + d.String())
	}
}

func TestBoottimeTogether(t *testing.T) {
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for last, i := int64(0), 0; i < 10000; i++ {
				if i%1000 == 0 {
					boot.apart.Add(int64(time.Hour))
				}
				now := Boottime()
				if now < last-int64(time.Millisecond) {
					t.Errorf("it went back by %v", time.Duration(last-now))
					return
				}
				last = now
			}
		})
	}
	wg.Wait()
}
