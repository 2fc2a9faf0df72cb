package main

import "testing"

func TestTrimmer(t *testing.T) {
	const mib = 1 << 20
	var trim trimmer
	allocated := uint64(0)
	for i, step := range []struct {
		allocated, inUse uint64
		want             bool
	}{
		{2 * mib, 100 * mib, false},  // nothing was allocated that could be free now
		{100 * mib, 20 * mib, false}, // busy, and small
		{100 * mib, 90 * mib, false}, // busy: the collector runs
		{mib, 90 * mib, true},        // quiet after a burst
		{mib, 90 * mib, true},        // the last request may have been under way then
		{mib, 90 * mib, false},       // the rest is in use
		{mib, 20 * mib, false},
		{200 * mib, 90 * mib, false},
		{mib, 20 * mib, false}, // small already
		{mib, 33 * mib, true},
	} {
		allocated += step.allocated
		if got := trim.due(step.inUse, allocated); got != step.want {
			t.Errorf("step %d: %v", i, got)
		}
	}
}
