package main

import "time"

// scenario is a load that several candidates get in turn.
type scenario struct {
	key, title string
	processes  int
	bytes      int
	sessions   int // of each process
	keep       bool
	rtt        time.Duration
	connects   bool // making a connection takes a round trip too
	hot        bool // one session for all, counted up
	mounts     int  // of sessfs; 0: one
	kinds      []string
	quick      []string // kinds of the short form; empty: not in it
}

// largeItems tells that sessions are over memcached's default item limit.
func (sc *scenario) largeItems() bool { return sc.bytes >= 1<<20 }

// The time inside the one hot session.
const hotHold = time.Millisecond

var (
	networkKinds = []string{kindSessfs, kindTwo, kindCopies, kindKeep, kindLocked, kindTuned, kindUnlocked, kindPecl, kindRedis}
	allKinds     = []string{kindSessfs, kindTwo, kindCopies, kindKeep, kindSealed, kindEmbedded, kindLocked, kindTuned, kindUnlocked, kindPecl, kindRedis, kindTmpfs, kindDisk}
)

func scenarios() []*scenario {
	return []*scenario{
		{key: "8p-1k", title: "8 processes, 1 kB", processes: 8, bytes: 1 << 10, sessions: 100, kinds: allKinds,
			quick: []string{kindSessfs, kindTwo, kindCopies, kindSealed, kindEmbedded, kindLocked, kindPecl, kindRedis, kindTmpfs}},
		{key: "1p-1k", title: "1 process, 1 kB", processes: 1, bytes: 1 << 10, sessions: 100, kinds: allKinds,
			quick: []string{kindSessfs, kindCopies, kindKeep, kindLocked, kindPecl}},
		{key: "1p-1k-1ms", title: "1 process, 1 kB, round trip 1 ms", processes: 1, bytes: 1 << 10, sessions: 100, rtt: time.Millisecond, kinds: networkKinds,
			quick: []string{kindSessfs, kindKeep, kindLocked, kindPecl}},
		{key: "1p-1k-1ms-connect", title: "1 process, 1 kB, round trip 1 ms, and one more for each connection", processes: 1, bytes: 1 << 10, sessions: 100, rtt: time.Millisecond, connects: true,
			kinds: []string{kindSessfs, kindKeep, kindLocked, kindTuned, kindPecl, kindRedis}},
		{key: "8p-1k-1ms", title: "8 processes, 1 kB, round trip 1 ms", processes: 8, bytes: 1 << 10, sessions: 100, rtt: time.Millisecond, kinds: networkKinds},
		{key: "8p-1k-unchanged", title: "8 processes, 1 kB, unchanged", processes: 8, bytes: 1 << 10, sessions: 100, keep: true,
			kinds: []string{kindSessfs, kindKeep, kindEmbedded, kindLocked, kindUnlocked, kindPecl, kindRedis, kindTmpfs}},
		{key: "1p-64k", title: "1 process, 64 kB", processes: 1, bytes: 64 << 10, sessions: 32,
			kinds: []string{kindSessfs, kindEmbedded, kindLocked, kindPecl, kindRedis, kindTmpfs}},
		{key: "8p-64k", title: "8 processes, 64 kB", processes: 8, bytes: 64 << 10, sessions: 32,
			kinds: []string{kindSessfs, kindTwo, kindCopies, kindSealed, kindEmbedded, kindLocked, kindUnlocked, kindPecl, kindRedis, kindTmpfs, kindDisk},
			quick: []string{kindSessfs, kindSealed}},
		{key: "8p-1m", title: "8 processes, 1 MB", processes: 8, bytes: 1 << 20, sessions: 4,
			kinds: []string{kindSessfs, kindLarge, kindEmbedded, kindLocked, kindUnlocked, kindPecl, kindRedis, kindTmpfs, kindDisk},
			quick: []string{kindSessfs, kindLarge, kindLocked}},
		{key: "hot", title: "one hot session, 8 processes, 1 ms inside (sessfs: two mounts)", processes: 8, hot: true, mounts: 2,
			kinds: []string{kindSessfs, kindKeep, kindTmpfs, kindLocked, kindPecl, kindRedis},
			quick: []string{kindSessfs, kindTmpfs}},
	}
}
