package backend

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// command is what the reader must know of a command to take its answer.
type command struct {
	verb   string
	opaque uint64 // 0: the command has none
	end    int    // where it ends in the batch's text
}

// stores tells whether a value follows the command.
func (c command) stores() bool { return c.verb == "add" || c.verb == "set" || c.verb == "cas" }

// batch is some commands that are sent together on one connection, and their answers.
type batch struct {
	text     []byte // the commands, but for the bodies
	bodies   []body
	commands []command
	repeat   bool      // doing it twice does no harm
	limit    int       // bytes of all values in the answers; 0: as many as the items can have
	deadline time.Time // set by conn.do

	// The connection's until it is done.
	replies []reply
	got     int // bytes of values in them, and of the one that is coming
	written bool
	parted  bool // its text was not copied, and may be sent still
	err     error
	done    chan struct{} // capacity 1
	after   func(*batch)  // instead of done: nobody waits; must not block
}

// body is a value that is not copied; it stands before byte at of the text.
type body struct {
	at   int
	data []byte
}

// Bodies up to this length are copied into the text.
const smallBody = 4 << 10

var (
	opaques atomic.Uint64
	batches = sync.Pool{New: func() any { return &batch{done: make(chan struct{}, 1)} }}
)

func newBatch() *batch { return batches.Get().(*batch) }

// free lets b be used again, where nothing can point to it any more: it was answered, and its replies were copied.
func (b *batch) free() {
	if b.err != nil || b.after != nil || b.parted || len(b.replies) != len(b.commands) {
		return
	}
	clear(b.replies)
	clear(b.bodies)
	*b = batch{text: b.text[:0], bodies: b.bodies[:0], commands: b.commands[:0], replies: b.replies[:0], done: b.done}
	batches.Put(b)
}

// reset makes b ready to be sent again.
func (b *batch) reset() { b.replies, b.got, b.written, b.err = b.replies[:0], 0, false, nil }

// size is how many bytes go out.
func (b *batch) size() int {
	n := len(b.text)
	for _, x := range b.bodies {
		n += len(x.data)
	}
	return n
}

// append appends all that goes out to buf.
func (b *batch) append(buf []byte) []byte {
	at := 0
	for _, x := range b.bodies {
		buf = append(append(buf, b.text[at:x.at]...), x.data...)
		at = x.at
	}
	return append(buf, b.text[at:]...)
}

// parts appends the pieces that go out.
func (b *batch) parts(list [][]byte) [][]byte {
	at := 0
	for _, x := range b.bodies {
		list = append(list, b.text[at:x.at], x.data)
		at = x.at
	}
	return append(list, b.text[at:])
}

// get asks for key with the given flags ("v c").
func (b *batch) get(key, flags string) {
	b.text = append(append(append(append(b.text, "mg "...), key...), ' '), flags...)
	b.opaque("mg")
}

// touch is get that gives the item a new time to live.
func (b *batch) touch(key, flags string, exptime int64) {
	b.text = append(append(append(append(b.text, "mg "...), key...), ' '), flags...)
	b.text = strconv.AppendInt(append(b.text, " T"...), exptime, 10)
	b.opaque("mg")
}

// delete deletes key if its cas is still that.
func (b *batch) delete(key string, cas uint64) {
	b.text = strconv.AppendUint(append(append(append(b.text, "md "...), key...), " C"...), cas, 10)
	b.opaque("md")
}

// drop deletes key whatever it is: for keys that nobody uses twice.
func (b *batch) drop(key string) {
	b.text = append(append(b.text, "md "...), key...)
	b.opaque("md")
}

func (b *batch) noop() {
	b.text = append(b.text, "mn\r\n"...)
	b.commands = append(b.commands, command{verb: "mn", end: len(b.text)})
}

// opaque ends a meta command.
func (b *batch) opaque(verb string) {
	o := opaques.Add(1)
	b.text = append(strconv.AppendUint(append(b.text, " O"...), o, 10), "\r\n"...)
	b.commands = append(b.commands, command{verb, o, len(b.text)})
}

// store is add, set or cas of a value in up to two parts.
func (b *batch) store(verb, key string, flags uint32, exptime int64, cas uint64, head, data []byte) {
	t := append(append(append(append(b.text, verb...), ' '), key...), ' ')
	t = append(strconv.AppendUint(t, uint64(flags), 10), ' ')
	t = append(strconv.AppendInt(t, exptime, 10), ' ')
	t = strconv.AppendInt(t, int64(len(head)+len(data)), 10)
	if verb == "cas" {
		t = strconv.AppendUint(append(t, ' '), cas, 10)
	}
	t = append(append(t, "\r\n"...), head...)
	if len(data) <= smallBody {
		t = append(t, data...)
	} else {
		b.bodies = append(b.bodies, body{len(t), data})
	}
	b.text = append(t, "\r\n"...)
	b.commands = append(b.commands, command{verb: verb, end: len(b.text)})
}
