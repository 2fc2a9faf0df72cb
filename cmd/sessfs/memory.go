package main

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"sessfs/internal/handover"
)

// trimEvery is how often the daemon looks whether it has memory that it does not need.
const trimEvery = 5 * time.Second

// trimmer decides when to give memory back. Go's collector does it by itself while it runs, and it runs when memory is
// asked for: after a burst of large sessions a quiet daemon would keep for minutes what they needed.
type trimmer struct {
	seen, trimmed uint64 // bytes allocated so far, at the last look and at the last trim
	again         bool   // the last trim may have come before all was done that needed memory
}

const (
	trimAbove = 32 << 20 // bytes in use of the machine, below which nothing is done
	trimQuiet = 1 << 20  // bytes allocated in a second, above which the collector does it
	trimAfter = 16 << 20 // bytes allocated since the last time, below which there is nothing new to find
)

// due is told how many bytes the daemon has of the machine, and how many it has ever allocated.
func (t *trimmer) due(inUse, allocated uint64) bool {
	quiet := allocated-t.seen < trimQuiet*uint64(trimEvery/time.Second)
	t.seen = allocated
	more := allocated-t.trimmed >= trimAfter
	if !quiet || inUse < trimAbove || !more && !t.again {
		return false
	}
	t.trimmed, t.again = allocated, more
	return true
}

// trimMemory gives memory back in quiet moments, that of the requests with it, until ctx ends.
func trimMemory(ctx context.Context, requests *handover.Requests) {
	var t trimmer
	figures := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}, {Name: "/gc/heap/allocs:bytes"}}
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		metrics.Read(figures)
		if t.due(figures[0].Value.Uint64()-figures[1].Value.Uint64(), figures[2].Value.Uint64()) {
			runtime.GC() // what lies in a sync.Pool goes with the second collection
			debug.FreeOSMemory()
			requests.Trim()
		}
	}
}
