package web

import (
	"fmt"
	"html/template"
	"math"
	"strconv"
	"strings"
	"time"
)

// chart is one diagram of the last hour.
type chart struct {
	Title string
	lines []line
	unit  func(float64) string
	least float64 // the axis goes up to this at least
}

type line struct {
	Name string
	of   series
}

// charts are those of the page, in their order.
var charts = []chart{
	{"Sessions per second", []line{{"started", started}, {"stored", stored}}, number, 1},
	{"Time to open a session", []line{{"99 %", openMost}, {"median", openHalf}}, seconds, 0.001},
	{"Time to store a session", []line{{"99 %", storeMost}, {"median", storeHalf}}, seconds, 0.001},
	{"Locks", []line{{"held", held}, {"waited for", waiting}}, number, 4},
	{"Waits for locks", []line{{"99 %", waitMost}}, seconds, 0.001},
	{"Trouble per minute", []line{{"failed", failed}, {"refused", refused}, {"lost", lost}, {"evicted", evicted}}, number, 4},
	{"Round trips, slowest server", []line{{"99 %", tripMost}, {"median", tripHalf}}, seconds, 0.001},
	{"Memory, fullest server", []line{{"used", memory}}, percent, 100},
}

// The drawing's measures, in its own units.
const (
	width, height            = 360, 150
	left, right, top, bottom = 48, 6, 8, 22
	// A gap between samples that is longer is not bridged by a line.
	longestGap = 3 * Every
)

// drawn is a chart as the template needs it.
type drawn struct {
	Title   string
	Figures []figure // the legend: what each line shows now
	SVG     template.HTML
}

type figure struct {
	Class, Name, Value string
}

// draw makes the drawing. All text in it is made here, of numbers and of the names above.
func (c chart) draw(samples []sample, now time.Time) drawn {
	d := drawn{Title: c.Title}
	high := c.least
	for _, s := range samples {
		for _, l := range c.lines {
			if v := float64(s.values[l.of]); v > high {
				high = v
			}
		}
	}
	step := stepFor(high)
	high = math.Ceil(high/step-1e-9) * step
	y := func(v float64) float64 { return top + (height-top-bottom)*(1-v/high) }
	x := func(t time.Time) float64 { return left + (width-left-right)*(1-now.Sub(t).Seconds()/Span.Seconds()) }

	var b, label strings.Builder
	label.WriteString(c.Title)
	for v := 0.0; v <= high*(1+1e-9); v += step {
		fmt.Fprintf(&b, `<path class="grid" d="M%d %.1fH%d"/><text x="%d" y="%.1f" class="y">%s</text>`, left, y(v), width-right, left-6, y(v)+4, c.unit(v))
	}
	for _, m := range []int{60, 45, 30, 15, 0} {
		text, anchor := fmt.Sprintf("-%d min", m), "middle"
		if m == 0 {
			text, anchor = "now", "end"
		} else if m == 60 {
			anchor = "start"
		}
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" class="x" text-anchor="%s">%s</text>`, x(now.Add(-time.Duration(m)*time.Minute)), height-6, anchor, text)
	}
	for i, l := range c.lines {
		class := "line" + strconv.Itoa(i)
		value := "–"
		if n := len(samples); n > 0 {
			if v := float64(samples[n-1].values[l.of]); !math.IsNaN(v) {
				value = c.unit(v)
			}
		}
		d.Figures = append(d.Figures, figure{class, l.Name, value})
		fmt.Fprintf(&label, "; %s: %s", l.Name, value)
		b.WriteString(trace(samples, l.of, class, i == 0, x, y))
	}
	d.SVG = template.HTML(fmt.Sprintf(`<svg viewBox="0 0 %d %d" role="img" aria-label="%s">%s</svg>`, width, height, template.HTMLEscapeString(label.String()), b.String()))
	return d
}

// trace is a line over the samples, with the area below it if that is wanted, and a dot where a sample stands alone.
func trace(samples []sample, of series, class string, area bool, x func(time.Time) float64, y func(float64) float64) string {
	var path, fill, dots strings.Builder
	var last time.Time
	points, px, py := 0, 0.0, 0.0
	end := func() {
		switch points {
		case 0:
			return
		case 1:
			fmt.Fprintf(&dots, `<circle class="dot %s" cx="%.1f" cy="%.1f" r="2.5"/>`, class, px, py)
		}
		fmt.Fprintf(&fill, "L%.1f %.1fZ", px, y(0))
		points = 0
	}
	for _, s := range samples {
		v := float64(s.values[of])
		if math.IsNaN(v) || s.at.Sub(last) > longestGap {
			end()
		}
		if math.IsNaN(v) {
			continue
		}
		px, py, last = x(s.at), y(v), s.at
		command := 'L'
		if points == 0 {
			command = 'M'
			fmt.Fprintf(&fill, "M%.1f %.1f", px, y(0))
		}
		fmt.Fprintf(&path, "%c%.1f %.1f", command, px, py)
		fmt.Fprintf(&fill, "L%.1f %.1f", px, py)
		points++
	}
	end()
	out := fmt.Sprintf(`<path class="%s" d="%s"/>`, class, path.String()) + dots.String()
	if area {
		out = fmt.Sprintf(`<path class="area" d="%s"/>`, fill.String()) + out
	}
	return out
}

// stepFor is the distance of lines on an axis that goes up to high: 1, 2 or 5 times a power of ten, for two to five lines.
func stepFor(high float64) float64 {
	step := math.Pow(10, math.Floor(math.Log10(high)))
	for _, f := range []float64{0.2, 0.5, 1} {
		if high/(f*step) <= 5+1e-9 {
			return f * step
		}
	}
	return 2 * step
}
