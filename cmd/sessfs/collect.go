package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

// room is how much the daemon lets its heap grow between two collections, in bytes, where little of it is in use. Go's own
// measure is as much as is in use: with some two megabytes a collection ran every thirty requests of 64 kB.
const room = 16 << 20

// roomPercent is what GOGC has to be for that room, where so many bytes are in use: never less than Go's own 100, nor more
// than what makes the least heap (4 MiB × GOGC / 100) as large as the room.
func roomPercent(inUse uint64) int {
	return int(min(max(100*room/max(inUse, 1), 100), room/(4<<20)*100))
}

// collector keeps GOGC at what gives the room: looked at with each collection, so that a heap that grows is not let grow to
// a multiple of itself.
type collector struct {
	mu      sync.Mutex
	percent int
	stopped bool
}

// keepRoom begins, and returns what ends it. Whoever sets GOGC in the environment decides himself.
func keepRoom() (stop func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	c := &collector{}
	c.adjust()
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.stopped = true
		debug.SetGCPercent(100)
	}
}

// adjust sets GOGC where it is far from what it should be, which stops the world for some microseconds, and leaves
// something behind that the next collection finds.
func (c *collector) adjust() {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	percent := roomPercent(live[0].Value.Uint64())
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return
	}
	if c.percent == 0 || 4*max(percent-c.percent, c.percent-percent) > c.percent {
		debug.SetGCPercent(percent)
		c.percent = percent
	}
	runtime.AddCleanup(&struct{ next [32]byte }{}, (*collector).adjust, c)
}
