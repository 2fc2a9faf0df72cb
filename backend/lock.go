package backend

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strconv"
	"strings"
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
	if len(f) < 6 || len(f) > 7 || f[0] != lockMagic || f[1] == "" {
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
	if err1 != nil || err2 != nil || err3 != nil || err4 != nil || !ok1 || !ok2 {
		h = unknown
	}
	h.Keep = time.Duration(keep) * time.Millisecond
	return f[1], h
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

func lockLost(p place, doing string) error {
	return fmt.Errorf("%s session %s on %s: %w", doing, p.id.Hash(), p.s.label, sessfs.ErrLockLost)
}

// TryLock implements sessfs.Backend.
func (c *Cluster) TryLock(ctx context.Context, id sessfs.ID, holder sessfs.Holder) (*sessfs.Lease, *sessfs.Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	o, p, deadline := c.settings.Load(), c.place(id), c.deadline()
	w, err := p.s.wire(deadline)
	if err != nil {
		return nil, nil, err
	}
	token := strconv.FormatUint(rand.Uint64(), 16)
	sent := sessfs.Boottime()
	lock, data, epoch, err := w.lock(p, encodeLock(token, holder), leaseSeconds(o.Lease), deadline)
	if err != nil {
		p.s.releaseByToken(p, token) // it may have been got
		return nil, nil, err
	}
	r := ref{epoch: epoch, cas: lock.cas}
	own := ownLock(lock, token)
	v, err := c.session(w, p, data, epoch, deadline)
	if err != nil {
		if own {
			w.release(p, token, r, true)
		}
		return nil, nil, err
	}
	if !own {
		return nil, v, nil
	}
	return &sessfs.Lease{ID: id, Token: token, Deadline: leaseEnd(sent, o.Lease), Keep: holder.Keep, Ref: r}, v, nil
}

// Locked implements sessfs.Backend.
func (c *Cluster) Locked(ctx context.Context, id sessfs.ID) (*sessfs.Holder, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p, deadline := c.place(id), c.deadline()
	w, err := p.s.wire(deadline)
	if err != nil {
		return nil, err
	}
	items, _, err := w.get(p.conn, []string{p.lock, p.mark()}, deadline)
	if err != nil {
		return nil, err
	}
	return holderOf(items[0], items[1]), nil
}

// Renew implements sessfs.Backend.
func (c *Cluster) Renew(ctx context.Context, l *sessfs.Lease) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	o, p, deadline := c.settings.Load(), c.place(l.ID), c.deadline()
	w, err := p.s.wire(deadline)
	if err != nil {
		return err
	}
	sent := sessfs.Boottime()
	own := func(i item) bool { return ownLock(i, l.Token) }
	i, err := w.renew(p, own, leaseSeconds(o.Lease), deadline)
	if err != nil {
		return err
	}
	if !own(i) {
		return lockLost(p, "renewing the lock of")
	}
	l.Deadline = leaseEnd(sent, o.Lease)
	return nil
}

// Unlock implements sessfs.Backend. It only queues.
func (c *Cluster) Unlock(l *sessfs.Lease) {
	p := c.place(l.ID)
	r, _ := l.Ref.(ref)
	p.s.mu.Lock()
	in := p.s.info
	p.s.mu.Unlock()
	if in != nil && in.classic == nil {
		metaWire{p.s}.release(p, l.Token, r, l.Marked)
		return
	}
	p.s.releaseByToken(p, l.Token)
}

// Break implements sessfs.Backend.
func (c *Cluster) Break(ctx context.Context, id sessfs.ID) (*sessfs.Holder, error) {
	p, deadline := c.place(id), c.deadline()
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		w, err := p.s.wire(deadline)
		if err != nil {
			return nil, err
		}
		items, epoch, err := w.get(p.conn, []string{p.lock}, deadline)
		if err != nil || !items[0].found {
			return nil, err
		}
		done, err := w.remove(p.conn, p.lock, items[0].cas, epoch, deadline)
		if done {
			h := holderOf(items[0], item{})
			if h.Keep > 0 {
				c.mark(w, p, h.Token, deadline) // it ends by itself where that fails
			}
			return h, nil
		}
		if err != nil && !uncertain(err) && err != errVoid {
			return nil, err
		}
		if time.Now().After(deadline) {
			return nil, p.s.fail(errTimeout)
		}
	}
}
