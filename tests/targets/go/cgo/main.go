// Go that calls C, and C that calls back into Go. The time is spent in C (leaf), in Go called
// by C (leafOfGo), or in the runtime's own work on its system stacks (garbage).
// usage: cgo MODE SECONDS [WARM_UP_SECONDS]; MODE: down, back, garbage
package main

// #include <stdint.h>
// uint64_t outer_of_c(double seconds, int back);
import "C"

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
)

//export calledBack
func calledBack(x uint64) uint64 { return leafOfGo(x) + 1 }

//go:noinline
func leafOfGo(x uint64) uint64 {
	for i := 0; i < 20_000_000; i++ {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
	}
	return x
}

//go:noinline
func outer(mode string, seconds float64) uint64 {
	if mode == "garbage" {
		return garbage(seconds)
	}
	back := 0
	if mode == "back" {
		back = 1
	}
	return uint64(C.outer_of_c(C.double(seconds), C.int(back)))
}

type node struct {
	left, right *node
	room        [10]uint64
}

//go:noinline
func tree(depth int) *node {
	if depth == 0 {
		return &node{}
	}
	return &node{left: tree(depth - 1), right: tree(depth - 1)}
}

//go:noinline
func garbage(seconds float64) uint64 {
	start, count := cpuSeconds(), uint64(0)
	for cpuSeconds()-start < seconds {
		done := make(chan *node)
		go func() { done <- tree(14) }()
		if (<-done).left != nil {
			count++
		}
	}
	return count
}

func cpuSeconds() float64 {
	var usage syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}

func number(index int) float64 {
	if len(os.Args) <= index {
		return 0
	}
	value, _ := strconv.ParseFloat(os.Args[index], 64)
	return value
}

func main() {
	time.Sleep(time.Duration(number(3) * 1e9))
	fmt.Printf("{\"check\":%d}\n", outer(os.Args[1], number(2))&1)
}
