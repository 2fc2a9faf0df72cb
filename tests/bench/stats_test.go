package main

import (
	"math"
	"testing"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		xs   []float64
		want float64
	}{
		{[]float64{3}, 3},
		{[]float64{9, 1, 5}, 5},
		{[]float64{4, 1, 3, 2}, 2.5},
	} {
		in := append([]float64{}, c.xs...)
		if got := median(in); got != c.want {
			t.Errorf("median of %v: %v, want %v", c.xs, got, c.want)
		}
		for i := range in {
			if in[i] != c.xs[i] {
				t.Errorf("median changed its argument: %v, was %v", in, c.xs)
				break
			}
		}
	}
	if got := median(nil); !math.IsNaN(got) {
		t.Errorf("median of nothing: %v", got)
	}
}

func TestSpread(t *testing.T) {
	s, ok := spreadOf([]int{7, 1, 4}, func(i int) float64 { return float64(10 * i) })
	if want := (spread{Median: 40, Min: 10, Max: 70}); !ok || s != want {
		t.Errorf("got %v, %v, want %v", s, ok, want)
	}
	if _, ok := spreadOf(nil, func(i int) float64 { return 0 }); ok {
		t.Error("nothing has no spread")
	}
}

func TestQuantile(t *testing.T) {
	h := make(histogram)
	for _, part := range []map[string]int{{"10": 50, "20": 40}, {"20": 9, "1000": 1}} {
		if err := h.add(part); err != nil {
			t.Fatal(err)
		}
	}
	for q, want := range map[float64]float64{0: 10, 0.5: 10, 0.51: 20, 0.99: 20, 1: 1000} {
		if got := h.quantile(q); got != want {
			t.Errorf("quantile %v: %v, want %v", q, got, want)
		}
	}
	if got := (histogram{}).quantile(0.5); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
	if err := h.add(map[string]int{"soon": 1}); err == nil {
		t.Error("a duration that is no number was taken")
	}
}
