package lab

import (
	"fmt"
	"math/rand/v2"
	"time"

	"sessfs/tests/faults/lab/proxy"
)

// The classes of faults.
const (
	ServerKilled  Class = "server killed, restarted empty"
	ServerStopped Class = "server stopped, shorter than a timeout"
	ServerHangs   Class = "server stopped, shorter than a lease"
	ServerAway    Class = "server stopped, longer than a lease"
	CutOff        Class = "cut off from one host, both directions"
	CutRequests   Class = "cut off from one host, requests only"
	CutAnswers    Class = "cut off from one host, answers only"
	Slow          Class = "slow, 50 ms"
	VerySlow      Class = "slow, 2 s"
	AnswerReset   Class = "connection reset in an answer"
	AnswerCut     Class = "answer cut"
	AnswerGarbled Class = "answer garbled"
	Evicting      Class = "memory too small, evicting"
	DaemonKilled  Class = "daemon killed"
	DaemonDied    Class = "daemon killed, another goes on"
	DaemonStopped Class = "daemon stopped, longer than a lease"
	ClockStepped  Class = "a host's clock stepped"
	ListChanged   Class = "list of servers changed"
)

// Classes are all of them.
var Classes = []Class{ServerKilled, ServerStopped, ServerHangs, ServerAway, CutOff, CutRequests, CutAnswers, Slow, VerySlow,
	AnswerReset, AnswerCut, AnswerGarbled, Evicting, DaemonKilled, DaemonDied, DaemonStopped, ClockStepped, ListChanged}

// draw settles a fault of a class.
func (l *Lab) draw(c Class) fault {
	f := fault{class: c}
	r := l.rnd
	i := l.list[r.IntN(len(l.list))]
	s, h := l.servers[i], l.hosts[r.IntN(len(l.hosts))]
	switch c {
	case ServerKilled:
		down := between(r, 0, 3*time.Second)
		f.text = fmt.Sprintf("%s for %v", s.name, down)
		f.make = func() {
			s.mem.Stop()
			l.sleep(down)
			s.mem.Start()
		}
	case ServerStopped, ServerHangs, ServerAway:
		d := map[Class]time.Duration{
			ServerStopped: between(r, timeout/4, timeout*3/4),
			ServerHangs:   between(r, 2*timeout, lease*2/3),
			ServerAway:    between(r, lease+time.Second, 2*lease),
		}[c]
		f.text = fmt.Sprintf("%s for %v", s.name, d)
		f.make = func() {
			s.mem.Process().Freeze(l.t)
			l.sleep(d)
			s.mem.Process().Thaw()
		}
	case CutOff, CutRequests, CutAnswers:
		d, lost := between(r, timeout/2, 2*lease), r.IntN(2) == 0
		f.text = fmt.Sprintf("host%d from %s for %v; what was sent meanwhile %s", h.number, s.name, d, map[bool]string{true: "is lost", false: "comes late"}[lost])
		f.make = func() {
			p := h.proxies[i]
			p.Set(proxy.Mode{HoldRequests: c != CutAnswers, HoldAnswers: c != CutRequests})
			l.sleep(d)
			if lost {
				p.Drop()
			}
			p.Set(proxy.Mode{})
		}
	case Slow, VerySlow:
		f.text, f.make = l.drawMode(r, i, proxy.Mode{Delay: map[Class]time.Duration{Slow: 50 * time.Millisecond, VerySlow: 2 * time.Second}[c]})
	case AnswerReset, AnswerCut, AnswerGarbled:
		how := map[Class]proxy.Break{AnswerReset: proxy.Reset, AnswerCut: proxy.Cut, AnswerGarbled: proxy.Garble}[c]
		f.text, f.make = l.drawMode(r, i, proxy.Mode{Break: how, Every: 1 + r.IntN(20)})
	case Evicting:
		f.text, f.make = l.drawEvicting(r, s)
	case DaemonKilled:
		down := between(r, 0, 2*lease)
		f.text, f.host = fmt.Sprintf("host%d's, for %v", h.number, down), h.number
		f.make = func() {
			h.mount.Process().Kill()
			l.sleep(down)
			h.mount.Crash()
			h.mount.Start()
			h.clock = nil
		}
	case DaemonDied:
		pauses := make([]time.Duration, 1+r.IntN(4))
		for i := range pauses {
			pauses[i] = between(r, 50*time.Millisecond, time.Second)
		}
		f.text, f.host = fmt.Sprintf("host%d's, %d times", h.number, len(pauses)), h.number
		f.make = func() {
			for _, pause := range pauses {
				h.mount.Process().KillDaemon()
				l.sleep(pause)
			}
			h.clock = nil
		}
	case DaemonStopped:
		d := between(r, lease, 2*lease)
		f.text, f.host = fmt.Sprintf("host%d's, for %v", h.number, d), h.number
		f.make = func() {
			h.mount.Process().Freeze(l.t)
			l.sleep(d)
			h.mount.Process().Thaw()
		}
	case ClockStepped:
		f.text, f.make = l.drawClock(r, h)
	case ListChanged:
		f.text, f.make = l.drawList(r)
	default:
		l.t.Fatalf("no such class of faults: %s", c)
	}
	return f
}

// drawMode is a mode of the proxies before a server, of one host or of all.
func (l *Lab) drawMode(r *rand.Rand, server int, m proxy.Mode) (string, func()) {
	hosts := l.hosts
	if r.IntN(2) == 0 {
		n := r.IntN(len(hosts))
		hosts = hosts[n : n+1]
	}
	d := between(r, time.Second, 2*lease)
	text := fmt.Sprintf("%s for %d hosts, host%d first, for %v", l.servers[server].name, len(hosts), hosts[0].number, d)
	if m.Every > 0 {
		text += fmt.Sprintf("; one of %d answers", m.Every)
	}
	return text, func() {
		before := 0
		for _, h := range hosts {
			before += h.proxies[server].Broken()
			h.proxies[server].Set(m)
		}
		l.sleep(d)
		for _, h := range hosts {
			h.proxies[server].Set(proxy.Mode{})
			l.report.broken += h.proxies[server].Broken()
		}
		l.report.broken -= before
	}
}
