package doctor

import (
	"path"
	"strings"
)

// maxIncludes bounds the files that one configuration leads to.
const maxIncludes = 1000

// pools reads php-fpm's configuration, with what it includes: one PHP for each pool.
func (t tree) pools(base PHP, conf string) []PHP {
	var all []*PHP
	at := make(map[string]*PHP)
	admin := make(map[string]bool) // pool and key that php_admin_value has: php_value does not change it
	files, seen := []string{conf}, 0
	for len(files) > 0 && seen < maxIncludes {
		file := files[0]
		files = files[1:]
		seen++
		for _, e := range scanINI(t.read(file), func(string) string { return "" }) {
			if e.key == "include" {
				pattern := e.value
				if !path.IsAbs(pattern) {
					pattern = path.Join(path.Dir(conf), pattern)
				}
				files = append(files, t.glob(pattern)...)
				continue
			}
			if e.section == "" || e.section == "global" {
				continue
			}
			p := at[e.section]
			if p == nil {
				pool := base.with(base.Name + ", pool " + e.section)
				p = &pool
				at[e.section], all = p, append(all, p)
			}
			switch e.key {
			case "user":
				p.User = strings.ReplaceAll(e.value, "$pool", e.section)
				continue
			case "chroot":
				p.Chroot = strings.ReplaceAll(e.value, "$pool", e.section)
				continue
			}
			kind, name, ok := strings.Cut(strings.TrimSuffix(e.key, "]"), "[")
			name = strings.TrimSpace(name)
			if _, known := builtin[name]; !ok || !known {
				continue
			}
			switch kind {
			case "php_admin_value", "php_admin_flag":
				admin[e.section+" "+name] = true
			case "php_value", "php_flag":
				if admin[e.section+" "+name] {
					continue
				}
			default:
				continue
			}
			form := kind + `[%k] = "%v"`
			if strings.HasSuffix(kind, "flag") {
				form = kind + "[%k] = %v"
			}
			p.Settings[name] = Setting{Value: strings.ReplaceAll(e.value, "$pool", e.section), File: t.show(file), Line: e.line, Text: e.text, form: form}
		}
	}
	list := make([]PHP, len(all))
	for i, p := range all {
		list[i] = *p
	}
	return list
}
