package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"time"
)

// report is everything a run has found, as it is written to bench.json.
type report struct {
	Started  time.Time        `json:"started"`
	Seconds  float64          `json:"seconds"`
	Quick    bool             `json:"quick"`
	Rounds   int              `json:"rounds"`
	Duration float64          `json:"seconds_each"`
	Facts    []fact           `json:"facts"`
	Settings []fact           `json:"candidates"`
	LeftOut  []string         `json:"left_out,omitempty"`
	Results  []*result        `json:"scenarios"`
	Calls    []calls          `json:"system_calls"`
	Memory   []footprint      `json:"memory"`
	Judged   map[string][]row `json:"judged"`
}

const (
	jsonFile = "bench.json"
	svgFile  = "bench.svg"
	textFile = "bench.txt"
)

// write puts the report into a directory.
func (r *report) write(dir, text string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{jsonFile: append(b, '\n'), svgFile: []byte(chart(r)), textFile: []byte(text)} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// failed tells whether a candidate failed anywhere.
func (r *report) failed() bool {
	for _, res := range r.Results {
		for _, o := range res.Outcomes {
			if o.Failed != "" {
				return true
			}
		}
	}
	for _, c := range r.Calls {
		if c.Failed != "" {
			return true
		}
	}
	for _, m := range r.Memory {
		if m.Failed != "" {
			return true
		}
	}
	return false
}
