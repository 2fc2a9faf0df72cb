package backend

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"
)

// Examination is what one server showed to somebody who looked at it from outside of a daemon, on a connection of its own.
type Examination struct {
	Server Server
	Err    error // why it cannot be used; the fields below are what it told before that

	Remote    string        // the address that was connected to, resolved
	Connect   time.Duration // until the connection stood
	RoundTrip time.Duration // the shortest of three
	Version   string
	Meta      bool              // it has the meta commands
	Stats     map[string]string // stats
	Settings  map[string]string // stats settings
	Items     map[string]string // stats items
	Asked     time.Time         // when Stats was answered, by this host's clock
	Hosts     []HostRecord      // that are in its register, those that are gone left out
	HostsErr  error             // what is wrong with the register
	Lists     []ServerList      // in its history of lists
	ListsErr  error             // what is wrong with the history
	SameAs    []string          // names of other servers that are this one by another address
	TLS       string            // its version; "": none
	Login     string            // as in sessfs.ServerStatus
}

// ServerList is a list of servers that a host has lately had.
type ServerList struct {
	Digest  string   // as in HostRecord.List
	Servers []string // their names, with "*weight" where that is not 1
}

// Examine looks at every server of a list, all at once, each within o.Timeout. It stores nothing that stays.
func Examine(ctx context.Context, o Options) []Examination {
	c := &Cluster{prefix: o.Prefix, forceClassic: o.ForceClassic, log: slog.New(slog.DiscardHandler)}
	c.guard.Store(newGuard(o.Secure, c.log))
	c.Reconfigure(Settings{Timeout: o.Timeout})
	c.setSeal(o.Seal) // keys that cannot be used together are refused before
	c.ctx, c.end = context.WithCancel(ctx)
	defer c.running.Wait()
	defer c.end()
	all := make([]Examination, len(o.Servers))
	visits := make([]*visit, len(o.Servers))
	var wg sync.WaitGroup
	for i, sv := range o.Servers {
		sv.Network, sv.Name = cmp.Or(sv.Network, "tcp"), cmp.Or(sv.Name, sv.Address)
		all[i].Server = sv
		visits[i] = &visit{s: c.newServer(sv, nil), e: &all[i], mark: c.prefix + probeMark + rand.Text()}
		wg.Go(func() { visits[i].look(ctx) })
	}
	wg.Wait()
	// Each server was left a mark: whoever finds another's mark is that server too.
	for _, v := range visits {
		wg.Go(func() { v.compare(visits) })
	}
	wg.Wait()
	for _, v := range visits {
		v.leave()
	}
	return all
}

// Digest is what HostRecord.List and HostRecord.Addresses are for a list of servers.
func Digest(servers []Server, replicas int) (list, addresses string) {
	v := listOfServers(servers, replicas)
	return digest(v.identity()), digest(v.addresses())
}

func listOfServers(servers []Server, replicas int) list {
	l := list{Replicas: replicas}
	for _, s := range servers {
		l.Servers = append(l.Servers, listServer{Name: cmp.Or(s.Name, s.Address), Network: cmp.Or(s.Network, "tcp"), Address: s.Address, Weight: max(1, s.Weight)})
	}
	return newHistory([]list{l})[0]
}

// visit is one connection to a server.
type visit struct {
	s    *server
	e    *Examination
	p    *plainConn // nil: it does not answer
	mark string     // a key that was stored there; "": none
}

// look asks the server for everything.
func (v *visit) look(ctx context.Context) {
	if err := v.ask(ctx); err != nil {
		v.e.Err, v.mark = plainError(err), ""
		v.leave()
	}
}

func (v *visit) ask(ctx context.Context) error {
	e := v.e
	deadline := v.s.cl.deadline()
	ctx, end := context.WithDeadline(ctx, deadline)
	defer end()
	begun := time.Now()
	p, err := v.s.plain(ctx)
	if err != nil {
		return err
	}
	v.p = p
	e.Connect, e.Remote = time.Since(begun), p.nc.RemoteAddr().String()
	if how := v.s.secured.Load(); how != nil {
		e.TLS, e.Login = how.tls, how.login
	}
	if e.Version, e.RoundTrip, err = p.version(); err != nil {
		return v.s.cl.guard.Load().explainFirst(err)
	}
	for _, ask := range []struct {
		what string
		into *map[string]string
	}{{" settings", &e.Settings}, {" items", &e.Items}, {"", &e.Stats}} {
		if *ask.into, err = p.stats(ask.what); err != nil {
			return err
		}
	}
	e.Asked = time.Now()
	if e.Meta, err = v.tryCommands(ctx); err != nil {
		return err
	}
	if err := v.readRecords(); err != nil {
		return err
	}
	if err := p.send("add %s 0 30 1\r\nx\r\n", v.mark); err != nil {
		return err
	}
	l, err := p.line()
	if err == nil && l != "STORED" {
		err = fmt.Errorf("it does not store: %.80q", l)
	}
	return err
}

// version also measures.
func (p *plainConn) version() (version string, trip time.Duration, err error) {
	for i := range 3 {
		begun := time.Now()
		if err := p.send("version\r\n"); err != nil {
			return "", 0, err
		}
		l, err := p.line()
		if err != nil {
			return "", 0, err
		}
		if t := time.Since(begun); i == 0 || t < trip {
			trip = t
		}
		if version, err = versionOf(l); err != nil {
			return "", 0, err
		}
	}
	return version, trip, nil
}

// tryCommands tries the meta commands as the daemon does, on a connection that is thrown away, and without them the
// classic ones: the error may be that compare-and-swap does not work (sessfs.ErrNotSupported).
func (v *visit) tryCommands(ctx context.Context) (meta bool, err error) {
	if !v.s.cl.forceClassic {
		p, err := v.s.plain(ctx)
		if err != nil {
			return false, err
		}
		defer p.nc.Close()
		if meta, _, err = p.tryMeta(v.mark + "m"); err != nil && !errors.Is(err, errClosed) || meta {
			return meta, err
		}
	}
	w := newClassic(v.s, defaultItemMax)
	defer w.close()
	return false, w.try(v.mark+"c", time.Until(deadlineOf(ctx)))
}

// readRecords reads what the daemons have left there.
func (v *visit) readRecords() error {
	e := v.e
	b, err := v.p.value(hostsKey, maxHostsSize)
	if err != nil {
		return err
	}
	var all []HostRecord
	all, e.HostsErr = decodeHosts(b)
	now := e.Asked
	if n, err := strconv.ParseInt(e.Stats["time"], 10, 64); err == nil {
		now = time.Unix(n, 0)
	}
	for _, h := range all {
		if !h.gone(now) {
			e.Hosts = append(e.Hosts, h)
		}
	}
	if b, err = v.p.value(v.s.cl.prefix+listsMark, maxListsSize+sealOverhead); err != nil || b == nil {
		return err
	}
	var lists history
	if b, _, e.ListsErr = v.s.openDocument(b); e.ListsErr == nil {
		lists, e.ListsErr = decodeHistory(b)
	}
	for _, l := range lists {
		out := ServerList{Digest: digest(l.identity())}
		for _, s := range l.Servers {
			name := s.Name
			if s.Weight != 1 {
				name += "*" + strconv.Itoa(s.Weight)
			}
			out.Servers = append(out.Servers, name)
		}
		e.Lists = append(e.Lists, out)
	}
	return nil
}

// compare looks for the marks of the other servers. Who fails now was well a moment ago: nothing is said of it.
func (v *visit) compare(all []*visit) {
	if v.p == nil {
		return
	}
	v.p.nc.SetDeadline(v.s.cl.deadline())
	for _, other := range all {
		if other == v || other.mark == "" {
			continue
		}
		b, err := v.p.value(other.mark, 1)
		if err != nil {
			return
		}
		if b != nil {
			v.e.SameAs = append(v.e.SameAs, other.e.Server.Name)
		}
	}
}

func (v *visit) leave() {
	if v.p == nil {
		return
	}
	if v.mark != "" {
		v.p.nc.SetDeadline(v.s.cl.deadline())
		if v.p.send("delete %s\r\n", v.mark) == nil {
			v.p.line() // it ends within 30 s anyway
		}
	}
	v.p.nc.Close()
	v.p = nil
}
