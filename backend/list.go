package backend

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"sessfs"
)

// A listing reads a server's metadump, keys only, and fetches the records of a batch of keys at a time for their
// attributes. The dump is drained ahead of the fetching, as far as a bounded queue lets it.
//
// The dump walks the LRU lists, and misses items that the server uses or moves among them meanwhile: one in twenty of
// those that were stored or read a moment ago, one in a thousand of these twice in succession (1.6.18). So it is read
// again, with a pause, until it has shown nothing new twice. The other way to dump, by the hash table, misses nothing
// but keeps its locks while the reader is slow, and with them the server: only a server with so few items that their
// lines find room between the two is asked for that.
const (
	listKeys    = 200      // keys that are fetched together
	listBytes   = 4 << 20  // bytes of records that are fetched together, but for a single one that is larger
	listRoom    = 32 << 20 // bytes of records that may come: they were smaller when they were listed
	listBatches = 256      // that wait to be fetched
	listSeen    = 1 << 20  // keys that are remembered, to tell what a further dump shows newly
	listDumps   = 6
	listMend    = 3 // of these, where what is stored meanwhile does not matter
	listQuiet   = 2 // dumps in succession that show nothing new end the listing
	listPause   = 2 * time.Millisecond
	listWait    = 600 * time.Millisecond // the pause where none may be missed
	listBusy    = 100 * time.Millisecond
	listFew     = 300 // items whose lines, some 110 bytes each and 850 at most, need not wait for their reader
	listHash    = 20  // the power of two of a hash table that takes no time to walk, however empty it is

	dumpSlack = 1 << 18 // keys that a dump may show beyond twice the items that the server said it has
	dumpMost  = 1 << 26 // keys of a dump, whatever it says
)

type listed struct {
	key     string
	size    int64
	expires time.Time
}

// List implements sessfs.Backend, all servers at once. Of copies the first that is found is told, but where they may
// differ, which is looked up. A server that fails makes the whole listing fail where sessions may be on it alone, but not
// before the others were listed.
func (c *Cluster) List(ctx context.Context, fn func(sessfs.Entry) error) error {
	return c.list(ctx, listPause, fn)
}

// ListAll is List for those who may not miss a session that was used a moment ago, and have a second or more for that where
// servers have many.
func (c *Cluster) ListAll(ctx context.Context, fn func(sessfs.Entry) error) error {
	return c.list(ctx, listWait, fn)
}

func (c *Cluster) list(ctx context.Context, pause time.Duration, fn func(sessfs.Entry) error) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	servers := c.servers()
	var mu sync.Mutex
	var stop error                    // fn's, guarded by mu
	seen := make(map[uint64]struct{}) // hashes of ids, guarded by mu; beyond listSeen a session may be told twice
	seed, differ := maphash.MakeSeed(), c.mayDiffer()
	_, errs := each(servers, func(s *server) (struct{}, error) {
		return struct{}{}, s.list(ctx, pause, listDumps, func(e sessfs.Entry) error {
			h := maphash.String(seed, string(e.ID))
			mu.Lock()
			_, twice := seen[h]
			if len(servers) > 1 && len(seen) < listSeen {
				seen[h] = struct{}{}
			}
			mu.Unlock()
			if twice {
				return nil
			}
			if differ {
				if now, err := c.Read(ctx, e.ID); err == nil {
					e.State, e.Attr, e.Size = now.State, now.Attr, int64(len(now.Data))
				}
			}
			mu.Lock()
			defer mu.Unlock()
			if stop == nil && e.State != sessfs.Missing {
				if stop = fn(e); stop != nil {
					end()
				}
			}
			return stop
		})
	})
	if stop != nil {
		return stop
	}
	if c.canMiss(servers, errs) {
		return nil
	}
	return errors.Join(errs...)
}

// mayDiffer tells whether copies may be older than others, or missing where they belong.
func (c *Cluster) mayDiffer() bool {
	if !c.copies() {
		return false
	}
	for _, s := range c.servers() {
		if s.down() || s.mending.left.Load() != 0 {
			return true
		}
	}
	return len(*c.views.Load()) > 1
}

// canMiss tells whether the servers that failed are so few that every session was found on another one.
func (c *Cluster) canMiss(servers []*server, errs []error) bool {
	for _, v := range *c.views.Load() {
		failed := 0
		for i, s := range servers {
			if errs[i] != nil && slices.Contains(v.servers, s) {
				failed++
			}
		}
		if failed >= v.replicas {
			return false
		}
	}
	return true
}

// list calls fn for every record of a server, but for damaged ones.
func (s *server) list(ctx context.Context, pause time.Duration, dumps int, fn func(sessfs.Entry) error) error {
	return s.listItems(ctx, pause, dumps, func(l listed, it item, _ uint64) error {
		r, _, err := s.openRecord(l.key, it.value)
		if err == nil && s.key(s.cl.prefix+nameOf(s.cl.prefix, r.id)) != l.key {
			err = errors.New("foreign: it is another session's record")
		}
		if err != nil {
			s.cl.log.Warn("a listing leaves out a damaged record", "server", s.name, "session", sessfs.ID(strings.TrimPrefix(l.key, s.cl.prefix)).Hash(), "err", err)
			return nil
		}
		return fn(sessfs.Entry{ID: r.id, State: r.state, Attr: r.attr, Size: int64(r.length), Expires: l.expires, Server: s.name})
	})
}

// listItems calls fn for what is under every record's key of a server, with the epoch of its cas. An item that was read is not dumped until the server has moved it in its LRU,
// which a thread of its own does within a second: of 5,000 that were read a moment ago none was dumped for 116 ms (1.6.18).
// So no dump before has missed what the last one shows only where they are further apart than that: see listWait.
func (s *server) listItems(ctx context.Context, pause time.Duration, dumps int, fn func(listed, item, uint64) error) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	batches := make(chan []listed, listBatches)
	var dumpErr error
	go func() {
		defer close(batches)
		d := dumper{s: s, seed: maphash.MakeSeed(), seen: make(map[uint64]struct{})}
		quiet := 0
		for range dumps {
			before := len(d.seen)
			dumpErr = d.dump(ctx, batches)
			if quiet++; len(d.seen) > before {
				quiet = 0
			}
			if dumpErr != nil || d.whole || quiet == listQuiet || len(d.seen) >= listSeen {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
		}
	}()
	var err error
	for b := range batches {
		if err == nil {
			if err = s.listBatch(b, fn); err != nil {
				end() // and the rest is drained
			}
		}
	}
	if err != nil {
		return err
	}
	return dumpErr
}

// listBatch fetches the items and calls fn for each that is there.
func (s *server) listBatch(b []listed, fn func(listed, item, uint64) error) error {
	deadline := s.cl.deadline()
	w, err := s.wire(deadline)
	if err != nil {
		return err
	}
	keys := make([]string, len(b))
	for i := range b {
		keys[i] = b[i].key
	}
	items, epoch, err := w.getWithin(0, keys, listRoom+s.itemMax(), deadline)
	if err != nil {
		return err
	}
	for i, it := range items {
		if !it.found {
			continue // it ended meanwhile
		}
		if err := fn(b[i], it, epoch); err != nil {
			return err
		}
	}
	return nil
}

// dumper sends the record keys of a server in batches.
type dumper struct {
	s    *server
	seed maphash.Seed
	seen map[uint64]struct{} // hashes of keys; a key that is taken for another's shows in the next listing

	whole  bool // the last dump has missed nothing
	noHash bool // the server cannot dump by its hash table
}

// isNew notes a key.
func (d *dumper) isNew(key string) bool {
	if len(d.seen) >= listSeen {
		return true
	}
	h := maphash.String(d.seed, key)
	if _, ok := d.seen[h]; ok {
		return false
	}
	d.seen[h] = struct{}{}
	return true
}

// dump makes one dump, and waits for its turn while somebody else makes one.
func (d *dumper) dump(ctx context.Context, batches chan<- []listed) error {
	s, start := d.s, time.Now()
	for {
		busy, err := d.dumpOnce(ctx, batches)
		if err != nil || !busy {
			return err
		}
		if time.Since(start) > 5*s.cl.timeout() {
			return s.fail(errors.New("its item crawler is busy with another listing"))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(listBusy):
		}
	}
}

func (d *dumper) dumpOnce(ctx context.Context, batches chan<- []listed) (busy bool, err error) {
	s := d.s
	deadline := s.cl.deadline()
	if _, err := s.ready(deadline); err != nil {
		return false, err
	}
	if how := s.secured.Load(); how != nil && how.login == loginSASL {
		return false, fmt.Errorf("%s: %w: it cannot list its keys, since it was started with -S: the binary protocol has no command for that; use -Y, and TLS", s.label, sessfs.ErrNotSupported)
	}
	dialing, end := context.WithDeadline(ctx, deadline)
	defer end()
	p, err := s.plain(dialing)
	if err != nil {
		return false, s.fail(err)
	}
	defer p.nc.Close()
	defer context.AfterFunc(ctx, func() { p.nc.Close() })()
	s.trips.Add(1)
	figures, err := p.stats("")
	if err != nil {
		return false, s.fail(err)
	}
	items := number(figures, "curr_items")
	most := int(min(2*min(items, dumpMost)+dumpSlack, dumpMost))
	what := "all"
	if items <= listFew && number(figures, "hash_power_level") <= listHash && !d.noHash {
		what = "hash"
	}
	if err := p.send("lru_crawler metadump %s\r\n", what); err != nil {
		return false, s.fail(err)
	}
	p.r = bufio.NewReaderSize(p.r, 256<<10)
	var batch []listed
	var bytes int64
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		select {
		case batches <- batch:
			batch, bytes = nil, 0
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	keys := 0
	for n := 0; ; n++ {
		if n%1024 == 0 {
			p.nc.SetDeadline(s.cl.deadline()) // of this stretch: a listing may take long, silence may not
		}
		l, err := p.line()
		if err != nil {
			if ctx.Err() != nil {
				return false, ctx.Err()
			}
			return false, s.fail(fmt.Errorf("metadump: %w", err))
		}
		switch {
		case n > most:
			return false, s.fail(fmt.Errorf("%w: a metadump without end: %d keys of %s items", errSurprise, n, figures["curr_items"]))
		case strings.HasPrefix(l, "key="):
			keys++
		case l == "END":
			if what == "hash" {
				d.whole = keys > 0 || items == 0
				d.noHash = !d.whole // a table that grows is not walked, or all items have just ended
			}
			return false, flush()
		case l == "OK" && n == 0:
			continue
		case strings.HasPrefix(l, "BUSY") && n == 0:
			return true, nil
		case n == 0 && what == "hash": // an old one cannot; or it does not list at all
			d.noHash = true
			return true, nil
		case n == 0:
			return false, fmt.Errorf("%s: %w: it refuses to list its keys (%.60q to lru_crawler metadump); use memcached with its crawler on (-o lru_crawler, the default)",
				s.label, sessfs.ErrNotSupported, l)
		default:
			return false, s.fail(fmt.Errorf("%w: %.40q in a metadump", errSurprise, l))
		}
		e, ok := parseDump(l)
		if !ok || !s.isRecordKey(e.key) || !d.isNew(e.key) {
			continue
		}
		if len(batch) == listKeys || (len(batch) > 0 && bytes+e.size > listBytes) {
			if err := flush(); err != nil {
				return false, err
			}
			p.nc.SetDeadline(s.cl.deadline())
		}
		batch = append(batch, e)
		bytes += e.size
	}
}

// parseDump takes "key=… exp=… la=… cas=… fetch=… cls=… size=…" apart; exp is -1 for never.
func parseDump(line string) (listed, bool) {
	var e listed
	for f := range strings.FieldsSeq(line) {
		name, value, _ := strings.Cut(f, "=")
		switch name {
		case "key":
			key, err := url.PathUnescape(value)
			if err != nil || len(key) > maxKey || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
				return e, false
			}
			e.key = key
		case "exp":
			if n, err := strconv.ParseInt(value, 10, 64); err == nil && n > 0 && tellable(time.Unix(n, 0)) {
				e.expires = time.Unix(n, 0)
			}
		case "size":
			if n, err := strconv.ParseInt(value, 10, 64); err == nil && n >= 0 {
				e.size = n
			}
		}
	}
	return e, e.key != ""
}
