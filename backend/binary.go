package backend

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
)

// binaryConn is a connection to a server that speaks the binary protocol only, as memcached does with SASL (-S), for those who
// speak the classic commands: what is written is translated, sent and answered before Write returns. It knows the commands that
// sessfs needs and answers all others with ERROR, as an old server does.
type binaryConn struct {
	net.Conn
	r   *bufio.Reader
	in  []byte // of a command that is not complete
	out bytes.Buffer
}

func newBinaryConn(nc net.Conn) *binaryConn { return &binaryConn{Conn: nc, r: bufio.NewReader(nc)} }

type opcode byte

// The commands of the binary protocol that are used.
const (
	opSet       opcode = 0x01
	opAdd       opcode = 0x02
	opReplace   opcode = 0x03
	opDelete    opcode = 0x04
	opNoop      opcode = 0x0a
	opVersion   opcode = 0x0b
	opGetQuiet  opcode = 0x0d // with the key in the answer, and without an answer where there is nothing
	opStat      opcode = 0x10
	opSASLList  opcode = 0x20
	opSASLLogin opcode = 0x21
)

// status of an answer.
type status uint16

const (
	statusOK        status = 0
	statusNotFound  status = 1
	statusExists    status = 2
	statusNotStored status = 5
	statusAuth      status = 0x20
	statusUnknown   status = 0x81
)

const binaryHeader = 24

// request appends a frame.
func request(b []byte, op opcode, key string, extras, value []byte, cas uint64) []byte {
	b = append(b, 0x80, byte(op))
	b = binary.BigEndian.AppendUint16(b, uint16(len(key)))
	b = append(b, byte(len(extras)), 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(len(extras)+len(key)+len(value)))
	b = binary.BigEndian.AppendUint32(b, uint32(op)) // opaque
	b = binary.BigEndian.AppendUint64(b, cas)
	return append(append(append(b, extras...), key...), value...)
}

// frame is an answer.
type frame struct {
	op          opcode
	status      status
	cas         uint64
	extras, key []byte
	value       []byte
}

// errOther: the server does not speak the protocol that was tried, or ends the connection when it is spoken to so.
var errOther = errors.New("it does not speak this protocol of memcached")

func (c *binaryConn) answer() (a frame, err error) {
	h := make([]byte, binaryHeader)
	if _, err := io.ReadFull(c.r, h); err != nil {
		return a, err
	}
	a.op, a.status, a.cas = opcode(h[1]), status(binary.BigEndian.Uint16(h[6:])), binary.BigEndian.Uint64(h[16:])
	keys, extras, size := int(binary.BigEndian.Uint16(h[2:])), int(h[4]), int64(binary.BigEndian.Uint32(h[8:]))
	switch {
	case h[0] != 0x81:
		return a, errOther
	case int64(keys+extras) > size, size > classicItemMax+maxKey:
		return a, fmt.Errorf("%w: a frame of %d bytes with a key of %d", errSurprise, size, keys)
	case binary.BigEndian.Uint32(h[12:]) != uint32(a.op):
		return a, fmt.Errorf("%w: an answer to something else", errSurprise)
	}
	var body bytes.Buffer // it grows as the bytes arrive: the length is the server's word
	if _, err := io.CopyN(&body, c.r, size); err != nil {
		return a, err
	}
	b := body.Bytes()
	a.extras, a.key, a.value = b[:extras], b[extras:extras+keys], b[extras+keys:]
	return a, nil
}

// ask sends one frame and returns its answer.
func (c *binaryConn) ask(op opcode, key string, extras, value []byte, cas uint64) (frame, error) {
	if _, err := c.Conn.Write(request(nil, op, key, extras, value, cas)); err != nil {
		return frame{}, err
	}
	a, err := c.answer()
	if err == nil && a.op != op {
		err = fmt.Errorf("%w: an answer to something else", errSurprise)
	}
	return a, err
}

// login does SASL PLAIN. The server is told the password only where it wants that.
func (c *binaryConn) login(user, password string) error {
	a, err := c.ask(opSASLList, "", nil, nil, 0)
	switch {
	case err != nil:
		return err
	case a.status == statusUnknown:
		return errOther // it has no SASL, and speaks the text protocol better
	case !slices.Contains(strings.Fields(string(a.value)), "PLAIN"):
		return &Refusal{RefusedLogin, fmt.Sprintf("it wants a login by SASL, and not by PLAIN but one of %.60q", a.value)}
	}
	a, err = c.ask(opSASLLogin, "PLAIN", nil, []byte("\x00"+user+"\x00"+password), 0)
	if err == nil && a.status != statusOK {
		err = &Refusal{RefusedPassword, fmt.Sprintf("it does not take the password of user %s (%.60q to SASL PLAIN)", user, a.value)}
	}
	return err
}

// Read implements net.Conn.
func (c *binaryConn) Read(b []byte) (int, error) {
	if c.out.Len() == 0 {
		return 0, fmt.Errorf("%w: nothing was asked", errSurprise)
	}
	return c.out.Read(b)
}

// Write implements net.Conn.
func (c *binaryConn) Write(b []byte) (int, error) {
	c.in = append(c.in, b...)
	for {
		line, _, ok := bytes.Cut(c.in, []byte("\r\n"))
		if !ok {
			return len(b), nil
		}
		used := len(line) + 2
		words := strings.Fields(string(line))
		if value, at := valueOf(words), used; value >= 0 {
			if used += value + 2; len(c.in) < used {
				return len(b), nil
			}
			if err := c.store(words, c.in[at:at+value]); err != nil {
				return 0, err
			}
		} else if err := c.command(words); err != nil {
			return 0, err
		}
		c.in = c.in[used:]
	}
}

// valueOf is how long the value is that follows a command; -1: none does.
func valueOf(words []string) int {
	if len(words) < 5 || words[0] != "add" && words[0] != "set" && words[0] != "cas" {
		return -1
	}
	n, err := strconv.ParseUint(words[4], 10, 31)
	if err != nil {
		return -1
	}
	return int(n)
}

// store does add, set and cas. A cas is a replace: a set that fails deletes the old item.
func (c *binaryConn) store(words []string, value []byte) error {
	flags, _ := strconv.ParseUint(words[2], 10, 32)
	ends, _ := strconv.ParseInt(words[3], 10, 64)
	if ends < 0 {
		ends = 30*24*60*60 + 1 // there are no negative numbers; as a time it is long past
	}
	op, cas := opSet, uint64(0)
	switch {
	case words[0] == "add":
		op = opAdd
	case words[0] == "cas" && len(words) > 5:
		op = opReplace
		if cas, _ = strconv.ParseUint(words[5], 10, 64); cas == 0 {
			cas = math.MaxUint64 // which no item has: 0 would be whatever is there
		}
	}
	extras := binary.BigEndian.AppendUint32(nil, uint32(flags))
	extras = binary.BigEndian.AppendUint32(extras, uint32(min(ends, math.MaxUint32)))
	a, err := c.ask(op, words[1], extras, value, cas)
	if err != nil {
		return err
	}
	switch {
	case a.status == statusOK:
		c.say("STORED")
	case a.status == statusNotStored, op == opAdd && a.status == statusExists:
		c.say("NOT_STORED")
	case a.status == statusExists:
		c.say("EXISTS")
	case a.status == statusNotFound:
		c.say("NOT_FOUND")
	default:
		return c.refuse(a)
	}
	return nil
}

func (c *binaryConn) say(format string, args ...any) { fmt.Fprintf(&c.out, format+"\r\n", args...) }

func (c *binaryConn) refuse(a frame) error {
	if a.status == statusAuth {
		return fmt.Errorf("it wants a login again: %.60q", a.value)
	}
	c.say("SERVER_ERROR %s", shown(string(a.value), 60))
	return nil
}

// command does what has no value.
func (c *binaryConn) command(words []string) error {
	switch {
	case len(words) == 0:
		c.say("ERROR")
	case len(words) > 1 && (words[0] == "get" || words[0] == "gets"):
		return c.get(words[1:], words[0] == "gets")
	case len(words) == 2 && words[0] == "delete":
		a, err := c.ask(opDelete, words[1], nil, nil, 0)
		switch {
		case err != nil:
			return err
		case a.status == statusOK:
			c.say("DELETED")
		case a.status == statusNotFound:
			c.say("NOT_FOUND")
		default:
			return c.refuse(a)
		}
	case words[0] == "version":
		a, err := c.ask(opVersion, "", nil, nil, 0)
		if err != nil {
			return err
		}
		c.say("VERSION %s", shown(string(a.value), 40))
	case words[0] == "stats":
		return c.stats(strings.Join(words[1:], " "))
	default:
		c.say("ERROR")
	}
	return nil
}

// get asks for all keys in one round trip.
func (c *binaryConn) get(keys []string, withCas bool) error {
	var b []byte
	for _, k := range keys {
		b = request(b, opGetQuiet, k, nil, nil, 0)
	}
	if _, err := c.Conn.Write(request(b, opNoop, "", nil, nil, 0)); err != nil {
		return err
	}
	for n := 0; ; n++ {
		a, err := c.answer()
		switch {
		case err != nil:
			return err
		case a.op == opNoop:
			c.say("END")
			return nil
		case n == len(keys), c.out.Len() > 2*classicRoom+classicItemMax:
			return fmt.Errorf("%w: %d values of %d bytes in an answer", errSurprise, n, c.out.Len())
		case a.op != opGetQuiet || a.status != statusOK || len(a.extras) != 4 || bytes.ContainsFunc(a.key, func(r rune) bool { return r <= ' ' }):
			return fmt.Errorf("%w: %.60q to a get", errSurprise, a.value)
		}
		fmt.Fprintf(&c.out, "VALUE %s %d %d", a.key, binary.BigEndian.Uint32(a.extras), len(a.value))
		if withCas {
			fmt.Fprintf(&c.out, " %d", a.cas)
		}
		c.say("")
		c.out.Write(a.value)
		c.say("")
	}
}

// stats ends with an answer without a key.
func (c *binaryConn) stats(what string) error {
	if _, err := c.Conn.Write(request(nil, opStat, what, nil, nil, 0)); err != nil {
		return err
	}
	for range maxAnswerLines {
		a, err := c.answer()
		switch {
		case err != nil:
			return err
		case a.op != opStat:
			return fmt.Errorf("%w: an answer to something else", errSurprise)
		case a.status != statusOK:
			return c.refuse(a)
		case len(a.key) == 0:
			c.say("END")
			return nil
		case len(a.key)+len(a.value) > maxLine:
			return fmt.Errorf("%w: a figure of %d bytes", errSurprise, len(a.value))
		}
		c.say("STAT %s %s", shown(string(a.key), maxLine), shown(string(a.value), maxLine))
	}
	return fmt.Errorf("%w: stats without end", errSurprise)
}
