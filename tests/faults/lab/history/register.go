package history

import (
	"fmt"
	"time"

	"github.com/anishathalye/porcupine"
)

// operation is a step of a session seen as a register: it is found to have a value (read), it has value From and gets To
// (change), or it is emptied (remove), perhaps.
type operation struct {
	what     byte
	from, to string
	perhaps  bool // not acknowledged: it may have been done, or not, or will be
}

const (
	read   = 'r'
	change = 'c'
	remove = 'd'
)

var register = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, input, _ any) (bool, any) {
		op := input.(operation)
		switch op.what {
		case read:
			return state == op.from, state
		case change:
			return state == op.from, op.to
		}
		return true, ""
	},
	Equal:             func(a, b any) bool { return a == b },
	DescribeOperation: func(input, _ any) string { return fmt.Sprintf("%+v", input) },
}

// A session whose history is not decided in this time is counted by Undecided; a machine that is slow breaks no promise.
const registerTime = 20 * time.Second

// Register: under the lock a session is a register. All that was read and written under it, and all removals, can be put
// into one order that agrees with the time and with what was acknowledged.
func (h *History) Register() (list []Breach) {
	h.Undecided = 0
	h.each(func(x *index) {
		switch porcupine.CheckOperationsTimeout(register, x.operations(), registerTime) {
		case porcupine.Illegal:
			around := x.inexplicable()
			list = append(list, Breach{"register", x.name, "there is no order of reads, writes and removals that explains what was found", around})
		case porcupine.Unknown:
			h.Undecided++
		}
	})
	return list
}

// operations are those of the session, for porcupine.
func (x *index) operations() []porcupine.Operation {
	var ops []porcupine.Operation
	add := func(r *Request, op operation, from, to int64) {
		ops = append(ops, porcupine.Operation{ClientId: r.Worker, Input: op, Call: from, Return: to})
	}
	for _, r := range x.requests {
		if r.Start.OK && r.Kind != Peek {
			add(r, operation{what: read, from: r.Got.Token}, r.Start.Begin, r.Start.End)
		}
		switch {
		case r.Writes():
			// A write that was not acknowledged, or an orphan, was done where its value was found later. Where not, it makes no difference.
			if _, seen := x.seen[r.Wrote.Token]; seen || x.stored(r) {
				add(r, operation{what: change, from: r.Wrote.Parent, to: r.Wrote.Token}, r.End.Begin, max(r.End.Begin, x.done(r)))
			}
		case r.Removes() && r.Acked():
			add(r, operation{what: remove}, r.End.Begin, r.End.End)
		case r.Removes():
			// Never done, it is one that is done after all others.
			add(r, operation{what: remove, perhaps: true}, r.End.Begin, never)
		}
	}
	return ops
}

// done is by when a write had been done. One that was acknowledged may have been found before.
func (x *index) done(r *Request) int64 {
	if at, ok := x.seen[r.Wrote.Token]; ok {
		return min(at, x.effect(r))
	}
	return x.effect(r)
}

// inexplicable are the first requests that cannot be explained: the history is cut after each until there is an order.
func (x *index) inexplicable() []*Request {
	low, high := 0, len(x.requests)
	for low < high {
		mid := (low + high) / 2
		if porcupine.CheckOperationsTimeout(register, newIndex(x.name, x.requests[:mid]).operations(), registerTime) == porcupine.Illegal {
			high = mid
		} else {
			low = mid + 1
		}
	}
	return x.requests[max(0, high-4):min(len(x.requests), high)]
}
