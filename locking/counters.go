package locking

import (
	"sync/atomic"

	"sessfs/internal/hist"
)

type counters struct {
	claims, leases, kept, waiting   atomic.Int64
	waits, commits, conflicts, lost atomic.Uint64
	longestNs                       atomic.Int64
	lastLost                        atomic.Int64 // unix nanoseconds
	waitTimes                       hist.Hist
}

func (c *counters) longest(ns int64) {
	for {
		old := c.longestNs.Load()
		if ns <= old || c.longestNs.CompareAndSwap(old, ns) {
			return
		}
	}
}
