package config

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"gopkg.in/yaml.v3"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The commented file at the top says what the defaults are, for every key there is.
func TestSampleIsTheDefault(t *testing.T) {
	data, err := os.ReadFile("../config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Parse("config.yaml", data)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(c, Default()) {
		t.Errorf("config.yaml says\n%+v\nthe defaults are\n%+v", c, Default())
	}
	for _, k := range keys {
		section, leaf, nested := strings.Cut(k.name, ".")
		if !nested {
			section, leaf = "", k.name
		}
		if !inSample(string(data), section, leaf) {
			t.Errorf("config.yaml does not mention %s", k.name)
		}
	}
}

// inSample finds a key in its section, commented out or not.
func inSample(sample, section, leaf string) bool {
	in := section == ""
	for line := range strings.Lines(sample) {
		if top := regexp.MustCompile(`^([a-z_]+):`).FindStringSubmatch(line); top != nil {
			in = top[1] == section || section == "" && top[1] == leaf
			if in && section == "" {
				return true
			}
		} else if in && section != "" && regexp.MustCompile(`^\s+(# ?)?`+leaf+`:`).MatchString(line) {
			return true
		}
	}
	return false
}

// Every field of Config has a row in the schema, and Diff sees it.
func TestDiffKnowsEveryField(t *testing.T) {
	changed := 0
	var walk func(path string, c *Config, v reflect.Value)
	walk = func(path string, c *Config, v reflect.Value) {
		for i := range v.NumField() {
			f, name := v.Field(i), path+v.Type().Field(i).Name
			switch f.Kind() {
			case reflect.Struct:
				walk(name+".", c, f)
				continue
			case reflect.String:
				f.SetString("changed")
			case reflect.Int, reflect.Int64:
				f.SetInt(77)
			case reflect.Uint32:
				f.SetUint(0o700)
			case reflect.Bool:
				f.SetBool(true)
			case reflect.Pointer:
				f.Set(reflect.New(f.Type().Elem()))
			case reflect.Slice:
				f.Set(reflect.MakeSlice(f.Type(), 2, 2))
			default:
				t.Fatalf("%s is a %s", name, f.Kind())
			}
			changed++
			live, remount := Diff(Default(), c)
			if got := len(live) + len(remount); got != changed {
				t.Errorf("after a change of %s, Diff sees %d of %d changes", name, got, changed)
			}
		}
	}
	c := Default()
	walk("", c, reflect.ValueOf(c).Elem())
	if changed != len(keys) {
		t.Errorf("Config has %d fields, the schema %d keys", changed, len(keys))
	}
	live, _ := Diff(Default(), c)
	want := "session.lifetime session.max_size session.memory lock.lease lock.wait lock.keep cache.timeout cache.retry_interval cache.tls cache.auth seal.keys seal.accept_plain seal.write_plain admin.metrics log.level log.format"
	if got := strings.Join(live, " "); got != want {
		t.Errorf("live are %s, want %s", got, want)
	}
	if live, remount := Diff(c, c); live != nil || remount != nil {
		t.Error(live, remount)
	}
}

// The list of servers and what belongs to it change while mounted, but not from none to some or back.
func TestDiffOfServers(t *testing.T) {
	parse := func(s string) *Config {
		c, err := Parse("c.yaml", []byte(s))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	none, one, two := parse(""), parse("cache: {servers: [a:1]}"), parse("cache: {servers: [a:1, b:1], quorum: majority}")
	heavy := parse("cache: {servers: [{address: 'a:1', weight: 2}]}")
	const all = "cache.servers cache.replicas cache.quorum"
	for _, tc := range []struct {
		old, new      *Config
		live, remount string
	}{
		{one, two, all, ""}, {two, one, all, ""}, {none, two, "", all}, {two, none, "", all}, {none, one, "", "cache.servers"},
		{one, heavy, "cache.servers", ""},
	} {
		live, remount := Diff(tc.old, tc.new)
		if strings.Join(live, " ") != tc.live || strings.Join(remount, " ") != tc.remount {
			t.Errorf("from %+v to %+v: live %q, remount %q", tc.old.Cache, tc.new.Cache, live, remount)
		}
	}
}

// written is a file that says what c says.
func written(t *testing.T, c *Config) []byte {
	var servers []map[string]any
	for _, s := range c.Cache.Servers {
		address := s.Address
		if s.Network == "unix" {
			address = "unix:" + address
		}
		servers = append(servers, map[string]any{"name": s.Name, "address": address, "weight": s.Weight})
	}
	var level string
	for name, l := range levels {
		if l == c.Log.Level {
			level = name
		}
	}
	var tls, auth any
	if t := c.Cache.TLS; t != nil {
		tls = map[string]any{"ca": t.CA, "cert": t.Cert, "key": t.Key, "server_name": t.ServerName, "min_version": t.MinVersion}
	}
	if a := c.Cache.Auth; a != nil {
		auth = map[string]any{"user": a.User, "password_file": a.PasswordFile}
	}
	var keys []map[string]any
	for _, k := range c.Seal.Keys {
		keys = append(keys, map[string]any{"name": k.Name, "file": k.File})
	}
	data, err := yaml.Marshal(map[string]any{
		"mountpoint": c.Mountpoint, "files": slices.Clone(c.Files), "depth": c.Depth, "owner": c.Owner,
		"directory": map[string]any{"owner": c.Directory.Owner, "group": c.Directory.Group, "mode": fmt.Sprintf("%04o", c.Directory.Mode)},
		"session":   map[string]any{"lifetime": c.Session.Lifetime.String(), "max_size": c.Session.MaxSize, "memory": c.Session.Memory},
		"lock":      map[string]any{"lease": c.Lock.Lease.String(), "wait": c.Lock.Wait.String(), "keep": c.Lock.Keep.String()},
		"cache": map[string]any{"servers": servers, "replicas": c.Cache.Replicas, "quorum": c.Cache.Quorum, "timeout": c.Cache.Timeout.String(),
			"retry_interval": c.Cache.RetryInterval.String(), "connections": c.Cache.Connections, "prefix": c.Cache.Prefix,
			"tls": tls, "auth": auth},
		"seal":  map[string]any{"keys": keys, "accept_plain": c.Seal.AcceptPlain, "write_plain": c.Seal.WritePlain},
		"admin": map[string]any{"socket": c.Admin.Socket, "metrics": c.Admin.Metrics},
		"log":   map[string]any{"level": level, "format": c.Log.Format},
	})
	if err != nil {
		t.Fatal(err)
	}
	return data
}
