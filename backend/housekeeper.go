package backend

import (
	"slices"
	"time"
)

const (
	maxTasks = 4096  // that wait for the housekeeper of one server
	maxLater = 16384 // that wait for their time

	// firstRetry is when a server that was marked down is asked first; then after ever longer times, up to retry. It may have
	// been restarted, or this host was held up.
	firstRetry = 50 * time.Millisecond
)

// task is background work on a server.
type task struct {
	at    time.Time // zero: at once
	until time.Time // while the server does not answer it is tried again until then; zero: it is not
	do    func(w wire, deadline time.Time) error
	done  chan struct{} // instead of do: closed when all that was queued before was tried
}

// later queues work that nobody waits for. Where too much is queued it is left out: all items end by themselves.
func (s *server) later(t task) {
	select {
	case s.tasks <- t:
	default:
		s.cl.log.Debug("too much to tidy up on a cache server; the rest ends by itself", "server", s.name)
	}
}

// keepHouse does the background work of one server: asks it again while it is down, frees locks that could not be freed
// by their cas, deletes old chunks.
func (s *server) keepHouse() {
	defer s.cl.running.Done()
	var waiting []task // in the order of their times
	wait := func(t task) {
		if len(waiting) < maxLater {
			i, _ := slices.BinarySearchFunc(waiting, t, func(a, b task) int { return a.at.Compare(b.at) })
			waiting = slices.Insert(waiting, i, t)
		}
	}
	retry, due := stopped(), stopped()
	pause := firstRetry
	defer retry.Stop()
	defer due.Stop()
	for {
		select {
		case <-s.cl.ctx.Done():
			return
		case <-s.gone:
			return
		case <-s.downed:
			pause = firstRetry
			retry.Reset(min(pause, s.cl.retry()))
		case <-retry.C:
			s.mu.Lock()
			down := !s.since.IsZero()
			var a *attempt
			if down && !s.closed {
				a = s.connectLocked()
			}
			s.mu.Unlock()
			if a == nil {
				break
			}
			select {
			case <-a.done:
			case <-s.cl.ctx.Done():
				return
			}
			if a.err != nil {
				pause = min(2*pause, s.cl.retry())
				retry.Reset(pause)
			}
		case t := <-s.tasks:
			if t.done != nil {
				close(t.done)
			} else if !t.at.IsZero() || !s.run(&t) {
				wait(t)
			}
		case <-due.C:
			for len(waiting) > 0 && !time.Now().Before(waiting[0].at) {
				t := waiting[0]
				waiting = waiting[1:]
				if !s.run(&t) {
					wait(t)
				}
			}
		}
		if len(waiting) > 0 {
			due.Reset(time.Until(waiting[0].at))
		}
	}
}

func stopped() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// run reports false when t is to be tried again at t.at.
func (s *server) run(t *task) bool {
	deadline := s.cl.deadline()
	w, err := s.wire(deadline)
	if err == nil {
		err = t.do(w, deadline)
	}
	t.at = time.Now().Add(s.cl.retry())
	return err == nil || t.at.After(t.until)
}
