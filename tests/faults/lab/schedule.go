package lab

import (
	"fmt"
	"math/rand/v2"
	"time"

	"sessfs/tests/faults/lab/history"
)

// Class is a class of faults.
type Class string

// fault is one that was drawn: everything about it is settled before it is made.
type fault struct {
	class Class
	text  string // what is done to whom
	host  int    // whose daemon it stops; 0: none
	make  func() // makes it, waits, and takes it back
}

// deck gives the classes in a drawn order, each as often as the others.
type deck struct {
	rnd     *rand.Rand
	classes []Class
	left    []Class
}

func (d *deck) next() Class {
	if len(d.left) == 0 {
		d.left = append(d.left, d.classes...)
		d.rnd.Shuffle(len(d.left), func(i, k int) { d.left[i], d.left[k] = d.left[k], d.left[i] })
	}
	c := d.left[0]
	d.left = d.left[1:]
	return c
}

// faults makes one fault after the other until the time is over and, in a run of five minutes and more, each class has
// occurred. It stops where something cannot be mended: the faults after that would be two at a time.
func (l *Lab) faults() {
	l.t.Helper()
	begin := time.Now()
	d := &deck{rnd: l.rnd, classes: l.plan.Classes}
	all := l.plan.Time >= 5*time.Minute
	for made := 0; len(d.classes) > 0 && (time.Since(begin) < l.plan.Time || all && made < len(d.classes)); made++ {
		quiet := between(l.rnd, 0, 2*time.Second)
		f := l.draw(d.next())
		l.sleep(quiet)
		note := history.Fault{Class: string(f.class), Text: f.text, Host: f.host, Begin: now()}
		f.make()
		note.End = now()
		l.history.Faults = append(l.history.Faults, note)
		l.report.made(f.class, time.Duration(note.End-note.Begin))
		if !l.mended(fmt.Sprintf("%s: %s", f.class, f.text)) {
			return
		}
	}
	l.sleep(l.plan.Time - time.Since(begin))
}
