package history

import (
	"fmt"
	"time"

	"github.com/anishathalye/porcupine"
)

// operation is a step of a session seen as a register: it is found to have a value (read), it has value From and gets To
// (change), or it is emptied (remove).
type operation struct {
	what     byte
	from, to string
	by       *Request
	number   int
}

func (o operation) String() string {
	switch o.what {
	case read:
		return fmt.Sprintf("a read of %q by %s", o.from, o.by.who())
	case change:
		return fmt.Sprintf("a change from %q to %q by %s", o.from, o.to, o.by.who())
	}
	return fmt.Sprintf("a removal by %s", o.by.who())
}

// A removal insists: what is begun anew while it is under way it may destroy, too, so often.
const removals = 2

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
}

// A session whose history is not decided in this time is counted by Undecided; a machine that is slow breaks no promise.
const registerTime = 20 * time.Second

// Register: under the lock a session is a register. All that was read and written under it, and all removals, can be put
// into one order that agrees with the time and with what was acknowledged.
func (h *History) Register() (list []Breach) {
	h.Undecided = 0
	h.each(func(x *index) {
		ops := x.operations()
		switch porcupine.CheckOperationsTimeout(register, ops, registerTime) {
		case porcupine.Illegal:
			_, info := porcupine.CheckOperationsVerbose(register, ops, registerTime)
			list = append(list, x.illegal(ops, info))
		case porcupine.Unknown:
			h.Undecided++
		}
	})
	return list
}

// illegal tells how far the longest order goes, and which operation cannot follow.
func (x *index) illegal(ops []porcupine.Operation, info porcupine.LinearizationInfo) Breach {
	var longest []porcupine.Operation
	for _, partition := range info.PartialLinearizationsOperations() {
		for _, order := range partition {
			if len(order) > len(longest) {
				longest = order
			}
		}
	}
	in := make(map[int]bool)
	for _, o := range longest {
		in[o.Input.(operation).number] = true
	}
	var stuck *porcupine.Operation
	for i, o := range ops {
		if !in[i] && (stuck == nil || o.Return < stuck.Return) {
			stuck = &ops[i]
		}
	}
	b := Breach{Checker: "register", Session: x.name, Text: "there is no order of reads, writes and removals that explains what was found"}
	state := ""
	for _, o := range longest {
		_, next := register.Step(state, o.Input, nil)
		state = next.(string)
	}
	if stuck != nil {
		op := stuck.Input.(operation)
		b.Text += fmt.Sprintf("; the longest ends with %q, and then comes %s", state, op)
		b.Around = append(b.Around, op.by)
	}
	for _, o := range longest[max(0, len(longest)-3):] {
		b.Around = append(b.Around, o.Input.(operation).by)
	}
	return b
}

// operations are those of the session, for porcupine.
func (x *index) operations() []porcupine.Operation {
	var ops []porcupine.Operation
	add := func(r *Request, op operation, from, to int64) {
		op.by, op.number = r, len(ops)
		ops = append(ops, porcupine.Operation{ClientId: r.Worker, Input: op, Call: from, Return: to})
	}
	for _, r := range x.requests {
		if x.reads(r) && r.Kind != Peek {
			add(r, operation{what: read, from: r.Got.Token}, r.Start.Begin, r.Start.End)
		}
		switch {
		case r.Writes():
			// A write that was not acknowledged, or an orphan, was done where its value was found later. Where not, it makes no difference.
			if _, seen := x.seen[r.Wrote.Token]; seen || x.stored(r) {
				add(r, operation{what: change, from: r.Wrote.Parent, to: r.Wrote.Token}, r.End.Begin, max(r.End.Begin, x.done(r)))
			}
		case r.Missing() && !x.removed(r):
			// It was told so a moment before; it has done nothing.
		case r.Removes():
			// Never done, it is one that is done after all others.
			times, until := 1, x.effect(r)
			if x.removed(r) {
				times = removals
			}
			for range times {
				add(r, operation{what: remove}, r.End.Begin, until)
			}
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
