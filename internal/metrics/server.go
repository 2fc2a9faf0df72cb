package metrics

import (
	"sessfs"
	"sessfs/internal/hist"
)

// server sends what is known of one cache server: what it says itself is left out while it does not answer.
func (e emitter) server(s sessfs.ServerStatus, roundTrips hist.Snapshot) {
	e.gauge(serverInfo, 1, s.Name, s.Address, s.Version, s.Protocol)
	e.yes(serverUp, s.Up, s.Name)
	e.yes(serverBreaker, s.DownSince != nil, s.Name)
	e.yes(serverYoung, s.Young, s.Name)
	e.yes(serverLeaving, s.Leaving, s.Name)
	e.gauge(serverMends, float64(s.ToMend), s.Name)
	e.counter(serverTrips, s.RoundTrips, s.Name)
	e.histogram(serverTripDuration, roundTrips, s.Name)
	e.counter(serverFailures, s.Failures, s.Name)
	if !s.Up {
		return
	}
	e.gauge(serverUptime, s.Uptime.Seconds(), s.Name)
	e.gauge(serverItems, float64(s.Items), s.Name)
	e.gauge(serverMemory, float64(s.Bytes), s.Name)
	e.gauge(serverMemoryLimit, float64(s.LimitBytes), s.Name)
	e.gauge(serverItemMax, float64(s.ItemMax), s.Name)
	e.counter(serverEvictions, s.Evictions, s.Name)
	e.counter(serverHits, s.Hits, s.Name)
	e.counter(serverMisses, s.Misses, s.Name)
	e.gauge(serverConnections, float64(s.Connections), s.Name)
}
