package backend

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// The register of hosts: who mounts sessions of these servers, and with which settings. Hosts that share sessions must
// agree on some of them, and none can see the others' configuration files. So each daemon keeps a short record of itself
// in one JSON document on every server, for `sessfs doctor` and `sessfs status`; nothing else depends on it.
//
// Its key stands outside of all prefixes: a host with another prefix on the same servers, which sees other sessions, would
// not be found under its own. Times are those of the server that the document is on: hosts' clocks may be what is wrong.
//
// What is here is pure: no clock, no I/O. Whoever can reach a server can write there, so nothing that is read is believed
// further than that it is shown.
const (
	// hostsKey begins with a byte that no prefix and no record's key has.
	hostsKey     = "%sessfs.hosts"
	hostsFormat  = 1
	maxHosts     = 512       // in a document
	maxHostsSize = 128 << 10 // bytes of a document; half an item of the server where that is less
	maxHostText  = 255       // bytes of a text in a record

	// hostsRefresh is how often a host notes itself again.
	hostsRefresh = 5 * time.Minute
	// hostsGone is how long after its last note a host is not there any more.
	hostsGone = 3 * hostsRefresh
	// hostsAhead is how far beyond the server's clock a note may be: it counts whole seconds, and may be set back.
	hostsAhead = 10 * time.Second
)

// HostRecord is what a host tells the others of itself.
type HostRecord struct {
	ID         string `json:"id"` // of the mount: 1 to 64 letters and digits
	Host       string `json:"host"`
	Mountpoint string `json:"mountpoint"`
	Version    string `json:"version"`
	Prefix     string `json:"prefix"`
	List       string `json:"list"`      // digest of the servers' names and weights and of replicas: equal lists place sessions alike
	Addresses  string `json:"addresses"` // digest of the servers' addresses, in the order of their names
	Servers    int    `json:"servers"`
	Replicas   int    `json:"replicas"`
	Quorum     string `json:"quorum"`
	Lifetime   int64  `json:"lifetime"` // seconds
	MaxSize    int64  `json:"max_size"` // bytes
	Lease      int64  `json:"lease"`    // seconds
	Keep       int64  `json:"keep"`     // milliseconds
	Depth      int    `json:"depth"`
	Owner      string `json:"owner"`
	Started    int64  `json:"started"` // of the daemon, by its host's clock; unix seconds
	Seen       int64  `json:"seen"`    // when it was noted, by the server's clock; unix seconds
	Ahead      int64  `json:"ahead"`   // by how much the host's clock is ahead of the server's, which counts whole seconds; ms
}

type hostsDocument struct {
	Format int          `json:"format"`
	Hosts  []HostRecord `json:"hosts"`
}

// digest is short for a text that is only compared.
func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:8])
}

// mergeHosts says what a host is to store instead of the document that it found on a server (nil: none), at now by the
// server's clock. An error tells what is wrong with the document; what is not is kept.
func mergeHosts(current []byte, own HostRecord, now time.Time, size int) (store []byte, err error) {
	hosts, err := decodeHosts(current)
	hosts = slices.DeleteFunc(hosts, func(h HostRecord) bool { return h.ID == own.ID || h.gone(now) })
	own.Seen = now.Unix()
	hosts = append([]HostRecord{own}, hosts...)
	// Where not all have room those that were noted longest ago give way: each host is in it from time to time.
	slices.SortStableFunc(hosts[1:], func(a, b HostRecord) int { return cmp.Compare(b.Seen, a.Seen) })
	for len(hosts) > 1 && (len(hosts) > maxHosts || len(encodeHosts(hosts)) > size) {
		hosts = hosts[:max(1, len(hosts)-1-len(hosts)/16)]
	}
	return encodeHosts(hosts), err
}

func encodeHosts(hosts []HostRecord) []byte {
	b, err := json.Marshal(hostsDocument{hostsFormat, hosts})
	if err != nil {
		panic(err) // texts and numbers alone
	}
	return b
}

// gone tells whether a host has not noted itself for too long, or at a time that is none.
func (h *HostRecord) gone(now time.Time) bool {
	age := now.Sub(time.Unix(h.Seen, 0))
	return age > hostsGone || age < -hostsAhead
}

// decodeHosts returns the records that can be ones, and an error for what else there is. nil is an empty document.
func decodeHosts(b []byte) ([]HostRecord, error) {
	const what = "the register of hosts"
	switch {
	case b == nil:
		return nil, nil
	case len(b) > maxHostsSize:
		return nil, fmt.Errorf("%s has %d bytes, %d are possible", what, len(b), maxHostsSize)
	case !utf8.Valid(b):
		return nil, errors.New(what + " is not UTF-8")
	}
	var d hostsDocument
	if err := json.Unmarshal(b, &d); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	switch {
	case d.Format != hostsFormat:
		return nil, fmt.Errorf("%s has the format %d, this program knows %d", what, d.Format, hostsFormat)
	case len(d.Hosts) > maxHosts:
		return nil, fmt.Errorf("%s has %d of them, %d are possible", what, len(d.Hosts), maxHosts)
	}
	var errs []error
	seen := make(map[string]bool)
	good := d.Hosts[:0]
	for i, h := range d.Hosts {
		err := h.check()
		if err == nil && seen[h.ID] {
			err = errors.New("it is there twice")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: record %d: %w", what, i+1, err))
			continue
		}
		seen[h.ID] = true
		good = append(good, h)
	}
	if len(errs) > 3 {
		errs = append(errs[:3], fmt.Errorf("and %d more", len(errs)-3))
	}
	return good, errors.Join(errs...)
}

// check tells why a record cannot be one.
func (h *HostRecord) check() error {
	for _, t := range []struct{ name, text string }{{"host", h.Host}, {"mount point", h.Mountpoint}, {"version", h.Version},
		{"list", h.List}, {"addresses", h.Addresses}, {"quorum", h.Quorum}, {"owner", h.Owner}, {"id", h.ID}} {
		if t.text == "" || len(t.text) > maxHostText || unprintable(t.text) {
			return fmt.Errorf("%.40q is no %s", t.text, t.name)
		}
	}
	switch {
	case len(h.ID) > 64 || !plain(h.ID):
		return fmt.Errorf("%.40q is no id", h.ID)
	case !strings.HasPrefix(h.Mountpoint, "/"):
		return fmt.Errorf("%.40q is no mount point", h.Mountpoint)
	case checkPrefix(h.Prefix) != nil:
		return fmt.Errorf("%.40q is no prefix", h.Prefix)
	case h.Servers < 1 || h.Servers > maxListServers || h.Replicas < 1 || h.Replicas > maxReplicas || h.Depth < 0 || h.Depth > 7:
		return errors.New("a number that is not possible")
	}
	for _, n := range []int64{h.Lifetime, h.MaxSize, h.Lease, h.Keep, h.Started, h.Seen} {
		if n < 0 || n > maxUnixMilli {
			return errors.New("a number that is not possible")
		}
	}
	if h.Ahead < -maxUnixMilli || h.Ahead > maxUnixMilli {
		return errors.New("a clock that is none")
	}
	return nil
}

// fit makes what a host tells of itself possible to tell: texts are cut, what cannot be printed is replaced.
func (h *HostRecord) fit() {
	for _, t := range []*string{&h.Host, &h.Mountpoint, &h.Version, &h.Owner} {
		s := shown(*t, len(*t))
		for len(s) > maxHostText {
			_, n := utf8.DecodeLastRuneInString(s)
			s = s[:len(s)-n]
		}
		*t = cmp.Or(s, "?")
	}
}
