package backend

import "time"

// RebalanceOptions say how Rebalance works.
type RebalanceOptions struct {
	DryRun bool // only count what is to be moved
	Rate   int  // sessions moved in a second, at most; 0: DefaultRebalanceRate. Ten times as many are compared
	Seal   bool // and seal, after that, what is not sealed with the first key
}

// DefaultRebalanceRate is the Rate that leaves the servers to the web hosts.
const DefaultRebalanceRate = 2000

// RebalanceProgress tells how far a Rebalance is. A session counts once for each server that has it.
type RebalanceProgress struct {
	Server string `json:"server"` // the name of the one whose sessions are looked at
	Done   uint64 `json:"done"`   // sessions looked at, on all servers so far
	// Total is how many there will be: at the beginning what the servers say they hold, locks and parts of large sessions
	// included, so that it becomes smaller.
	Total    uint64 `json:"total"`
	Moved    uint64 `json:"moved"`  // sessions that were given a copy on a server that lacked it or had an older one
	Failed   uint64 `json:"failed"` // sessions that could not be moved; the log says why
	Busy     uint64 `json:"busy"`   // sessions that are to be moved, while somebody holds their lock; they are tried again
	Sealed   uint64 `json:"sealed"` // copies that were sealed with the first key
	Finished bool   `json:"finished"`
	Text     string `json:"text,omitempty"` // what it does beside that, such as waiting for a server; "": nothing
}

// RebalanceReport is what a Rebalance came to.
type RebalanceReport struct {
	Sessions uint64 `json:"sessions"` // that were found, each once
	// Moved are those that were given a copy; in a dry run those that would be.
	Moved   uint64            `json:"moved"`
	Busy    uint64            `json:"busy"`   // not moved: somebody held their lock all the time
	Failed  uint64            `json:"failed"` // not moved: a server failed
	DryRun  bool              `json:"dry_run"`
	Seals   *SealReport       `json:"seals,omitempty"` // where sealing was asked for
	Servers []RebalanceServer `json:"servers"`         // of the present list and of those before it, by name
}

// SealReport is what the copies of sessions were sealed with. A session counts once for each server that has it.
type SealReport struct {
	Keys   map[string]uint64 `json:"keys"`   // found, by the name of the key; "": not sealed
	Sealed uint64            `json:"sealed"` // sealed with the first key now, or to be in a dry run
	Left   uint64            `json:"left"`   // not sealed with the first key: a server failed, or they are damaged
	First  string            `json:"first"`  // the name of the first key
	// Plain is how long hosts may still use names that are not hashed. Zero: not any more.
	Plain time.Time `json:"plain,omitzero"`
}

// Complete tells whether every session is where the present list says.
func (r RebalanceReport) Complete() bool {
	return r.Busy == 0 && r.Failed == 0 && (!r.DryRun || r.Moved == 0)
}

// RebalanceServer is one server after a Rebalance.
type RebalanceServer struct {
	Name     string `json:"name"`
	Address  string `json:"address"`
	Sessions uint64 `json:"sessions"` // that it has a copy of
	Present  bool   `json:"present"`  // it is in the present list
	// Off is from when on it may be switched off without any loss, if nothing else fails meanwhile. Zero: not known, for one
	// of the present list above all.
	Off time.Time `json:"off,omitzero"`
	Why string    `json:"why,omitempty"` // it may not be switched off now, or not be counted
	// Again is when another Rebalance may find that it can be switched off sooner than Off. Zero: waiting alone does not help.
	Again time.Time `json:"again,omitzero"`
}
