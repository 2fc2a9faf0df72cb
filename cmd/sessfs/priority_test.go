package main

import "testing"

// The priority goes up with a crowd that lasts, stays for a moment without one, and one process is none.
func TestCrowd(t *testing.T) {
	var c crowd
	found, several := uint64(0), uint64(0)
	step := func(what string, polls, crowded uint64, want bool) {
		t.Helper()
		found, several = found+polls, several+crowded
		if got := c.decide(found, several); got != want {
			t.Errorf("%s: raised is %v", what, got)
		}
	}
	step("nothing to do", 0, 0, false)
	step("one process", 700, 100, false)
	step("eight, for a moment", 700, 400, false)
	step("one process again", 700, 100, false)
	step("eight", 700, 400, false)
	step("still eight", 700, 400, true)
	for range crowdCalm - 1 {
		step("a moment without", 700, 10, true)
	}
	step("no crowd any more", 700, 10, false)
	step("idle", 0, 0, false)
}
