package model

// Rules are the rules of docs/replicas.md, each a switch. A test takes each out and requires the breach that the
// document names.
type Rules struct {
	EveryMember    bool // the lock is held if every member has our token; out: one is enough
	LockAfterStore bool // the lock is read again after the store; out: it is taken for ours
	Cas            bool // a store is by cas of the version read; out: it overwrites
	Mending        bool // copies that are missing or older are stored before the lock counts
	Common         bool // two sets have a server in common; out: one server is enough for a set
	NextCounter    bool // after a failure in the middle the next counter is stored; out: the same one again
	Tombstone      bool // a destroyed session leaves a tombstone; out: it is deleted
	CasVoid        bool // a cas from before a connection broke is not used
	FirstMember    bool // who has the first member keeps what it won; out: whoever lost one gives all back
	Young          bool // a young server does not count among the need
	Where          bool // of one counter the record loses whose where names the other's server; out: the nonce alone decides
	AboveBase      bool // what is in the way of a commit is replaced only if it is not better than the version built on; out: than ours
	AskDown        bool // where young servers make it necessary, those marked down are asked again
	TombstoneAbove bool // a tombstone's counter is far above the best; out: one above
	TombstoneAll   bool // destroyed is what has a tombstone on every member; out: what has no live record on any
	DropLater      bool // copies left behind are deleted when everything that began before the commit has ended; out: at once
	YoungAgain     bool // whether members are young is seen again when they have answered
	AskTie         bool // where only nonces would decide, the servers that both records were sent to are asked
	ReadAgain      bool // after a change of the set all members are read again; out: the new ones alone
	KeepOld        bool // in the middle of a commit the old members keep the lock until the new ones have it; out: at once
	InTime         bool // a lock whose lease had ended before it was got is given back; out: it counts
	PutBack        bool // a missing lock is put back while a member has ours; out: it is lost
}

// AllRules is the protocol as it is written.
func AllRules() Rules {
	return Rules{EveryMember: true, LockAfterStore: true, Cas: true, Mending: true, Common: true, NextCounter: true,
		Tombstone: true, CasVoid: true, FirstMember: true, Young: true, Where: true, AboveBase: true, PutBack: true, DropLater: true, TombstoneAbove: true, TombstoneAll: true, KeepOld: true, AskDown: true, YoungAgain: true, AskTie: true, ReadAgain: true, InTime: true}
}
