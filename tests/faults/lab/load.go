package lab

import (
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"sessfs/internal/testkit"
	"sessfs/tests/faults/lab/history"
)

//go:embed worker.php
var workerPHP string

// load is the PHP workers of all hosts.
type load struct {
	dir     string // where they note what they do
	stop    string // the file that ends them
	workers []*worker
	kill    time.Time // when the next of them is killed
}

// worker is one PHP process. One that was killed stays in the list, for its notes.
type worker struct {
	number int
	host   *host
	proc   *testkit.Process
	notes  string
	killed int64
}

// www-data: it may not write into a directory under a mount that is not there.
const phpUser = 33

func (l *Lab) startLoad() {
	l.t.Helper()
	dir := testkit.Dir(l.t)
	l.load = &load{dir: dir, stop: filepath.Join(dir, "stop")}
	l.nextKill()
	for range l.plan.Workers {
		for _, h := range l.hosts {
			l.startWorker(h)
		}
	}
}

func (l *Lab) startWorker(h *host) {
	l.t.Helper()
	args := []string{l.load.stop, fmt.Sprint(l.plan.Pace.Microseconds())}
	if l.plan.How != "" {
		args = append(args, l.plan.How)
	}
	l.runWorker(h, args...)
}

// runWorker starts a worker with its arguments after the number and the seed.
func (l *Lab) runWorker(h *host, args ...string) *worker {
	l.t.Helper()
	w := &worker{number: len(l.load.workers) + 1, host: h}
	out := l.create(fmt.Sprintf("worker%d", w.number))
	defer out.Close()
	w.notes = out.Name()
	args = append([]string{fmt.Sprint(w.number), fmt.Sprint(l.plan.Seed)}, args...)
	cmd := testkit.PHPCommand(h.mount, []string{"session.serialize_handler=php_serialize"}, strings.TrimPrefix(workerPHP, "<?php\n"), args...)
	cmd.Stdout = out
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: phpUser, Gid: phpUser}}
	w.proc = testkit.StartCmd(l.t, cmd)
	l.load.workers = append(l.load.workers, w)
	return w
}

func (l *Lab) nextKill() {
	l.load.kill = time.Now().Add(between(l.luck, l.plan.Kills/2, 3*l.plan.Kills/2))
}

// tend kills a worker when it is time to, and starts another in its place.
func (l *Lab) tend() {
	if l.load == nil || l.plan.Kills == 0 || time.Now().Before(l.load.kill) {
		return
	}
	l.nextKill()
	alive := slices.DeleteFunc(slices.Clone(l.load.workers), (*worker).over)
	if len(alive) == 0 {
		return
	}
	w := alive[l.luck.IntN(len(alive))]
	w.kill()
	l.report.kills++
	l.startWorker(w.host)
}

func (w *worker) over() bool {
	select {
	case <-w.proc.Done():
		return true
	default:
		return false
	}
}

func (w *worker) kill() {
	w.killed = now()
	w.proc.Signal(syscall.SIGKILL) // it may last until its request is answered: a daemon may stand still
}

// sleep lets the load go on.
func (l *Lab) sleep(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(min(20*time.Millisecond, time.Until(end)))
		l.tend()
	}
}

// stopLoad ends the workers, each after its request.
func (l *Lab) stopLoad() {
	l.t.Helper()
	if err := os.WriteFile(l.load.stop, nil, 0o644); err != nil {
		l.t.Fatal(err)
	}
	l.wait(l.load.workers, 2*bounds.Wait)
}

// killLoad ends the workers in the middle of their requests.
func (l *Lab) killLoad() {
	for _, w := range l.load.workers {
		if !w.over() {
			w.kill()
		}
	}
}

// wait waits for workers; one that does not end in time hangs in a request, which Bounded will show.
func (l *Lab) wait(workers []*worker, d time.Duration) {
	end := time.Now().Add(d)
	for _, w := range workers {
		select {
		case <-w.proc.Done():
		case <-time.After(time.Until(end)):
			l.breach("bounded", fmt.Sprintf("worker %d of host%d has not ended", w.number, w.host.number))
			w.kill()
		}
	}
}

// settle reads all sessions when nothing is written any more: those of many requests on every host, others on one.
func (l *Lab) settle() {
	l.t.Helper()
	requests := l.read()
	count := make(map[string]int)
	for _, r := range requests {
		count[r.Session]++
	}
	names := make([]string, 0, len(count))
	for name := range count {
		names = append(names, name)
	}
	slices.Sort(names)
	l.history.Settled = now()
	var readers []*worker
	for i, h := range l.hosts {
		var list strings.Builder
		for k, name := range names {
			if count[name] > 20 || k%len(l.hosts) == i {
				list.WriteString(name + "\n")
			}
		}
		file := testkit.WriteFile(l.t, filepath.Join(l.load.dir, fmt.Sprintf("names%d", i)), "%s", list.String())
		readers = append(readers, l.runWorker(h, "read", file))
	}
	l.wait(readers, bounds.Wait+time.Duration(len(names))*time.Second)
}

// read is what all workers have noted.
func (l *Lab) read() (list []*history.Request) {
	l.t.Helper()
	for _, w := range l.load.workers {
		f, err := os.Open(w.notes)
		if err != nil {
			l.t.Fatal(err)
		}
		requests, err := history.Parse(f, w.host.number, w.number, w.killed)
		f.Close()
		if err != nil {
			l.t.Fatalf("the notes of worker %d: %v\n%s", w.number, err, w.proc.Output())
		}
		if out := w.proc.Output(); out != "" {
			l.t.Fatalf("worker %d printed %s", w.number, out)
		}
		list = append(list, requests...)
	}
	return list
}
