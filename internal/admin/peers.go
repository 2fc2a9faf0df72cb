package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// members is the listener of a socket that root and the members of a group may use. Who it is that has connected the kernel
// tells; the socket's own mode lets everybody in, since to give a file to a group takes a right that the daemon does not
// have. Nobody else costs more than one answer.
type members struct {
	net.Listener
	gid     uint32
	answer  []byte      // to everybody else
	refused [8]net.Conn // the last ones who got it: who still writes its question would not read the answer to a closed one
	next    int
}

func newMembers(l net.Listener, gid uint32, path string) *members {
	body, _ := json.Marshal(failure{Error: fmt.Sprintf("%s: only root and the members of admin.group may do this", path)}) // text alone: it cannot fail
	return &members{Listener: l, gid: gid, answer: fmt.Appendf(nil, "HTTP/1.1 %d Forbidden\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s",
		http.StatusForbidden, len(body), body)}
}

// Accept returns the next connection of somebody who may connect. One goroutine calls it.
func (m *members) Accept() (net.Conn, error) {
	for {
		c, err := m.Listener.Accept()
		if err != nil || m.has(c) {
			return c, err
		}
		c.SetWriteDeadline(time.Now().Add(time.Second))
		c.Write(m.answer)
		c.(*net.UnixConn).CloseWrite()
		if old := m.refused[m.next]; old != nil {
			old.Close()
		}
		m.refused[m.next] = c
		m.next = (m.next + 1) % len(m.refused)
	}
}

// has tells whether root or a member is at the other end. Where that cannot be told it is nobody of them.
func (m *members) has(c net.Conn) bool {
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return false
	}
	is := false
	err = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		is = err == nil && (cred.Uid == 0 || cred.Gid == m.gid || slices.Contains(peerGroups(fd), m.gid))
	})
	return err == nil && is
}

// peerGroups are the supplementary groups of who has connected, at that time.
func peerGroups(fd uintptr) []uint32 {
	groups := make([]uint32, 64)
	for {
		size := uint32(len(groups) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS, uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errors.Is(errno, unix.ERANGE) && int(size) > len(groups)*4:
			groups = make([]uint32, size/4)
		case errno != 0:
			return nil
		default:
			return groups[:size/4]
		}
	}
}
