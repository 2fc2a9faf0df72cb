package lab

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"strings"

	"sessfs/tests/faults/lab/proxy"
)

// The doubles are servers that lie, each so that one promise of sessfs must break. They show that the checkers bite.
// They know the keys and the record format of package backend.

type ask = func(proxy.Request) ([]byte, error)

func isLock(r proxy.Request) bool   { return strings.HasPrefix(r.Key(), "sessfs:@") }
func isRecord(r proxy.Request) bool { return strings.HasPrefix(r.Key(), "sessfs:sess_") }

func isTombstone(r proxy.Request) bool {
	return isRecord(r) && bytes.HasPrefix(r.Body, []byte("SSFS")) && len(r.Body) > 5 && r.Body[5] == 2
}

// privateLocks: the locks of one host are not those of another.
func privateLocks(host int) proxy.Double {
	return func(r proxy.Request, ask ask) ([]byte, error) {
		if isLock(r) {
			r = r.With(1, fmt.Sprintf("%s.%d", r.Key(), host))
		}
		return ask(r)
	}
}

// noCas: locks of one host are not those of another, and a record is stored whatever is there.
func noCas(host int) proxy.Double {
	private := privateLocks(host)
	return func(r proxy.Request, ask ask) ([]byte, error) {
		if isRecord(r) && !isTombstone(r) && r.Fields[0] == "cas" {
			r = r.With(0, "set")
			r.Fields = r.Fields[:5]
		}
		return private(r, ask)
	}
}

// forgetful: some writes are acknowledged by all servers and stored by none.
func forgetful(int) proxy.Double {
	return func(r proxy.Request, ask ask) ([]byte, error) {
		if isRecord(r) && !isTombstone(r) && r.Fields[0] == "cas" && len(r.Body) > 200 && crc32.ChecksumIEEE(r.Body[200:])%4 == 0 {
			return []byte("STORED\r\n"), nil
		}
		return ask(r)
	}
}

// noTombstones: a session that is destroyed is deleted.
func noTombstones(int) proxy.Double {
	return func(r proxy.Request, ask ask) ([]byte, error) {
		if !isTombstone(r) {
			return ask(r)
		}
		if _, err := ask(proxy.Request{Fields: []string{"md", r.Key()}}); err != nil {
			return nil, err
		}
		return []byte("STORED\r\n"), nil
	}
}

// deathless: a session that is destroyed stays.
func deathless(int) proxy.Double {
	return func(r proxy.Request, ask ask) ([]byte, error) {
		if isTombstone(r) {
			return []byte("STORED\r\n"), nil
		}
		return ask(r)
	}
}

// lastingLocks: a lock that was given back or has ended stays for a minute.
func lastingLocks(int) proxy.Double {
	return func(r proxy.Request, ask ask) ([]byte, error) {
		switch {
		case !isLock(r):
		case r.Fields[0] == "add":
			r = r.With(3, "60")
		case r.Fields[0] == "md":
			return []byte("HD" + r.Opaque() + "\r\n"), nil
		}
		return ask(r)
	}
}
