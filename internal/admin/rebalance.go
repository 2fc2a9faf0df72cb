package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"

	"sessfs"
	"sessfs/backend"
)

// RebalanceFunc is backend.Cluster.Rebalance.
type RebalanceFunc func(context.Context, backend.RebalanceOptions, func(backend.RebalanceProgress)) (backend.RebalanceReport, error)

// rebalanceLine is one line of the answer to a rebalance: how far it is, or, at the end, the report or what is wrong.
type rebalanceLine struct {
	Progress *backend.RebalanceProgress `json:"progress,omitempty"`
	Report   *backend.RebalanceReport   `json:"report,omitempty"`
	failure
}

var (
	errEmbedded    = errors.New("sessions are kept in the process (no cache.servers): there is nothing to move")
	errRebalancing = errors.New("a rebalance is under way on this host")
)

// rebalance streams the progress, one JSON object a line, and ends when its client goes.
func (d Daemon) rebalance(running *atomic.Bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		o := backend.RebalanceOptions{DryRun: r.FormValue("dry_run") != "", Seal: r.FormValue("seal") != ""}
		if s := r.FormValue("rate"); s != "" {
			n, err := strconv.ParseUint(s, 10, 31)
			if err != nil {
				w.WriteHeader(http.StatusBadRequest)
				json.NewEncoder(w).Encode(failure{Error: "rate: sessions per second are needed"})
				return
			}
			o.Rate = int(n)
		}
		if d.Rebalance == nil {
			refuse(w, errEmbedded)
			return
		}
		if !running.CompareAndSwap(false, true) {
			refuse(w, errRebalancing)
			return
		}
		defer running.Store(false)
		w.Header().Set("Content-Type", "application/x-ndjson")
		enc, flush := json.NewEncoder(w), http.NewResponseController(w)
		d.Log.Info("a rebalance begins", "dry_run", o.DryRun, "seal", o.Seal, "rate", o.Rate)
		report, err := d.Rebalance(r.Context(), o, func(p backend.RebalanceProgress) {
			enc.Encode(rebalanceLine{Progress: &p}) // a client that is gone ends the request's context
			flush.Flush()
		})
		if err != nil {
			d.Log.Warn("a rebalance did not come to its end; another one goes on where it stopped", "moved", report.Moved, "err", err)
			enc.Encode(rebalanceLine{failure: failure{Error: err.Error(), Unavailable: errors.Is(err, sessfs.ErrUnavailable)}})
			return
		}
		d.Log.Info("a rebalance has ended", "sessions", report.Sessions, "moved", report.Moved, "busy", report.Busy, "failed", report.Failed)
		enc.Encode(rebalanceLine{Report: &report})
	}
}

// Rebalance makes the daemon move sessions to where the present list of servers says, calls fn with how far it is, and
// returns the report. The daemon stops when ctx ends.
func (c *Client) Rebalance(ctx context.Context, o backend.RebalanceOptions, fn func(backend.RebalanceProgress)) (backend.RebalanceReport, error) {
	q := url.Values{}
	if o.DryRun {
		q.Set("dry_run", "1")
	}
	if o.Seal {
		q.Set("seal", "1")
	}
	if o.Rate > 0 {
		q.Set("rate", strconv.Itoa(o.Rate))
	}
	res, err := c.send(ctx, http.MethodPost, "/rebalance", q)
	if err != nil {
		return backend.RebalanceReport{}, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return backend.RebalanceReport{}, decodeFailure(res.Body)
	}
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, maxReportLine)
	for lines.Scan() {
		var line rebalanceLine
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return backend.RebalanceReport{}, fmt.Errorf("the daemon's answer over %s: %w", c.path, err)
		}
		switch {
		case line.Error != "":
			return backend.RebalanceReport{}, line.err()
		case line.Report != nil:
			return *line.Report, nil
		case line.Progress != nil:
			fn(*line.Progress)
		}
	}
	if err := lines.Err(); err != nil {
		return backend.RebalanceReport{}, fmt.Errorf("the daemon's answer over %s: %w", c.path, err)
	}
	return backend.RebalanceReport{}, fmt.Errorf("the daemon at %s ended in the middle; another rebalance goes on where this one stopped", c.path)
}

// maxReportLine is the length of the longest line: a report names all servers.
const maxReportLine = 4 << 20
