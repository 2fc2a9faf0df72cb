package model

import "slices"

// graph is every state of a world and what leads from one to another.
type graph struct {
	w       *World
	nodes   []node
	edges   [][]edge
	actions []action
}

type edge struct {
	to int32
	by uint8 // index of the action
}

func (w *World) graph() *graph {
	g := &graph{w: w, actions: w.actions()}
	r := run{w: w}
	index := make(map[key]int32)
	add := func(s *state, parent int, by action) int32 {
		k := keyOf(s)
		n, ok := index[k]
		if !ok {
			n = int32(len(g.nodes))
			index[k] = n
			g.nodes = append(g.nodes, node{*s, int32(parent), by})
		}
		return n
	}
	for _, s := range w.starts() {
		add(&s, -1, action{})
	}
	for n := 0; n < len(g.nodes); n++ {
		s := g.nodes[n].s
		r.s = s
		var out []edge
		for i, a := range g.actions {
			r.each(&s, a, func() { out = append(out, edge{add(&r.s, n, a), uint8(i)}) })
		}
		g.edges = append(g.edges, out)
	}
	return g
}

// stuck is a state from which nothing leads to the end of all requests, or -1.
func (g *graph) stuck() int {
	back := make([][]int32, len(g.nodes))
	for n, out := range g.edges {
		for _, e := range out {
			back[e.to] = append(back[e.to], int32(n))
		}
	}
	good := make([]bool, len(g.nodes))
	var todo []int32
	for n := range g.nodes {
		if g.nodes[n].s.over(g.w) {
			good[n] = true
			todo = append(todo, int32(n))
		}
	}
	for len(todo) > 0 {
		n := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, m := range back[n] {
			if !good[m] {
				good[m] = true
				todo = append(todo, m)
			}
		}
	}
	for n := range good {
		if !good[n] {
			return n
		}
	}
	return -1
}

// contending: nobody has had the lock yet.
func (s *state) contending() bool {
	for h := range hosts {
		if x := &s.host[h]; x.holds != 0 || x.req != 0 || x.phase == dead || x.phase == mending {
			return false
		}
	}
	return true
}

// livelock is a circle of states in which nobody gets the lock although no host and no server is kept from its next step
// for ever, or nil. Such a circle is in a strongly connected component where each action is done somewhere, or impossible
// somewhere; and such a component is a circle of that kind.
func (g *graph) livelock() []int32 {
	for _, c := range g.components() {
		in := make(map[int32]bool, len(c))
		for _, n := range c {
			in[n] = true
		}
		done, always := make([]bool, len(g.actions)), make([]bool, len(g.actions))
		for i := range always {
			always[i] = true
		}
		circle := false
		for _, n := range c {
			can := make([]bool, len(g.actions))
			for _, e := range g.edges[n] {
				can[e.by] = true
				if in[e.to] {
					done[e.by], circle = true, true
				}
			}
			for i := range always {
				always[i] = always[i] && can[i]
			}
		}
		for i := range always {
			circle = circle && (done[i] || !always[i])
		}
		if circle {
			return c
		}
	}
	return nil
}

// lap tells in plain words how the world comes into a circle, and goes round it once with an attempt of either host.
func (g *graph) lap(circle []int32) []string {
	start := slices.Min(circle)
	in := make(map[int32]bool, len(circle))
	for _, n := range circle {
		in[n] = true
	}
	type place struct {
		n     int32
		tried uint8 // hosts that have begun an attempt
	}
	from := map[place]place{}
	by := map[place]action{}
	todo, end := []place{{start, 0}}, place{start, 1<<hosts - 1}
	for ; len(todo) > 0 && from[end] == (place{}); todo = todo[1:] {
		for _, e := range g.edges[todo[0].n] {
			a, next := g.actions[e.by], place{e.to, todo[0].tried}
			if a.what == actBegin {
				next.tried |= 1 << a.h
			}
			if _, ok := from[next]; ok || !in[e.to] {
				continue
			}
			from[next], by[next] = todo[0], a
			todo = append(todo, next)
		}
	}
	way := []place{end}
	for p := from[end]; p != (place{start, 0}); p = from[p] {
		way = append(way, p)
	}
	_, words := g.w.trace(g.nodes, int(start))
	words = append(words, "FROM HERE:")
	nodes := []node{{s: g.nodes[start].s, parent: -1}}
	for i := len(way) - 1; i >= 0; i-- {
		nodes = append(nodes, node{g.nodes[way[i].n].s, int32(len(nodes) - 1), by[way[i]]})
	}
	_, round := g.w.trace(nodes, len(nodes)-1)
	return append(append(words, round[1:]...), "and so on FROM THERE for ever")
}

// components are the strongly connected components among the states where nobody has had the lock (Tarjan).
func (g *graph) components() (out [][]int32) {
	n := len(g.nodes)
	num, low, on := make([]int32, n), make([]int32, n), make([]bool, n)
	var stack []int32
	next := int32(0)
	type frame struct {
		n int32
		e int
	}
	for root := range int32(n) {
		if num[root] != 0 || !g.nodes[root].s.contending() {
			continue
		}
		call := []frame{{root, 0}}
		for len(call) > 0 {
			f := &call[len(call)-1]
			v := f.n
			if f.e == 0 {
				next++
				num[v], low[v], on[v] = next, next, true
				stack = append(stack, v)
			}
			if f.e < len(g.edges[v]) {
				to := g.edges[v][f.e].to
				f.e++
				switch {
				case !g.nodes[to].s.contending():
				case num[to] == 0:
					call = append(call, frame{to, 0})
				case on[to]:
					low[v] = min(low[v], num[to])
				}
				continue
			}
			call = call[:len(call)-1]
			if len(call) > 0 {
				p := call[len(call)-1].n
				low[p] = min(low[p], low[v])
			}
			if low[v] == num[v] {
				var c []int32
				for {
					m := stack[len(stack)-1]
					stack = stack[:len(stack)-1]
					on[m] = false
					c = append(c, m)
					if m == v {
						break
					}
				}
				out = append(out, c)
			}
		}
	}
	return out
}
