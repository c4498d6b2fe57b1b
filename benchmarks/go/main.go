// SPDX-License-Identifier: Apache-2.0

// golang.org/x/time/rate: rounds of all cases in turn, a line of JSON for each.
//
//	peers [ROUNDS]
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const roundTime = 4 * time.Millisecond

type bench struct {
	name    string
	threads int
	body    func(operations int)
	count   int
	ns      []float64
}

var sink bool

func (b *bench) once() float64 {
	start := time.Now()
	if b.threads == 1 {
		b.body(b.count)
	} else {
		var group sync.WaitGroup
		for i := 0; i < b.threads; i++ {
			group.Add(1)
			go func() { b.body(b.count); group.Done() }()
		}
		group.Wait()
	}
	return float64(time.Since(start).Nanoseconds()) / float64(b.count)
}

func main() {
	rounds := 15
	if len(os.Args) > 1 {
		rounds, _ = strconv.Atoi(os.Args[1])
	}
	full := rate.NewLimiter(1e9, 1<<30)
	empty := rate.NewLimiter(0, 0)
	base := time.Now()
	at := func(n int) {
		now := base
		for i := 0; i < n; i++ {
			now = now.Add(1)
			sink = full.AllowN(now, 1)
		}
	}
	clock := func(n int) {
		for i := 0; i < n; i++ {
			sink = full.Allow()
		}
	}
	refused := func(n int) {
		for i := 0; i < n; i++ {
			sink = empty.Allow()
		}
	}
	benches := []*bench{
		{name: "peer.go.limiter.at", threads: 1, body: at},
		{name: "peer.go.limiter.clock", threads: 1, body: clock},
		{name: "peer.go.limiter.refused.clock", threads: 1, body: refused},
		{name: "peer.go.limiter.clock.2", threads: 2, body: clock},
	}
	for _, b := range benches {
		for b.count = 1000; b.once()*float64(b.count) < float64(roundTime)/2; b.count *= 2 {
		}
	}
	for round := 0; round < rounds; round++ {
		for _, b := range benches {
			b.ns = append(b.ns, b.once())
		}
	}
	for _, b := range benches {
		line, _ := json.Marshal(map[string]any{"name": b.name, "threads": b.threads, "ns": b.ns})
		fmt.Println(string(line))
	}
}
