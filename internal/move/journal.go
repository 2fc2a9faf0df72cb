package move

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"sessfs"
)

// journal knows which sessions were imported from a directory, with the time of change that they got: a line each, "TIME
// NAME", of which the last two of a name count. A line is written before its session is stored, so that what an import
// that was killed has stored is known; whether it has stored the last one is not.
type journal struct {
	path string
	mu   sync.Mutex
	f    *os.File               // guarded by mu; nil: nothing is written
	at   map[sessfs.ID]stored   // guarded by mu
	seen map[sessfs.ID]struct{} // in the directory now; guarded by mu
}

// stored are the times of change with which a session was stored last, and before that (0: it was not).
type stored struct{ last, before int64 }

// are tells whether a session is as it was imported.
func (t stored) are(mtime int64) bool { return mtime == t.last || mtime == t.before }

func (t stored) then(mtime int64) stored {
	if mtime == t.last {
		return t
	}
	return stored{mtime, t.last}
}

// errImporting: another import of the same directory is at work.
var errImporting = errors.New("another import of this directory to these servers is running; wait for its end")

// openJournal reads the journal at path and keeps others from it; with readOnly it does neither change nor lock it.
func openJournal(path string, readOnly bool) (*journal, error) {
	j := &journal{path: path, at: make(map[sessfs.ID]stored), seen: make(map[sessfs.ID]struct{})}
	if readOnly {
		f, err := os.Open(path)
		if errors.Is(err, os.ErrNotExist) {
			return j, nil
		}
		if err != nil {
			return nil, fmt.Errorf("the journal of imports: %w", err)
		}
		defer f.Close()
		return j, j.load(f)
	}
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, fmt.Errorf("the journal of imports: %w", err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, errImporting
			}
			return nil, fmt.Errorf("the journal of imports: flock %s: %w", path, err)
		}
		own, err1 := f.Stat()
		now, err2 := os.Stat(path)
		if err1 == nil && err2 == nil && os.SameFile(own, now) {
			j.f = f
			if err := j.load(f); err != nil {
				f.Close()
				return nil, err
			}
			return j, nil
		}
		f.Close() // another import has replaced it and ended
	}
}

func (j *journal) load(f io.Reader) error {
	r := bufio.NewReader(f)
	for {
		text, err := r.ReadString('\n')
		if errors.Is(err, io.EOF) {
			// The last line may be cut: then its session was not stored. What follows must not be appended to it.
			if text != "" && j.f != nil {
				_, err := j.f.WriteString("\n")
				return err
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("the journal of imports: %w", err)
		}
		mtime, name, _ := strings.Cut(strings.TrimSuffix(text, "\n"), " ")
		at, err1 := strconv.ParseInt(mtime, 10, 64)
		id, err2 := strconv.Unquote(name)
		if err1 == nil && err2 == nil {
			j.at[sessfs.ID(id)] = j.at[sessfs.ID(id)].then(at)
		}
	}
}

// found notes that a session's file is there.
func (j *journal) found(id sessfs.ID) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.seen[id] = struct{}{}
}

// note notes that a session is on the servers with that time of change, or will be in a moment.
func (j *journal) note(id sessfs.ID, mtime int64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.f == nil || j.at[id].last == mtime {
		return nil
	}
	if _, err := j.f.WriteString(journalLine(id, mtime)); err != nil {
		return fmt.Errorf("the journal of imports: %w", err)
	}
	j.at[id] = j.at[id].then(mtime)
	return nil
}

func journalLine(id sessfs.ID, mtime int64) string {
	return strconv.FormatInt(mtime, 10) + " " + strconv.Quote(string(id)) + "\n"
}

// gone are the sessions that were imported and whose files are not there any more.
func (j *journal) gone() map[sessfs.ID]stored {
	j.mu.Lock()
	defer j.mu.Unlock()
	left := make(map[sessfs.ID]stored)
	for id, at := range j.at {
		if _, ok := j.seen[id]; !ok {
			left[id] = at
		}
	}
	return left
}

func (j *journal) forget(id sessfs.ID) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.at, id)
}

// close ends the journal; where the import was complete it is written anew, without what has ended.
func (j *journal) close(complete bool) (err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.f == nil {
		return nil
	}
	defer j.f.Close()
	if !complete {
		return nil
	}
	if len(j.at) == 0 {
		return os.Remove(j.path)
	}
	tmp := j.path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("the journal of imports: %w", err)
	}
	w := bufio.NewWriter(f)
	for id, at := range j.at {
		if at.before != 0 {
			w.WriteString(journalLine(id, at.before))
		}
		w.WriteString(journalLine(id, at.last))
	}
	if err := errors.Join(w.Flush(), f.Close()); err != nil {
		os.Remove(tmp)
		return fmt.Errorf("the journal of imports: %w", err)
	}
	return os.Rename(tmp, j.path)
}
