package backend

import (
	"strings"
	"testing"
	"time"
)

func TestWhichServersMayBeSwitchedOff(t *testing.T) {
	const whole = listLife + 2*listRefresh
	type server struct {
		off, again time.Duration // after listsNow; off -1: not known
		why        string
	}
	present := named("b c d", 2, ago(0))
	moved := named("a b", 1, ago(10*time.Minute))
	moved.Moved = ago(time.Minute)
	lately := moved
	lately.Moved = ago(20 * time.Second)
	for _, tc := range []struct {
		what    string
		r       rebalanced
		dropped int
		want    map[string]server
	}{
		{"nothing was changed", rebalanced{lists: history{present}, complete: true}, 0, map[string]server{}},
		{"all moved, long after the change", rebalanced{lists: newHistory([]list{present, named("a b c", 2, ago(10*time.Minute))}), complete: true}, 1,
			map[string]server{"a": {listRefresh, 0, "all hosts know"}}},
		{"all moved, soon after the change", rebalanced{lists: newHistory([]list{present, named("a b c", 2, ago(3*time.Minute))}), complete: true}, 0,
			map[string]server{"a": {whole - 3*time.Minute, listQuietFor - 3*time.Minute, "a host had it in its list at"}}},
		{"two lists have it", rebalanced{lists: newHistory([]list{present, named("a b c", 2, ago(3*time.Minute)), named("a b", 2, ago(2*time.Minute))}), complete: true}, 0,
			map[string]server{"a": {whole - 2*time.Minute, listQuietFor - 2*time.Minute, "a host had it"}}},
		{"one of two lists goes", rebalanced{lists: newHistory([]list{present, named("a b c", 2, ago(3*time.Minute)), named("a e", 2, ago(8*time.Minute))}), complete: true}, 1,
			map[string]server{"a": {whole - 3*time.Minute, listQuietFor - 3*time.Minute, "a host had it"}, "e": {listRefresh, 0, "all hosts know"}}},
		{"some are left", rebalanced{lists: newHistory([]list{present, named("a b c", 2, ago(10*time.Minute))})}, 0,
			map[string]server{"a": {whole - 10*time.Minute, 0, "sessions are left"}}},
		{"a dry run", rebalanced{lists: newHistory([]list{present, named("a b c", 2, ago(10*time.Minute))}), complete: true, dryRun: true}, 0,
			map[string]server{"a": {whole - 10*time.Minute, 0, "dry run"}}},
		{"one of its servers is gone", rebalanced{lists: newHistory([]list{present, named("a b c", 2, ago(10*time.Minute))}), complete: true, listed: map[string]bool{"a": true, "b": true, "d": true}}, 0,
			map[string]server{"a": {whole - 10*time.Minute, 0, "c did not answer"}, "c": {-1, 0, "it does not answer"}}},
		{"moved already", rebalanced{lists: newHistory([]list{present, moved}), complete: true}, 0, map[string]server{"a": {0, 0, ""}}},
		{"moved already, and another fails", rebalanced{lists: newHistory([]list{present, moved})}, 0, map[string]server{"a": {0, 0, ""}}},
		{"moved a moment ago", rebalanced{lists: newHistory([]list{present, lately}), complete: true}, 0, map[string]server{"a": {40 * time.Second, 0, "all hosts know"}}},
		{"only the weights were changed", rebalanced{lists: newHistory([]list{present, named("b*3 c d", 2, ago(10*time.Minute))}), complete: true}, 1, map[string]server{}},
	} {
		r := tc.r
		r.present, r.begun, r.now, r.lifetime = present, listsNow.Add(-30*time.Second), listsNow, listLife
		if r.listed == nil {
			r.listed = map[string]bool{"a": true, "b": true, "c": true, "d": true, "e": true}
		}
		r.counts = map[string]uint64{"a": 1, "b": 2}
		if dropped := r.drop(); len(dropped) != tc.dropped {
			t.Errorf("%s: dropped were %v", tc.what, dropped)
		}
		seen := 0
		for _, s := range r.servers() {
			want, off := tc.want[s.Name]
			if isPresent := strings.Contains("b c d", s.Name); s.Present != isPresent || s.Sessions != r.counts[s.Name] || s.Address == "" {
				t.Errorf("%s: %+v", tc.what, s)
			}
			if !off {
				if want.off = -1; !s.Present {
					t.Errorf("%s: a server too many: %+v", tc.what, s)
				}
			} else {
				seen++
			}
			switch {
			case want.off == -1 && !s.Off.IsZero(), want.off != -1 && !s.Off.Equal(listsNow.Add(want.off)),
				want.again == 0 && !s.Again.IsZero(), want.again != 0 && !s.Again.Equal(listsNow.Add(want.again)),
				want.why == "" && s.Why != "", !strings.Contains(s.Why, want.why):
				t.Errorf("%s: %+v, want %+v", tc.what, s, want)
			}
		}
		if seen != len(tc.want) {
			t.Errorf("%s: %v", tc.what, r.servers())
		}
	}
}
