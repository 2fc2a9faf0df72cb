package main

import (
	"encoding/xml"
	"fmt"
	"math"
	"strings"
)

// The chart: a panel for each scenario, a bar for each candidate, whiskers from min to max.
const (
	chartWidth = 920
	labelWidth = 230
	barRoom    = 480 // of the longest bar
	barHeight  = 16
	rowHeight  = 24
	panelHead  = 44
	panelFoot  = 16
)

var barColours = map[bool]string{true: "#2563a8", false: "#9aa5b1"} // sessfs, others

// chart draws a report.
func chart(r *report) string {
	var body strings.Builder
	y := 70
	for _, res := range r.Results {
		y += panel(&body, res, y)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %d" font-family="sans-serif" font-size="12" fill="#1f2933">`+"\n", chartWidth, y, y)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", chartWidth, y)
	fmt.Fprintf(&b, `<text x="20" y="30" font-size="18" font-weight="bold">Session handlers side by side: requests per second</text>`+"\n")
	fmt.Fprintf(&b, `<text x="20" y="50" fill="#52606d">%s</text>`+"\n", escape(chartNote(r)))
	b.WriteString(body.String())
	b.WriteString("</svg>\n")
	return b.String()
}

func chartNote(r *report) string {
	parts := []string{fmt.Sprintf("medians of %d rounds, lines from min to max", r.Rounds)}
	for _, f := range r.Facts {
		if f.Name == "CPU" || f.Name == "PHP" || f.Name == "kernel" {
			parts = append(parts, f.Name+" "+f.Value)
		}
	}
	return strings.Join(parts, " · ")
}

// panel draws a scenario and returns its height.
func panel(b *strings.Builder, res *result, y int) int {
	fmt.Fprintf(b, `<text x="20" y="%d" font-size="14" font-weight="bold">%s</text>`+"\n", y+24, escape(res.Title))
	scale := float64(barRoom) / res.widest()
	y += panelHead - 8
	for i, o := range res.Outcomes {
		top := y + i*rowHeight
		middle := top + barHeight/2
		fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", labelWidth-10, middle+4, escape(o.Title))
		if !o.ok() {
			why := "no round"
			if o.Failed != "" {
				why = "failed: " + brief(o.Failed)
			}
			fmt.Fprintf(b, `<text x="%d" y="%d" fill="#b42318">%s</text>`+"\n", labelWidth, middle+4, escape(shorten(why, 90)))
			continue
		}
		width := o.Rate.Median * scale
		cut := width > barRoom
		fmt.Fprintf(b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`+"\n", labelWidth, top, min(width, barRoom), barHeight, barColours[o.candidate.binary != nil])
		text := fmt.Sprintf("%.0f", o.Rate.Median)
		if o.Ratio > 0 && o != res.base(o) {
			text += fmt.Sprintf("  (sessfs is %.2f ×)", o.Ratio)
		}
		at := labelWidth + min(max(width, o.Rate.Max*scale), barRoom) + 8
		if cut {
			// A bar that would leave the panel ends in a gap.
			fmt.Fprintf(b, `<path d="M%d %d l6 -%d h6 l-6 %[3]d z" fill="#ffffff"/>`+"\n", labelWidth+barRoom-30, top+barHeight+1, barHeight+2)
		} else {
			fmt.Fprintf(b, `<path d="M%.1f %d H%.1f" stroke="#1f2933"/>`+"\n", labelWidth+o.Rate.Min*scale, middle, labelWidth+min(o.Rate.Max*scale, barRoom))
		}
		fmt.Fprintf(b, `<text x="%.1f" y="%d" fill="#52606d">%s</text>`+"\n", at, middle+4, escape(text))
	}
	return panelHead + len(res.Outcomes)*rowHeight + panelFoot
}

// widest is the value of the longest bar: that of the fastest shared candidate with some room, or of all where none is
// shared. What is not shared may be ten times faster, and is cut.
func (res *result) widest() float64 {
	shared, all := 0.0, 0.0
	for _, o := range res.Outcomes {
		if !o.ok() {
			continue
		}
		all = math.Max(all, o.Rate.Max)
		if o.candidate.shared() {
			shared = math.Max(shared, o.Rate.Max)
		}
	}
	if shared > 0 {
		return math.Min(all, 1.4*shared)
	}
	return math.Max(all, 1)
}

func shorten(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

func escape(s string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(s)) // a strings.Builder takes everything
	return b.String()
}
