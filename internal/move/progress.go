package move

import (
	"sync"
	"time"
)

// showProgress tells how far it is until the returned function is called.
func showProgress(show func(done, total uint64, r Report), t *tally, total func() uint64) (end func()) {
	if show == nil {
		return func() {}
	}
	stop := make(chan struct{})
	var shown sync.WaitGroup
	shown.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				r, done := t.snapshot()
				show(done, total(), r)
			}
		}
	})
	return func() {
		close(stop)
		shown.Wait()
	}
}
