package main

import (
	"maps"
	"os"
	"testing"
)

func TestParseStat(t *testing.T) {
	s, err := parseStat([]byte("4711 (php) (fpm)) S 12 4711 4711 0 -1 4194560 1 2 3 4 150 25 0 0 20 0 1 0 100 200 300\n"))
	if err != nil {
		t.Fatal(err)
	}
	if want := (stat{pid: 4711, parent: 12, name: "php) (fpm)", user: 1_500_000, system: 250_000}); s != want {
		t.Errorf("got %+v, want %+v", s, want)
	}
	for _, bad := range []string{"", "12 php S 1", "12 (php) S 1 2", "12 (php) S one 4711 4711 0 -1 4194560 1 2 3 4 150 25 0 0"} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q was taken for a stat line", bad)
		}
	}
	own, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	if s, err := parseStat(own); err != nil || s.pid != os.Getpid() || s.parent != os.Getppid() {
		t.Errorf("of this process: %+v, %v", s, err)
	}
}

func TestParseMemory(t *testing.T) {
	text := []byte("Name:\tsessfs\nVmHWM:\t   30208 kB\nVmRSS:\t   27955 kB\n")
	if n, err := parseMemory(text, "VmRSS"); err != nil || n != 27955<<10 {
		t.Errorf("VmRSS: %d, %v", n, err)
	}
	if _, err := parseMemory(text, "VmSwap"); err == nil {
		t.Error("a line that is not there was found")
	}
}

func TestParseStrace(t *testing.T) {
	text := []byte(`% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 61.50    0.123456          12      1000        17 read
 38.50    0.012345           3       400           write
------ ----------- ----------- --------- --------- ----------------
100.00    0.135801           9      1400        17 total
`)
	got, err := parseStrace(text)
	if err != nil {
		t.Fatal(err)
	}
	if want := map[string]float64{"read": 1000, "write": 400}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if _, err := parseStrace([]byte("------\nsomething else was printed here today\n")); err == nil {
		t.Error("a table that is none was read")
	}
}

func TestFiguresOfSeveralDaemons(t *testing.T) {
	f := figures{operations: make(map[string]float64)}
	for _, text := range []string{`{"files": {"operations": {"OPEN": 3, "READ": 1}}, "round_trips_waited": 7}`, `{"files": {"operations": {"OPEN": 2}}, "locking": {"leases": 4}, "round_trips_waited": 0}`} {
		if err := f.add([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if want := map[string]float64{"OPEN": 5, "READ": 1}; !maps.Equal(f.operations, want) || f.trips != 7 || f.leases != 4 {
		t.Errorf("got %v, %v and %d", f.operations, f.trips, f.leases)
	}
	for _, bad := range []string{`{}`, `{"round_trips_waited": 7}`, `{"files": {"operations": {}}}`, `nothing`} {
		if err := f.add([]byte(bad)); err == nil {
			t.Errorf("%s was taken for a status", bad)
		}
	}
}

func TestASampleIsPerCycle(t *testing.T) {
	m := &meter{t: &target{hosts: []*host{{}}}, daemon: cpuTime{4000, 8000}, server: cpuTime{0, 400},
		before: figures{map[string]float64{"OPEN": 10, "INIT": 1}, 5, 0}, after: figures{map[string]float64{"OPEN": 50, "INIT": 1}, 85, 0}}
	s, err := m.sum([]answer{
		{Done: 30, Seconds: 1, Times: map[string]int{"100": 30}, User: 1000, System: 200},
		{Done: 10, Seconds: 2, Times: map[string]int{"300": 10}, User: 1000, System: 0},
	})
	if err != nil {
		t.Fatal(err)
	}
	if s.Rate != 35 || s.Done != 40 || s.P50 != 100 || s.P99 != 300 || s.Max != 300 {
		t.Errorf("rate and times: %+v", s)
	}
	if s.PHP != (cpuTime{50, 5}) || s.Daemon != (cpuTime{100, 200}) || s.Server != (cpuTime{0, 10}) {
		t.Errorf("CPU times: %+v", s)
	}
	if s.Trips != 2 || !maps.Equal(s.Operations, map[string]float64{"OPEN": 1}) {
		t.Errorf("counts: %v, %v", s.Trips, s.Operations)
	}
	if _, err := m.sum([]answer{{Reason: "nobody answers"}}); err == nil {
		t.Error("a load that did nothing is a sample")
	}
}
