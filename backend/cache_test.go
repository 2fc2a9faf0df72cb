package backend

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"sessfs"
)

// comeBack is what PHP does with a session: it takes the lock, stores data (nil: nothing), and gives the lock back. waits is
// how many round trips that waited for.
func comeBack(t *testing.T, c *Cluster, id sessfs.ID, data []byte) (read []byte, waits uint64) {
	t.Helper()
	before := c.Waits()
	l, s := lockSoon(t, c, id)
	if data != nil {
		if _, err := c.Commit(ctx, id, s, sessfs.Attr{Mode: 0o600, Mtime: time.Now().UnixNano()}, data, l); err != nil {
			t.Fatal(err)
		}
	}
	waits = c.Waits() - before
	c.Unlock(l)
	until(t, "the lock is given back", func() bool {
		h, err := c.Locked(ctx, id)
		return err == nil && h == nil
	})
	return s.Data, waits
}

// bulky is a session that is worth keeping.
func bulky(n int) []byte { return bytes.Repeat([]byte(fmt.Sprintf("%07d,", n)), cacheAbove/8) }

// A session that comes back to a host is asked for by its cas; when another host has stored it, what that one has stored is
// served, and the session is asked for whole until it has come back again.
func TestCacheOfASessionThatComesBack(t *testing.T) {
	for name, with := range map[string]func(*testing.T, Options) Options{
		"plain":  func(_ *testing.T, o Options) Options { return o },
		"sealed": func(t *testing.T, o Options) Options { return sealed(t, o) },
	} {
		t.Run(name, func(t *testing.T) {
			_, o := servers(t, 2)
			o = with(t, o)
			a, b := open(t, o), open(t, o)
			comeBack(t, a, sid, bulky(0))
			mustRead(t, b, sid)
			calm()
			for i := 1; i <= 6; i++ {
				read, waits := comeBack(t, a, sid, bulky(i))
				if !bytes.Equal(read, bulky(i-1)) || waits != 2 {
					t.Fatalf("request %d read %.8s and waited for %d round trips", i, read, waits)
				}
			}
			if got := a.Cache(); got.Current != 2*4 || got.Changed != 0 || got.Sessions != 1 || got.Bytes < cacheAbove {
				t.Errorf("after six requests: %+v", got)
			}
			comeBack(t, b, sid, bulky(77))
			if read, waits := comeBack(t, a, sid, nil); !bytes.Equal(read, bulky(77)) || waits != 2 {
				t.Errorf("after another host has stored it %.8s is read, in %d round trips", read, waits)
			}
			if got := a.Cache(); got.Changed == 0 {
				t.Errorf("after another host has stored it: %+v", got)
			}
			lost := a.Cache().Changed
			for i := range 6 {
				comeBack(t, b, sid, bulky(100+i))
				if read, waits := comeBack(t, a, sid, bulky(200+i)); !bytes.Equal(read, bulky(100+i)) || waits != 2 {
					t.Fatalf("with two hosts in turn %.8s is read, in %d round trips", read, waits)
				}
			}
			if got := a.Cache(); got.Changed != lost {
				t.Errorf("a session that does not come back is asked for by its cas: %+v", got)
			}
		})
	}
}

// A server that lost its copy gets it from what is kept.
func TestCacheMends(t *testing.T) {
	for _, seal := range []bool{false, true} {
		mem, o := servers(t, 2)
		if seal {
			o = sealed(t, o)
		}
		c := open(t, o)
		for i := range 6 {
			comeBack(t, c, sid, bulky(i))
		}
		before := c.Cache().Current
		mem[1].raw("delete %s\r\n", c.servers()[1].key(c.place(sid).data))
		if read, _ := comeBack(t, c, sid, nil); !bytes.Equal(read, bulky(5)) {
			t.Errorf("%.8s is read", read)
		}
		if got := c.Cache().Current; got != before+1 || c.mended.Load() == 0 {
			t.Errorf("sealed %t: %d questions, %d copies mended", seal, got-before, c.mended.Load())
		}
		if n := copiesOf(t, o, sid); n != 2 {
			t.Errorf("sealed %t: %d copies", seal, n)
		}
	}
}

// One server still has what is kept, another a newer version, of a host that did not reach the first.
func TestCacheOfAnOlderCopy(t *testing.T) {
	for _, size := range []int{20_000, 1_500_000} {
		_, o := servers(t, 2)
		c := open(t, o)
		for i := range 6 {
			comeBack(t, c, sid, bytes.Repeat([]byte{byte('a' + i)}, size))
		}
		newer := bytes.Repeat([]byte("z"), size)
		comeBack(t, open(t, without(t, o, 0)), sid, newer)
		if read, _ := comeBack(t, c, sid, nil); !bytes.Equal(read, newer) {
			t.Errorf("%d bytes: %.8q is read", size, read)
		}
		if got := c.Cache(); got.Changed == 0 || got.Current < 4 {
			t.Errorf("%d bytes: %+v", size, got)
		}
	}
}

// While another host has the lock a session is asked for by its cas no more than once in vain.
func TestCacheWhileSomebodyElseHasTheLock(t *testing.T) {
	_, o := servers(t, 2)
	a, b := open(t, o), open(t, o)
	for i := range 6 {
		comeBack(t, a, sid, bulky(i))
	}
	l, s := lockSoon(t, b, sid)
	mustCommit(t, b, sid, s, string(bulky(7)), l)
	for range 5 {
		if l, s, err := a.TryLock(ctx, sid, holder); l != nil || err != nil || !bytes.Equal(s.Data, bulky(7)) {
			t.Fatal(l, err)
		}
	}
	if got := a.Cache().Changed; got != 2 {
		t.Errorf("%d questions in vain, on two servers", got)
	}
	b.Unlock(l)
}

func mustStats(t *testing.T, c *Cluster) map[string]string {
	t.Helper()
	m, err := c.servers()[0].stats(ctx, c.deadline())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Of a session in parts the parts are not fetched again, while they are what they were.
func TestCacheOfParts(t *testing.T) {
	m := startMemcached(t, "-m", "256")
	o := sealed(t, testOptions(m.socket))
	c := open(t, o)
	data := bytes.Repeat([]byte("0123456789abcdef"), 100_000)
	store := func(i int) {
		data[0] = byte('0' + i)
		comeBack(t, c, sid, bytes.Clone(data))
	}
	for i := range 6 {
		store(i)
	}
	calm()
	sent := func() uint64 { return number(mustStats(t, c), "bytes_written") }
	before := sent()
	read, waits := comeBack(t, c, sid, nil)
	if !bytes.Equal(read, data) || waits != 1 {
		t.Errorf("%d bytes are read in %d round trips", len(read), waits)
	}
	if n := sent() - before; n > 100_000 {
		t.Errorf("the server sent %d bytes", n)
	}
	// Fetched parts are known as well as stored ones.
	other := open(t, o)
	for range 4 {
		comeBack(t, other, sid, nil)
	}
	calm()
	before = sent()
	if read, waits := comeBack(t, other, sid, nil); !bytes.Equal(read, data) || waits != 1 || sent()-before > 100_000 {
		t.Errorf("another host reads %d bytes in %d round trips", len(read), waits)
	}

	s := mustRead(t, c, sid)
	key := chunkKeys(c.prefix, s.Version.Nonce, 2)[1]
	w := c.servers()[0].connected()
	items, _, err := w.get(0, []string{key}, c.deadline())
	if err != nil || !items[0].found {
		t.Fatal(items, err)
	}
	items[0].value[500_000] ^= 1
	if out, err := w.set(0, []keyValue{{key, items[0].value}}, 60, c.deadline()); err != nil || out.code != codeStored {
		t.Fatal(out, err)
	}
	if l, _, err := c.TryLock(ctx, sid, holder); l != nil || !errors.Is(err, sessfs.ErrDamaged) {
		t.Errorf("an altered part: %v, %v", l, err)
	}
	m.raw("delete %s\r\n", c.servers()[0].key(key))
	if l, _, err := other.TryLock(ctx, sid, holder); l != nil || !errors.Is(err, sessfs.ErrDamaged) {
		t.Errorf("a lost part: %v, %v", l, err)
	}
}

// What is altered on a server is found, whatever is kept; so is what was deleted.
func TestCacheSeesWhatOthersDo(t *testing.T) {
	m := startMemcached(t, "-m", "64")
	o := sealed(t, testOptions(m.socket))
	c := open(t, o)
	for i := range 6 {
		comeBack(t, c, sid, bulky(i))
	}
	w, at := c.servers()[0].connected(), c.place(sid).data
	put := func(value []byte) {
		t.Helper()
		if out, err := w.set(0, []keyValue{{at, value}}, 60, c.deadline()); err != nil || out.code != codeStored {
			t.Fatal(out, err)
		}
	}
	items, _, err := w.get(0, []string{at}, c.deadline())
	if err != nil || !items[0].found {
		t.Fatal(items, err)
	}
	old := items[0].value
	old[len(old)/2] ^= 1
	put(old)
	if l, _, err := c.TryLock(ctx, sid, holder); l != nil || !errors.Is(err, sessfs.ErrDamaged) {
		t.Errorf("an altered session: %v, %v", l, err)
	}
	old[len(old)/2] ^= 1
	put(old)
	if read, _ := comeBack(t, c, sid, nil); !bytes.Equal(read, bulky(5)) {
		t.Errorf("%.8s is read", read)
	}
	comeBack(t, c, sid, old[:cacheAbove])
	for range 3 {
		comeBack(t, c, sid, nil)
	}
	before := c.Cache().Current
	comeBack(t, c, sid, nil)
	if c.Cache().Current == before {
		t.Error("the session is not asked for by its cas again")
	}
	if _, _, err := c.Destroy(ctx, sid); err != nil || c.Cache().Sessions != 0 {
		t.Errorf("destroyed here: %v, %+v", err, c.Cache())
	}
	for range 4 {
		comeBack(t, c, sid, bulky(1))
	}
	m.raw("delete %s\r\n", c.servers()[0].key(at))
	if read, waits := comeBack(t, c, sid, nil); len(read) != 0 || waits != 1 {
		t.Errorf("a deleted session: %.8s is read in %d round trips", read, waits)
	}
}

// A server with the classic commands cannot be asked like that, and nothing is kept for it.
func TestCacheAndClassicServers(t *testing.T) {
	o := testOptions(startMemcached(t, "-m", "64").socket)
	o.ForceClassic = true
	c := open(t, o)
	for i := range 6 {
		comeBack(t, c, sid, bulky(i))
	}
	if got := c.Cache(); got.Bytes > 4096 {
		t.Errorf("%+v", got)
	}
}

// Other keys do not open what the old ones have opened.
func TestCacheForgetsWithItsKeys(t *testing.T) {
	m := startMemcached(t, "-m", "64")
	o := sealed(t, testOptions(m.socket))
	c := open(t, o)
	for i := range 6 {
		comeBack(t, c, sid, bulky(i))
	}
	if got := c.Cache(); got.Sessions != 1 {
		t.Errorf("six requests: %+v", got)
	}
	if err := c.SetSeal(&Seal{Keys: []*SealKey{sealKey(t, "k2", o.Seal.Keys[0])}}); err != nil {
		t.Fatal(err)
	}
	if got := c.Cache(); got.Sessions != 0 {
		t.Errorf("with other keys: %+v", got)
	}
}

// The memory is bounded, and is given back.
func TestCacheIsBounded(t *testing.T) {
	c := open(t, testOptions(startMemcached(t, "-m", "256").socket))
	for round := range 5 {
		for _, id := range many(600) {
			comeBack(t, c, id, append(bulky(round), strings.Repeat("x", 20_000)...))
		}
	}
	if got := c.Cache(); got.Bytes > 16<<20 || got.Bytes < 8<<20 {
		t.Errorf("600 sessions of 36 kB: %+v", got)
	}
	m := &c.cache
	bytes := int64(0)
	for _, e := range m.entries {
		bytes += cacheEntry
		if k := e.Value.(*cacheItem).kept; k != nil {
			bytes += int64(cap(k.data))
		}
	}
	if bytes != m.bytes || m.order.Len() != len(m.entries) {
		t.Errorf("%d bytes are counted, %d are there; %d entries, %d in the order", m.bytes, bytes, len(m.entries), m.order.Len())
	}
	s := *c.settings.Load()
	s.Memory = 1 << 20
	c.Reconfigure(s)
	if got := c.Cache(); got.Bytes > 1<<20 || got.Bytes < 1<<19 {
		t.Errorf("with 1 MiB: %+v", got)
	}
	comeBack(t, c, many(1)[0], []byte("small now"))
	c.cache.forget(time.Now().Add(-time.Hour))
	if got := c.Cache(); got.Sessions == 0 {
		t.Error("sessions in use were forgotten")
	}
	c.cache.forget(time.Now())
	if got := c.Cache(); got.Sessions != 0 || got.Bytes != 0 {
		t.Errorf("all is forgotten: %+v", got)
	}
	s.Memory = 0
	c.Reconfigure(s)
	for range 6 {
		comeBack(t, c, sid, bulky(1))
	}
	if got := c.Cache(); got.Sessions != 0 || got.Bytes != 0 {
		t.Errorf("without memory: %+v", got)
	}
}
