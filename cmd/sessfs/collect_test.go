package main

import (
	"runtime"
	"runtime/metrics"
	"testing"
	"time"
)

func TestRoomPercent(t *testing.T) {
	const mib = 1 << 20
	for inUse, want := range map[uint64]int{0: 400, mib: 400, 4 * mib: 400, 8 * mib: 200, 16 * mib: 100, 100 * mib: 100} {
		if got := roomPercent(inUse); got != want {
			t.Errorf("%d MiB in use: GOGC %d, not %d", inUse/mib, got, want)
		}
	}
}

// A heap that grows is collected as often as Go would; one that is small again gets its room back.
func TestKeepRoom(t *testing.T) {
	t.Setenv("GOGC", "")
	stop := keepRoom()
	defer stop()
	percent := func() uint64 {
		s := []metrics.Sample{{Name: "/gc/gogc:percent"}}
		metrics.Read(s)
		return s[0].Value.Uint64()
	}
	until := func(want uint64) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); percent() != want; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("GOGC is %d, not %d", percent(), want)
			}
			runtime.GC()
		}
	}
	until(400)
	much := make([]byte, 64<<20)
	until(100)
	runtime.KeepAlive(much)
	until(400)
	stop()
	if percent() != 100 {
		t.Errorf("GOGC is %d after the end", percent())
	}
}
