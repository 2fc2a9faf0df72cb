package history

import (
	"reflect"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	const notes = `S 10 1 increment c1-5
s 11 1 1 w.9 w.8 3 0 -
E 12 1 increment c1-5 w.1 w.9 4 200
e 13 1 0 Failed%20to%20write
E 14 2 unlink d1-5 - - 0 0
e 15 2 1 -
S 16 3 peek c1-5
s 17 3 1 - - 0 1 -
S 18 4 read c1-5
s 19 4 0 - - 0 0 no
S 20 5 destroy d1-5
s 21 5 1 - - 0 0 -
E 22 5 destroy d1-5 - - 0 0
e 2`
	got, err := Parse(strings.NewReader(notes), 2, 7, 30)
	if err != nil {
		t.Fatal(err)
	}
	want := []*Request{
		{Seq: 1, Session: "c1-5", Kind: Increment, Start: Span{10, 11, true, ""}, Got: Value{"w.9", "w.8", 3, false}, Size: 200,
			End: Span{12, 13, false, "Failed to write"}, Wrote: Value{"w.1", "w.9", 4, false}},
		{Seq: 2, Session: "d1-5", Kind: Unlink, End: Span{14, 15, true, ""}},
		{Seq: 3, Session: "c1-5", Kind: Peek, Start: Span{16, 17, true, ""}, Got: Value{Torn: true}},
		{Seq: 4, Session: "c1-5", Kind: Read, Start: Span{18, 19, false, "no"}},
		{Seq: 5, Session: "d1-5", Kind: Destroy, Start: Span{20, 21, true, ""}, End: Span{Begin: 22}, Killed: 30},
	}
	for _, r := range want {
		r.Host, r.Worker = 2, 7
	}
	if len(got) != len(want) {
		t.Fatalf("%d requests, not %d", len(got), len(want))
	}
	for i := range want {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("got  %+v\nwant %+v", got[i], want[i])
		}
	}
}

// Notes that are not what a worker writes: a PHP error on standard output, a line of another request, a cut line of a
// worker that nobody has killed.
func TestParseRefuses(t *testing.T) {
	for _, notes := range []string{
		"PHP Fatal error: no\n",
		"s 11 1 1 - - 0 0 -\n",
		"S 10 1 read x\ns 11 2 1 - - 0 0 -\n",
		"S 10 1 read x\ns 11 1 1 - - 0\n",
		"S 10 1 read x\nE 11 1 destroy x - - 0 0\n",
		"S 10 1 re",
	} {
		if list, err := Parse(strings.NewReader(notes), 1, 1, 0); err == nil {
			t.Errorf("%q was taken as %+v", notes, list)
		}
	}
}
