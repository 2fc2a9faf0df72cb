package doctor

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"sessfs"
	"sessfs/backend"
	"sessfs/config"
)

const (
	// clockSlack is how far two clocks may be apart: a server tells whole seconds, and is up to a second behind.
	clockSlack = 3 * time.Second
	// fullAt is the part of its memory or of its connections that a server should not use more of, in percent.
	fullAt = 90
)

func checkServers(f *Facts) (all []Finding) {
	if len(f.Config.Cache.Servers) == 0 {
		return []Finding{f.inConfig(Finding{Code: "servers-none", Severity: Warning, Subject: "the configuration", What: "names no cache servers",
			Why: "sessions are kept in the daemon, for this host alone, and end with it"}, "cache.servers", `[{name: cache1, address: "10.0.0.11:11211"}]`)}
	}
	all = checkList(f)
	for i := range f.Servers {
		e := &f.Servers[i]
		if e.Err != nil {
			all = append(all, f.unusable(e))
			continue
		}
		all = append(all, f.checkMemory(e)...)
		all = append(all, f.checkServer(e)...)
	}
	return all
}

// server begins a finding.
func server(e *backend.Examination, code string, s Severity, format string, args ...any) Finding {
	subject := "cache server " + e.Server.Name
	if e.Server.Name != e.Server.Address && e.Server.Name != "unix:"+e.Server.Address {
		subject += " (" + e.Server.Address + ")"
	}
	return Finding{Code: code, Severity: s, Subject: subject, What: fmt.Sprintf(format, args...)}
}

func (f *Facts) unusable(e *backend.Examination) Finding {
	g := server(e, "server-unreachable", Error, "cannot be used from here: %v", e.Err)
	g.Why = "sessions on it fail, or have a copy less"
	g.Do = "start it; or correct its address; or let this host through its firewall"
	var refusal *backend.Refusal
	switch {
	case errors.As(e.Err, &refusal):
		cure := cures[refusal.Kind]
		g.Code, g.Do = cure.Code, cure.Do
	case errors.Is(e.Err, sessfs.ErrNotSupported):
		g.Code, g.Do = "server-no-cas", "start it without -C; or use memcached in its place"
	case strings.Contains(e.Err.Error(), "does not speak memcached"):
		g.Code, g.Do = "server-protocol", "correct its address: something else listens there"
	}
	return g
}

// cures are what to do where a server and this host do not trust each other.
var cures = map[backend.RefusalKind]Finding{
	backend.RefusedLogin:       {Code: "server-login", Do: "name user and password_file under cache.auth (or start it without -Y and -S, on a private network)"},
	backend.RefusedPassword:    {Code: "server-password", Do: "make cache.auth, the password in its password_file, and the server's own file the same"},
	backend.RefusedCertificate: {Code: "server-certificate", Do: "give the server a certificate that is signed by cache.tls.ca, in time, and has the name of its address (or cache.tls.server_name)"},
	backend.RefusedClient:      {Code: "server-client-certificate", Do: "name a certificate under cache.tls.cert and key that the server's ssl_ca_cert has signed and that has not expired"},
	backend.RefusedTLS:         {Code: "server-tls", Do: "use TLS on both sides (cache.tls here, -Z there), or on neither; see cache.tls.min_version"},
}

// checkList looks at the list as a whole.
func checkList(f *Facts) (all []Finding) {
	c := f.Config.Cache
	switch n := len(c.Servers); {
	case n == 1:
		all = append(all, f.inConfig(Finding{Code: "servers-one", Severity: Note, Subject: "the list of servers", What: "has one",
			Why: "when it is down no session works, and when it is restarted all are gone"}, "cache.servers", "name a second and a third"))
	case c.Replicas == 1:
		all = append(all, f.inConfig(Finding{Code: "servers-replicas", Severity: Note, Subject: "the list of servers",
			What: fmt.Sprintf("has %d, and each session is on one of them (replicas: 1)", n),
			Why:  "when one of them is restarted its sessions are gone"}, "cache.replicas", "2"))
	case n == 2 && c.Quorum == config.QuorumAny:
		all = append(all, f.inConfig(Finding{Code: "servers-two", Severity: Note, Subject: "the list of servers", What: "has two, and quorum is any",
			Why: "hosts that each reach another one of the two go on separately; a third server, or quorum: majority, closes that"}, "cache.quorum", "majority"))
	}
	for i := range f.Servers {
		for _, other := range f.Servers[i].SameAs {
			if other < f.Servers[i].Server.Name {
				continue // it is said once
			}
			g := server(&f.Servers[i], "servers-same", Error, "is the same server as %s, by another address", other)
			g.Why = "copies that should be on two servers are on one, and end with it"
			all = append(all, f.inConfig(g, "cache.servers", "name each server once"))
		}
	}
	return all
}

func number(m map[string]string, key string) int64 {
	n, _ := strconv.ParseInt(m[key], 10, 64)
	return n
}

func uptime(e *backend.Examination) time.Duration {
	return time.Duration(min(max(number(e.Stats, "uptime"), 0), maxSeconds)) * time.Second
}

// checkMemory: an evicted session is a visitor logged out.
func (f *Facts) checkMemory(e *backend.Examination) (all []Finding) {
	limit, used := number(e.Stats, "limit_maxbytes"), number(e.Stats, "bytes")
	more := "give it more memory: -m " + strconv.FormatInt(max(64, limit>>19), 10) + " or more (Debian: /etc/memcached.conf, RHEL: CACHESIZE in /etc/sysconfig/memcached)"
	switch evictions := number(e.Stats, "evictions"); {
	case evictions > 0:
		g := server(e, "server-evictions", Warning, "has thrown %d items out for want of memory in the %s since it was started", evictions, roughly(uptime(e)))
		g.Why = "where these were live sessions, visitors were logged out"
		if age, ok := evictedAge(e.Items); ok && age < f.Config.Session.Lifetime {
			g.Severity = Error
			g.What += fmt.Sprintf("; the last ones had been used %s before, and session.lifetime is %s", roughly(age), short(f.Config.Session.Lifetime))
			g.Why = "they were live sessions: visitors were logged out"
		}
		g.Do = more
		all = append(all, g)
	case limit > 0 && used > limit/100*fullAt:
		g := server(e, "server-memory", Warning, "uses %d of its %d MiB", used>>20, limit>>20)
		g.Why, g.Do = "when they are used up it throws live sessions out", more
		all = append(all, g)
	}
	if e.Settings["evictions"] == "off" {
		g := server(e, "server-no-evictions", Note, "refuses to store when its memory is full (-M)")
		g.Why = "no session is lost then, and no new one can be stored"
		all = append(all, g)
	}
	if size := number(e.Settings, "item_size_max"); size > 0 && size < f.Config.Session.MaxSize {
		g := server(e, "server-item-size", Note, "takes items of %d KiB, and session.max_size is %d KiB", size>>10, f.Config.Session.MaxSize>>10)
		g.Why = "larger sessions are stored in parts, which costs more round trips"
		g.Do = "if there are many of them: start it with -I " + strconv.FormatInt((f.Config.Session.MaxSize>>20)+1, 10) + "m"
		all = append(all, g)
	}
	if number(e.Stats, "limit_maxbytes") > 0 && e.Settings["slab_reassign"] == "no" {
		g := server(e, "server-slabs", Note, "does not move memory between sizes of items (slab_reassign is off)")
		g.Why, g.Do = "when sessions grow it throws some out although there is memory", "start it with -o slab_reassign,slab_automove"
		all = append(all, g)
	}
	return all
}

// evictedAge is how long ago the last item was used that was thrown out, at the least of all sizes.
func evictedAge(items map[string]string) (least time.Duration, ok bool) {
	for key := range items {
		class, isEvicted := strings.CutSuffix(key, ":evicted")
		if !isEvicted || number(items, key) == 0 {
			continue
		}
		age := time.Duration(min(max(number(items, class+":evicted_time"), 0), maxSeconds)) * time.Second
		if !ok || age < least {
			least, ok = age, true
		}
	}
	return least, ok
}

// roughly is a duration for people.
func roughly(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return quantity(int(d/(24*time.Hour)), "day")
	case d >= 2*time.Hour:
		return quantity(int(d/time.Hour), "hour")
	case d >= 2*time.Minute:
		return quantity(int(d/time.Minute), "minute")
	}
	return quantity(int(d/time.Second), "second")
}

// checkServer is all else of one server.
func (f *Facts) checkServer(e *backend.Examination) (all []Finding) {
	add := func(g Finding, why, do string) {
		g.Why, g.Do = why, do
		all = append(all, g)
	}
	if trip := e.RoundTrip; trip > f.Config.Cache.Timeout/10 {
		add(server(e, "server-slow", Warning, "answers in %v, and cache.timeout is %v", trip.Round(time.Millisecond), f.Config.Cache.Timeout),
			"every request of PHP waits for two round trips; not much more, and it counts as down", "look at the network, and at what else runs there")
	}
	restarted, noticed := f.Daemon.Restarted[e.Server.Name]
	switch {
	case noticed && f.Now.Sub(restarted) < f.Config.Session.Lifetime:
		add(server(e, "server-restarted", Warning, "was restarted: this host's daemon noticed it %s ago; it came back empty", roughly(f.Now.Sub(restarted))),
			"sessions that were on it alone are gone; with copies on other servers it is filled again by and by", "see in sessfs status that nothing is left to mend; look why it ended")
	case uptime(e) >= f.Config.Session.Lifetime:
	default:
		add(server(e, "server-young", Note, "was started %s ago, less than a session's lifetime", roughly(uptime(e))), "it began empty", "")
	}
	if !e.Meta {
		add(server(e, "server-classic", Note, "(version %s) has no meta commands that work", e.Version),
			"it is used by the older commands, which cost more round trips and a second of clean-up", "use memcached 1.6.13 or newer")
	}
	switch {
	case e.Login == "sasl":
		add(server(e, "server-no-listing", Warning, "does not list its keys: it was started with -S, and its binary protocol has no command for that"),
			"sessfs ls, export and rebalance fail, and so does the copying back to a server that was restarted", "start it with -Y instead, and with TLS")
	case e.Settings["lru_crawler"] == "no":
		add(server(e, "server-no-listing", Warning, "does not list its keys (-o no_lru_crawler)"),
			"sessfs ls, export and rebalance fail, and so does the copying back to a server that was restarted", "start it without no_lru_crawler")
	}
	if n, limit := number(e.Stats, "curr_connections"), number(e.Settings, "maxconns"); limit > 0 && (n*100 > limit*fullAt || number(e.Stats, "listen_disabled_num") > 0) {
		add(server(e, "server-connections", Warning, "has %d of %d connections, and had to refuse new ones %d times", n, limit, number(e.Stats, "listen_disabled_num")),
			"hosts that connect wait, and take it for down", fmt.Sprintf("start it with -c %d", 4*limit))
	}
	if s := number(e.Settings, "idle_timeout"); s > 0 {
		add(server(e, "server-idle-timeout", Note, "closes connections that were quiet for %d seconds", s),
			"the request after that connects again, which costs it two round trips", "start it without -o idle_timeout")
	}
	if f.Config.Cache.Auth != nil && e.Login == "" {
		add(server(e, "server-no-login", Warning, "wants no login, and cache.auth is set"),
			"whoever reaches it can read and change every session", "start it with -Y, and the same user and password")
	}
	if ip, err := netip.ParseAddrPort(e.Remote); err == nil && isPublic(ip.Addr()) && e.Login == "" {
		add(server(e, "server-public", Warning, "has a public address, %s, and wants no login", ip.Addr()),
			"whoever reaches it can read and change every session", "keep it on a private network, or behind a firewall")
	}
	if stored := e.Stats["time"]; stored != "" && !e.Asked.IsZero() {
		if off := e.Asked.Sub(time.Unix(number(e.Stats, "time"), 0)); off > clockSlack || off < -clockSlack {
			way := "behind"
			if off < 0 {
				way, off = "ahead of", -off
			}
			add(server(e, "server-clock", Warning, "has a clock that is %s %s this host's", roughly(off), way),
				"times of sessions are those of the hosts that write them: hosts with other clocks delete each other's sessions early, or keep them",
				"let NTP set both clocks (timedatectl)")
		}
	}
	return all
}

func isPublic(a netip.Addr) bool {
	a = a.Unmap()
	return a.IsGlobalUnicast() && !a.IsPrivate() && !sharedSpace.Contains(a)
}

// sharedSpace is that of carriers and clouds (RFC 6598).
var sharedSpace = netip.MustParsePrefix("100.64.0.0/10")
