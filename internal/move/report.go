package move

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"text/tabwriter"
)

// Outcome is what became of a file or a session.
type Outcome string

// The outcomes.
const (
	Imported  Outcome = "imported"
	Exported  Outcome = "exported"
	Unchanged Outcome = "unchanged"
	Expired   Outcome = "expired"
	Newer     Outcome = "newer"     // the other side is newer: it is left alone
	Destroyed Outcome = "destroyed" // the session was destroyed after the file's last change, and stays so
	Removed   Outcome = "removed"   // the file is gone since an earlier import, and so is the session now
	Refused   Outcome = "refused"   // it is none of PHP's session files, or a session that can be no file
	TooLarge  Outcome = "too_large"
	Busy      Outcome = "busy" // the file, or the session, was in use all the time
	Failed    Outcome = "failed"

	again    Outcome = "again"    // it is tried again
	vanished Outcome = "vanished" // it ended meanwhile
)

// Note says why something was not carried over.
type Note struct {
	Outcome Outcome `json:"outcome"`
	Hash    string  `json:"hash"` // of the file's name: sessfs.ID's
	Why     string  `json:"why"`
}

// maxNotes is how many notes of an outcome are kept.
const maxNotes = 10

// Report is what an import or export has done, or would do.
type Report struct {
	DryRun bool            `json:"dry_run"`
	Counts map[Outcome]int `json:"counts"`
	Bytes  int64           `json:"bytes"` // of what was imported or exported
	Notes  []Note          `json:"notes"` // ten of each outcome at most
}

// Left is how many should have been carried over and were not: another run may do it.
func (r Report) Left() int { return r.Counts[Busy] + r.Counts[Failed] }

// JSON writes the report for programs.
func (r Report) JSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

// line is how an outcome stands in the summary.
type line struct {
	outcome    Outcome
	text       string
	evenIfNone bool
}

var importLines = []line{
	{Imported, "imported", true},
	{Unchanged, "unchanged: on the servers already", true},
	{Expired, "expired", true},
	{Newer, "newer on the servers, and left alone", true},
	{Destroyed, "destroyed on the servers, and left so", false},
	{Removed, "gone from the directory since an earlier import: destroyed on the servers", false},
	{Refused, "refused: no session files", true},
	{TooLarge, "too large", true},
	{Busy, "in use all the time", false},
	{Failed, "failed", true},
}

var exportLines = []line{
	{Exported, "exported", true},
	{Unchanged, "unchanged: in the directory already", true},
	{Newer, "newer in the directory, and left alone", true},
	{Refused, "refused: no session file may have that name, or something else has it", true},
	{Busy, "in use all the time", false},
	{Failed, "failed", true},
}

// Print writes the summary for people.
func (r Report) Print(out io.Writer) error {
	lines := importLines
	if _, ok := r.Counts[Exported]; ok {
		lines = exportLines
	}
	if r.DryRun {
		fmt.Fprintln(out, "Dry run: nothing was changed. It would be:")
	}
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', tabwriter.AlignRight)
	for _, l := range lines {
		n := r.Counts[l.outcome]
		if n == 0 && !l.evenIfNone {
			continue
		}
		text := l.text
		if (l.outcome == Imported || l.outcome == Exported) && r.Bytes > 0 {
			text += fmt.Sprintf(" (%d bytes)", r.Bytes)
		}
		fmt.Fprintf(w, "%d\t  %s\n", n, text)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, n := range r.Notes {
		if _, err := fmt.Fprintf(out, "  %s  %s: %s\n", n.Hash, n.Outcome, n.Why); err != nil {
			return err
		}
	}
	for _, l := range lines {
		if more := r.Counts[l.outcome] - maxNotes; more > 0 && noted(l.outcome) {
			fmt.Fprintf(out, "  and %d more %s\n", more, l.outcome)
		}
	}
	return nil
}

func noted(o Outcome) bool {
	return o == Refused || o == TooLarge || o == Busy || o == Failed
}

// tally counts while many workers are at it.
type tally struct {
	mu     sync.Mutex
	report Report
	done   uint64
}

func newTally(dryRun bool, first Outcome) *tally {
	return &tally{report: Report{DryRun: dryRun, Counts: map[Outcome]int{first: 0}, Notes: []Note{}}}
}

// count notes what became of something.
func (t *tally) count(o Outcome, bytes int64, hash, why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if o == vanished {
		t.done++
		return
	}
	t.report.Counts[o]++
	if o != Removed { // which is none of the files
		t.done++
	}
	switch {
	case o == Imported || o == Exported:
		t.report.Bytes += bytes
	case noted(o) && t.report.Counts[o] <= maxNotes:
		t.report.Notes = append(t.report.Notes, Note{o, hash, why})
	}
}

func (t *tally) snapshot() (Report, uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.report
	r.Counts = maps.Clone(r.Counts)
	r.Notes = slices.Clone(r.Notes)
	slices.SortStableFunc(r.Notes, func(a, b Note) int { return cmp.Compare(a.Outcome, b.Outcome) })
	return r, t.done
}
