// Package model tries the protocol of docs/replicas.md in small worlds: two hosts, two or three cache servers, one
// session, and faults. It takes every order of events, and looks after each whether a promise is broken.
//
// # How to read it
//
// world.go is what there is: the state of servers and hosts, small and comparable, and where a World begins. server.go
// is what a server does with one command, host.go (taking the lock, reading, mending), renew.go, commit.go and destroy.go
// are what a host does when it has its answers, and record.go says which of two records is the better. fault.go is what may go wrong.
// check.go holds the promises, explore.go tries everything breadth first, so that the first way to a breach is the
// shortest, trace.go tells it in plain words, and progress.go looks for states that lead nowhere and for circles in which
// both hosts go on for ever and neither gets the lock. rules.go has a switch for each rule of the protocol.
//
// # What is left out, and why that is sound
//
// A host acts in the moment its last answer is given: waiting longer is the same as its next commands being executed later.
// Commands to one server are executed in order; add and read of the lock are one step, and so are a store and its read
// back, as what another host does between them could as well come before or after. A lock that was given back or lost its
// host stays until it goes, at any time: that is a delete on its way, or an expiry. Locks of a holder expire only after
// its lease has ended for itself, and a lease ends only by a host that stops or dies. A cas is known to be that of what is there, or not; one
// from before a restart may be drawn again by chance. Nonces are numbered, and World.Flip says which of two is the greater.
// A host that notices that a server has restarted does so when its batch is broken, or with its next batch.
package model
