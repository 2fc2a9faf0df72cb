package backend

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"sessfs"
)

// A server that was restarted, or was down for this host, may miss sessions or have older copies. Whoever takes a
// session's lock mends it; what nobody uses is mended here, by one host for all: it claims the work with an item on that
// server, "TOKEN LEFT", which ends as "TOKEN done". A host that finds another at work cannot know whether that began
// before its own last change without this server, so it is content only with a work that began after its own first look.
const (
	mendMark   = documentMark + "mend" // the claim's key, after the prefix; no record's key begins so
	mendDone   = "done"
	mendEvery  = time.Second
	mendClaim  = 15 * time.Second // a claim that is not renewed ends
	mendResult = 10 * time.Minute // how long it is told that the work is done
	mendPause  = time.Minute      // longest time between attempts that fail
	mendUnseen = -1               // it is not known how much is left
)

// mending is what is known of a server's need.
type mending struct {
	needed atomic.Bool
	left   atomic.Int64  // sessions to be looked at; mendUnseen
	first  string        // the claim that was found at first; the mender's own
	looked bool          // first holds; the mender's own
	pause  time.Duration // after a failure; the mender's own, like next
	next   time.Time     // when it is tried again
}

// mendSoon notes that a server may have missed something.
func (s *server) mendSoon() {
	if !s.cl.copies() {
		return
	}
	s.mending.left.Store(mendUnseen)
	s.mending.needed.Store(true)
	select {
	case s.cl.mend <- struct{}{}:
	default:
	}
}

// copies tells whether sessions are on more than one server.
func (c *Cluster) copies() bool {
	views := *c.views.Load()
	return len(views) > 1 || views[0].replicas > 1
}

// keepMending is the mender, until Close.
func (c *Cluster) keepMending() {
	defer c.running.Done()
	timer := stopped()
	defer timer.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-c.mend:
		case <-timer.C:
		}
		again := false
		for _, s := range c.servers() {
			if s.mending.needed.Load() && !s.down() && !time.Now().Before(s.mending.next) {
				c.mendServer(s)
			}
			again = again || s.mending.needed.Load()
		}
		if again {
			timer.Reset(mendEvery + rand.N(mendEvery/2))
		}
	}
}

// mendServer claims the work and does it, or looks how far another host is.
func (c *Cluster) mendServer(s *server) {
	m := &s.mending
	at := place{c: c, data: c.prefix + mendMark}
	if s.hasher != nil {
		at.data += hashedMark // by the other kind of names it has other copies
	}
	c.looks.Add(1)
	g, err := s.beginGet(0, []string{at.data}, c.deadline())()
	if err != nil {
		return
	}
	found := g.items[0]
	token, state, _ := strings.Cut(string(found.value), " ")
	if !m.looked {
		m.first, m.looked = token, true
	}
	running := found.found && state != mendDone
	if left, err := strconv.ParseInt(state, 10, 64); running && err == nil {
		m.left.Store(left)
	}
	switch {
	case running:
		return
	case found.found && token != m.first: // it began after this host's first look
		m.end()
		return
	}
	own := strconv.FormatUint(rand.Uint64(), 16)
	c.looks.Add(1)
	out, err := s.beginStore(at, storing{add: !found.found, cas: found.cas, epoch: g.epoch, head: []byte(own + " " + mendWord(m.left.Load())),
		exptime: exptime(mendClaim)}, c.deadline())()
	if err != nil || out.code != codeStored {
		return // another host was quicker
	}
	m.needed.Store(false) // what is missed from now on is another need
	ctx, end := context.WithCancel(c.ctx)
	told := make(chan struct{})
	go func() {
		defer close(told)
		c.tell(ctx, s, at, own)
	}()
	report, err := c.mendAll(ctx, s)
	end()
	<-told
	if err == nil && report.Failed > 0 {
		err = fmt.Errorf("%w: %d sessions could not be copied", sessfs.ErrUnavailable, report.Failed)
	}
	if err != nil {
		m.needed.Store(true)
		m.pause = min(max(2*m.pause, mendEvery), mendPause)
		m.next = time.Now().Add(m.pause)
		if !errors.Is(err, context.Canceled) {
			c.log.Warn("a cache server that came back has not got all copies yet; it is tried again", "server", s.name, "err", err)
		}
		c.putClaim(s, at, own+" 0", time.Second) // others may try at once
		return
	}
	c.log.Info("a cache server that came back has its copies again", "server", s.name, "looked_at", report.Sessions, "copied", report.Moved)
	c.putClaim(s, at, own+" "+mendDone, mendResult)
	if !m.needed.Load() {
		m.end()
	}
}

func (m *mending) end() {
	m.needed.Store(false)
	m.left.Store(0)
	m.looked, m.pause = false, 0
}

// mendAll copies what s misses.
func (c *Cluster) mendAll(ctx context.Context, s *server) (RebalanceReport, error) {
	r := c.newRebalance(RebalanceOptions{}, func(p RebalanceProgress) {
		s.mending.left.Store(int64(p.Total-min(p.Done, p.Total)) + int64(p.Busy))
	})
	r.only = s
	return r.run(ctx)
}

// tell renews the claim, and says in it how much is left.
func (c *Cluster) tell(ctx context.Context, s *server, at place, token string) {
	every(ctx, mendClaim/5, func() {
		c.putClaim(s, at, token+" "+mendWord(s.mending.left.Load()), mendClaim)
	})
}

// putClaim stores the claim, which is this host's alone while it stands.
func (c *Cluster) putClaim(s *server, at place, value string, life time.Duration) {
	w, err := s.wire(c.deadline())
	if err != nil {
		return
	}
	c.looks.Add(1)
	w.set(0, []keyValue{{at.data, []byte(value)}}, exptime(life), c.deadline()) // where it fails the claim ends by itself
}

func mendWord(left int64) string { return strconv.FormatInt(left, 10) }

// inSet tells whether the work is about that session.
func (r *rebalance) inSet(set []*server) bool { return r.only == nil || slices.Contains(set, r.only) }
