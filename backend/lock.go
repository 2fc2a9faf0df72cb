package backend

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"sessfs"
)

// The lock item's value is text: "sessfs1 TOKEN PID SINCE HOST BOOT [KEEP]", SINCE in unix milliseconds, host and boot id
// escaped as in URLs, KEEP in milliseconds where the lease may be kept. Its time to live is the lease.
const lockMagic = "sessfs1"

func encodeLock(token string, h sessfs.Holder) string {
	b := make([]byte, 0, 128)
	b = append(append(append(append(b, lockMagic...), ' '), token...), ' ')
	b = append(strconv.AppendUint(b, uint64(h.PID), 10), ' ')
	b = append(strconv.AppendInt(b, h.Since.UnixMilli(), 10), ' ')
	b = append(append(append(b, lockField(h.Host)...), ' '), lockField(h.Boot)...)
	if h.Keep > 0 {
		b = strconv.AppendInt(append(b, ' '), int64((h.Keep+time.Millisecond-1)/time.Millisecond), 10)
	}
	return string(b)
}

func lockField(s string) string {
	if len(s) > 255 {
		s = s[:255]
	}
	return "=" + url.QueryEscape(s)
}

// decodeLock takes a lock's value apart. A damaged one is a lock all the same, of an unknown holder.
func decodeLock(value []byte) (token string, h sessfs.Holder) {
	unknown := sessfs.Holder{Host: "unknown"}
	if len(value) > 4096 {
		return "", unknown
	}
	f := strings.Split(string(value), " ")
	if len(f) < 6 || len(f) > 7 || f[0] != lockMagic || f[1] == "" || !plain(f[1]) {
		return "", unknown
	}
	keep := uint64(0)
	if len(f) == 7 {
		var err error
		if keep, err = strconv.ParseUint(f[6], 10, 31); err != nil {
			return "", unknown
		}
	}
	pid, err1 := strconv.ParseUint(f[2], 10, 32)
	since, err2 := strconv.ParseInt(f[3], 10, 64)
	host, ok1 := strings.CutPrefix(f[4], "=")
	boot, ok2 := strings.CutPrefix(f[5], "=")
	host, err3 := url.QueryUnescape(host)
	boot, err4 := url.QueryUnescape(boot)
	h = sessfs.Holder{Host: host, Boot: boot, PID: uint32(pid), Since: time.UnixMilli(since)}
	if err1 != nil || err2 != nil || err3 != nil || err4 != nil || !ok1 || !ok2 || !tellable(h.Since) {
		h = unknown
	}
	h.Keep = time.Duration(keep) * time.Millisecond
	return f[1], h
}

// tellable says whether a time can be written as JSON does.
func tellable(t time.Time) bool {
	year := t.UTC().Year()
	return year >= 0 && year < 10000
}

// holderOf is who has the lock; nil: nobody. mark is the item of those who want it.
func holderOf(lock, mark item) *sessfs.Holder {
	if !lock.found {
		return nil
	}
	token, h := decodeLock(lock.value)
	h.Token, h.Answered = token, marks(mark, token+answered)
	return &h
}

func ownLock(i item, token string) bool {
	rest, ok := bytes.CutPrefix(i.value, []byte(lockMagic+" "))
	if !i.found || !ok || token == "" {
		return false
	}
	first, _, _ := bytes.Cut(rest, []byte(" "))
	return string(first) == token
}

// leaseSeconds is the lock's time to live. memcached counts whole seconds of its own clock, so an item lives up to one
// second less than it was given; short leases get it back.
func leaseSeconds(lease time.Duration) int64 {
	if lease < 4*time.Second {
		lease += time.Second
	}
	return exptime(lease)
}

// leaseEnd is when a holder must stop relying on a lease that was asked for at sent (Boottime).
func leaseEnd(sent int64, lease time.Duration) int64 {
	return sent + int64(lease-min(2*time.Second, lease/2))
}

func lockLost(id sessfs.ID, s *server, doing string) error {
	return fmt.Errorf("%s session %s on %s: %w", doing, id.Hash(), s.label, sessfs.ErrLockLost)
}

// hold is what a lease's Ref holds: the servers that have its lock.
type hold struct {
	place
	token, value string // of the lock's items

	mu      sync.Mutex
	members []copied // guarded by mu; replaced, never changed
	views   *[]*view // guarded by mu: by which they were chosen
	over    bool     // guarded by mu: it was given back
}

func (h *hold) list() []copied {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.members
}

// change replaces the members, unless the lock was given back meanwhile.
func (h *hold) change(members []copied, views *[]*view) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.over {
		h.members, h.views = members, views
	}
	return !h.over
}

// current tells whether the members were chosen by the lists of servers that count now.
func (h *hold) current() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.views == h.c.views.Load()
}

// note notes with which cas a member has the lock now.
func (h *hold) note(s *server, at seen) {
	h.mu.Lock()
	defer h.mu.Unlock()
	members := slices.Clone(h.members)
	for i := range members {
		if members[i].s == s {
			members[i].seen = at
		}
	}
	h.members = members
}

// end notes that the lock is given back, and returns the members that have it.
func (h *hold) end() []copied {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.over = true
	return h.members
}

// uses tells whether a server shall have the lock.
func (h *hold) uses(s *server) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range h.members {
		if m.s == s {
			return !h.over
		}
	}
	return false
}

// Locked implements sessfs.Backend.
func (c *Cluster) Locked(ctx context.Context, id sessfs.ID) (*sessfs.Holder, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	o := c.operation(id)
	answers, err := o.get(o.lock, o.mark())
	if err != nil {
		return nil, err
	}
	return holderAmong(answers), nil
}

// holderAmong is who has the lock on any of the servers, whose answers begin with the lock and its mark.
func holderAmong(answers []answer) (first *sessfs.Holder) {
	end := &first
	for _, a := range answers {
		h := holderOf(a.items[0], a.items[1])
		if h == nil {
			continue
		}
		if known := first.Of(h.Token); known != nil {
			known.Answered = known.Answered || h.Answered
			continue
		}
		*end, end = h, &h.Also
	}
	return first
}

// Unlock implements sessfs.Backend. It only queues.
func (c *Cluster) Unlock(l *sessfs.Lease) {
	h, ok := l.Ref.(*hold)
	if !ok {
		return
	}
	for _, m := range h.end() {
		if w, ok := m.s.connected().(metaWire); ok {
			w.release(h, m.seen, l.Marked)
		} else {
			m.s.releaseByToken(h)
		}
	}
}

// Break implements sessfs.Backend. The holder puts a lock back that is missing on one server only, so it insists until
// the lock is on none.
func (c *Cluster) Break(ctx context.Context, id sessfs.ID) (*sessfs.Holder, error) {
	o := c.operation(id)
	var broken *sessfs.Holder
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		answers, err := o.get(o.lock, o.mark())
		if err != nil {
			return nil, err
		}
		h := holderAmong(answers)
		if h == nil || broken != nil && h.Token != broken.Token {
			return broken, nil
		}
		broken = h
		for _, a := range answers {
			if token, _ := decodeLock(a.items[0].value); !a.items[0].found || token != h.Token {
				continue
			}
			w, err := a.s.wire(o.deadline)
			if err == nil {
				_, err = w.remove(o.conn, o.lock, a.items[0].cas, a.epoch, o.deadline)
			}
			if err != nil && !uncertain(err) && err != errVoid {
				o.failed(a.s, err)
				continue
			}
			if err == nil && h.Keep > 0 {
				c.markOn(a.s, o.place, h.Token, o.deadline) // it ends by itself where that fails
			}
		}
		if o.late() {
			return nil, fmt.Errorf("breaking the lock of session %s: %w: its holder renews it all the time", id.Hash(), sessfs.ErrUnavailable)
		}
	}
}
