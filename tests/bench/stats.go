package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
)

// median of an even number is the mean of the two in the middle; of none it is NaN.
func median(xs []float64) float64 {
	if len(xs) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(xs))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// spread is a median with what it stands for.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// spreadOf is false for no values.
func spreadOf[T any](items []T, of func(T) float64) (spread, bool) {
	if len(items) == 0 {
		return spread{}, false
	}
	var xs []float64
	for _, item := range items {
		xs = append(xs, of(item))
	}
	return spread{median(xs), slices.Min(xs), slices.Max(xs)}, true
}

// histogram counts durations by whole microseconds.
type histogram map[int]int

func (h histogram) add(times map[string]int) error {
	for text, n := range times {
		us, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("a duration of %q µs", text)
		}
		h[us] += n
	}
	return nil
}

func (h histogram) count() (n int) {
	for _, c := range h {
		n += c
	}
	return n
}

// quantile is the shortest duration that the share q of all does not exceed, in microseconds; 0 of none.
func (h histogram) quantile(q float64) float64 {
	rank := int(math.Ceil(q * float64(h.count())))
	keys := make([]int, 0, len(h))
	for us := range h {
		keys = append(keys, us)
	}
	slices.Sort(keys)
	seen := 0
	for _, us := range keys {
		if seen += h[us]; seen >= rank {
			return float64(us)
		}
	}
	return 0
}
