package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"sessfs/backend"
)

// checkHosts compares this host's configuration with what the hosts on the same servers have told of themselves. What they
// told may be forged by whoever reaches the servers: it is shown, and changes nothing.
func checkHosts(f *Facts) (all []Finding) {
	if len(f.Config.Cache.Servers) == 0 {
		return nil
	}
	for i := range f.Servers {
		e := &f.Servers[i]
		for _, err := range []error{e.HostsErr, e.ListsErr} {
			if err != nil {
				g := server(e, "hosts-damaged", Warning, "has a damaged record of sessfs: %s", strings.ReplaceAll(err.Error(), "\n", "; "))
				g.Why = "another program writes there, or somebody who should not; the daemons replace it within five minutes"
				g.Do = "find out who else uses this server"
				all = append(all, g)
			}
		}
	}
	if len(f.Servers) > 0 && !slices.ContainsFunc(f.Servers, func(e backend.Examination) bool { return e.Err == nil }) {
		return all // none could be asked
	}
	own := f.ownRecord()
	hosts := f.hosts()
	var mates, others []backend.HostRecord
	for _, h := range hosts {
		switch {
		case h.ID == f.HostID:
			all = append(all, f.checkOwn(h, own)...)
		case h.Prefix == own.Prefix:
			mates = append(mates, h)
		default:
			others = append(others, h)
		}
	}
	for _, h := range mates {
		all = append(all, f.checkMate(h, own)...)
	}
	all = append(all, f.checkStrangers(others, own, len(mates))...)
	return append(all, f.checkClocks(hosts)...)
}

// hosts are those on any of the servers; of several records of a mount the newest counts.
func (f *Facts) hosts() (all []backend.HostRecord) {
	for _, e := range f.Servers {
		all = append(all, e.Hosts...)
	}
	slices.SortFunc(all, func(a, b backend.HostRecord) int {
		return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.ID, b.ID), cmp.Compare(b.Seen, a.Seen))
	})
	return slices.CompactFunc(all, func(a, b backend.HostRecord) bool { return a.ID == b.ID })
}

// ownRecord is what this host's daemon would tell with the configuration as it is.
func (f *Facts) ownRecord() backend.HostRecord {
	c := f.Config
	r := backend.HostRecord{ID: f.HostID, Mountpoint: f.Mountpoint, Prefix: c.Cache.Prefix, Servers: len(c.Cache.Servers), Replicas: c.Cache.Replicas,
		Quorum: c.Cache.Quorum, Lifetime: int64(c.Session.Lifetime / time.Second), MaxSize: c.Session.MaxSize, Lease: int64(c.Lock.Lease / time.Second),
		Keep: c.Lock.Keep.Milliseconds(), Depth: c.Depth, Owner: c.Owner}
	var list []backend.Server
	for _, s := range c.Cache.Servers {
		list = append(list, backend.Server{Name: s.Name, Network: s.Network, Address: s.Address, Weight: s.Weight})
	}
	r.List, r.Addresses = backend.Digest(list, c.Cache.Replicas)
	return r
}

func hostFinding(h backend.HostRecord, code string, s Severity, format string, args ...any) Finding {
	return Finding{Code: code, Severity: s, Subject: fmt.Sprintf("host %s (%s)", h.Host, h.Mountpoint), What: fmt.Sprintf(format, args...)}
}

// difference is a setting that hosts should have in common.
type difference struct {
	key      string
	same     bool
	severity Severity
	theirs   string
	ours     string
	value    string // for the configuration of this host, to be as there
	why      string
}

func differences(h, own backend.HostRecord) []difference {
	seconds := func(n int64) string { return short(time.Duration(min(n, maxSeconds)) * time.Second) }
	millis := func(n int64) string { return (time.Duration(min(n, maxSeconds)) * time.Millisecond).String() }
	text := func(n int64) string { return fmt.Sprint(n) }
	return []difference{
		{"session.lifetime", h.Lifetime == own.Lifetime, Error, seconds(h.Lifetime), seconds(own.Lifetime), seconds(h.Lifetime),
			"a session lives as long as the host says that it was last used on: visitors are logged out early by some"},
		{"owner", h.Owner == own.Owner, Warning, h.Owner, own.Owner, h.Owner,
			"a session belongs to another user on some hosts: PHP refuses it there (Session data file is not created by your uid)"},
		{"cache.quorum", h.Quorum == own.Quorum || own.Servers != 2, Warning, h.Quorum, own.Quorum, h.Quorum,
			"with quorum any on one of them, hosts may go on separately while both servers run"},
		{"session.max_size", h.MaxSize == own.MaxSize, Warning, text(h.MaxSize), text(own.MaxSize), text(h.MaxSize),
			"a large session can be stored on some hosts, and not changed on others"},
		{"lock.lease", h.Lease == own.Lease, Warning, seconds(h.Lease), seconds(own.Lease), seconds(h.Lease),
			"each host reckons with its own lease when a server comes back"},
		{"lock.keep", h.Keep == own.Keep, Warning, millis(h.Keep), millis(own.Keep), millis(h.Keep),
			"the longest of them is what deleting a session may wait for"},
		{"depth", h.Depth == own.Depth, Note, text(int64(h.Depth)), text(int64(own.Depth)), text(int64(h.Depth)),
			"it makes no difference to the sessions; the hosts' PHPs need a save_path each"},
	}
}

// checkMate compares with a host that has the same sessions.
func (f *Facts) checkMate(h, own backend.HostRecord) (all []Finding) {
	if h.List != own.List {
		what := fmt.Sprintf("has another list: %s, replicas %d; here are %s, replicas %d", f.listText(h), h.Replicas, f.listText(own), own.Replicas)
		g := hostFinding(h, "hosts-list", Error, "%s", what)
		g.Why = "for longer than one session.lifetime after a change, sessions are looked for in other places than they are in, and their locks do not meet"
		g.Do = "save the same list, weights and replicas on all hosts"
		all = append(all, f.inConfig(g, "cache.servers", "the same on all hosts"))
	} else if h.Addresses != own.Addresses {
		g := hostFinding(h, "hosts-addresses", Note, "has other addresses for servers of the same names")
		g.Why = "that is well where hosts reach the same servers by different networks; else sessions are shared with nobody"
		all = append(all, f.inConfig(g, "cache.servers", "the same on all hosts"))
	}
	for _, d := range differences(h, own) {
		if d.same {
			continue
		}
		g := hostFinding(h, "hosts-differ", d.severity, "has %s: %s; here it is %s", d.key, d.theirs, d.ours)
		g.Why, g.Do = d.why, "use the same value on all hosts"
		all = append(all, f.inConfig(g, d.key, d.value))
	}
	if h.Version != f.Version {
		g := hostFinding(h, "hosts-version", Note, "runs version %s; here it is %s", h.Version, f.Version)
		g.Why = "while hosts are upgraded one by one that is as it must be"
		all = append(all, g)
	}
	return all
}

// listText names the servers of a host's list, where the servers' history of lists tells them.
func (f *Facts) listText(h backend.HostRecord) string {
	for _, e := range f.Servers {
		for _, l := range e.Lists {
			if l.Digest == h.List {
				return strings.Join(l.Servers, ", ")
			}
		}
	}
	if h.ID == f.HostID {
		var names []string
		for _, s := range f.Config.Cache.Servers {
			names = append(names, s.Name)
		}
		return strings.Join(names, ", ")
	}
	return quantity(h.Servers, "server")
}

// checkOwn compares what this host's daemon tells with the configuration file.
func (f *Facts) checkOwn(h, own backend.HostRecord) (all []Finding) {
	if f.Daemon.PID == 0 {
		return nil
	}
	var keys []string
	for _, d := range differences(h, own) {
		if !d.same {
			keys = append(keys, fmt.Sprintf("%s: %s, not %s", d.key, d.theirs, d.ours))
		}
	}
	if h.List != own.List {
		keys = append(keys, "another list of servers")
	}
	if h.Prefix != own.Prefix {
		keys = append(keys, fmt.Sprintf("cache.prefix: %q, not %q", h.Prefix, own.Prefix))
	}
	if len(keys) == 0 {
		return nil
	}
	return []Finding{{Code: "daemon-config", Severity: Warning, Subject: "the daemon", What: "runs with another configuration than the file says: " + strings.Join(keys, "; "),
		Why: "what the file says is not what happens", File: f.ConfigFile, Do: "see its log for why a change was not taken over; some keys need a remount"}}
}

// checkStrangers looks at the hosts with other prefixes. Several sites may use the same servers: then a prefix of their own
// is right. Where it is one host against the rest, and all else is equal, it is more likely a mistake.
func (f *Facts) checkStrangers(others []backend.HostRecord, own backend.HostRecord, mates int) (all []Finding) {
	sites := make(map[string][]backend.HostRecord)
	var prefixes []string
	for _, h := range others {
		if sites[h.Prefix] == nil {
			prefixes = append(prefixes, h.Prefix)
		}
		sites[h.Prefix] = append(sites[h.Prefix], h)
	}
	for _, prefix := range prefixes {
		site := sites[prefix]
		alike := slices.ContainsFunc(site, func(h backend.HostRecord) bool { return h.List == own.List && h.Mountpoint == own.Mountpoint })
		if h := site[0]; alike && (len(site) == 1 || mates == 0) {
			g := hostFinding(h, "hosts-prefix", Warning, "uses the same servers with the prefix %q; here it is %q", prefix, own.Prefix)
			if len(site) > 1 {
				g.What = fmt.Sprintf("and %s use the same servers with the prefix %q; here, and nowhere else, it is %q", quantity(len(site)-1, "other host"), prefix, own.Prefix)
			}
			g.Why = "they share no sessions with this host: visitors who come to both are logged out. Where they are another site that is right (--ignore hosts-prefix)"
			g.Do = "use the same prefix on all hosts of a site, and remount"
			all = append(all, f.inConfig(g, "cache.prefix", fmt.Sprintf("%q", prefix)))
			continue
		}
		var names []string
		for _, h := range site {
			names = append(names, h.Host)
		}
		all = append(all, Finding{Code: "hosts-other-site", Severity: Note, Subject: "the servers",
			What: fmt.Sprintf("are used by another site, too: prefix %q on %s", prefix, some(names)), Why: "it has no part in the sessions of this one, but in the memory"})
	}
	return all
}

// some names a few of many.
func some(names []string) string {
	const few = 5
	if len(names) > few+1 {
		return strings.Join(names[:few], ", ") + fmt.Sprintf(" and %d more", len(names)-few)
	}
	return strings.Join(names, ", ")
}

// checkClocks compares the hosts' clocks with this one's: each has told how far its own is ahead of the server's.
func (f *Facts) checkClocks(hosts []backend.HostRecord) (all []Finding) {
	names := make(map[string]string)
	for _, h := range hosts {
		if h.ID == f.HostID {
			continue
		}
		if other, twice := names[h.Host]; twice && other != h.Mountpoint {
			continue // two mounts of one host
		} else if twice {
			all = append(all, Finding{Code: "hosts-name", Severity: Note, Subject: "host " + h.Host, What: "is there twice, with the same mount point",
				Why: "two hosts have one name: the logs and status cannot tell who holds a lock"})
		}
		names[h.Host] = h.Mountpoint
		for _, e := range f.Servers {
			i := slices.IndexFunc(e.Hosts, func(o backend.HostRecord) bool { return o.ID == h.ID })
			if i < 0 || e.Stats["time"] == "" {
				continue
			}
			ours := e.Asked.Sub(time.Unix(number(e.Stats, "time"), 0))
			off := (time.Duration(e.Hosts[i].Ahead)*time.Millisecond - ours).Round(time.Second)
			if off.Abs() <= clockSlack {
				continue
			}
			way := "ahead of"
			if off < 0 {
				way = "behind"
			}
			g := hostFinding(h, "hosts-clock", Warning, "had a clock that was %s %s this host's, when it was last heard of", roughly(off.Abs()), way)
			g.Why, g.Do = "PHP and Debian's cleaner delete sessions by file times: early on hosts whose clock is ahead", "let NTP set the clocks of all hosts (timedatectl)"
			all = append(all, g)
			break
		}
	}
	return all
}
