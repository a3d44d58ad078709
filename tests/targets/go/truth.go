// Known truth in Go: 60/30/10 % of the thread's own CPU time in three functions below a
// recursion of 30, on a locked OS thread. usage: truth_go SECONDS [WARM_UP_SECONDS]
package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

var spent [3]uint64
var sink uint64

const clockThreadCPUTime = 3

func now() uint64 {
	var t syscall.Timespec
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockThreadCPUTime, uintptr(unsafe.Pointer(&t)), 0)
	return uint64(t.Sec)*1000000000 + uint64(t.Nsec)
}

//go:noinline
func work_a(ns uint64) {
	start, x := now(), uint64(3)
	for {
		for i := 0; i < 100000; i++ {
			x ^= x << 13
			x ^= x >> 7
			x ^= x << 17
		}
		sink = x
		if took := now() - start; took >= ns {
			spent[0] += took
			return
		}
	}
}

//go:noinline
func work_b(ns uint64) {
	start, x := now(), uint64(5)
	for {
		for i := 0; i < 100000; i++ {
			x ^= x << 13
			x ^= x >> 7
			x ^= x << 17
		}
		sink = x
		if took := now() - start; took >= ns {
			spent[1] += took
			return
		}
	}
}

//go:noinline
func work_c(ns uint64) {
	start, x := now(), uint64(7)
	for {
		for i := 0; i < 100000; i++ {
			x ^= x << 13
			x ^= x >> 7
			x ^= x << 17
		}
		sink = x
		if took := now() - start; took >= ns {
			spent[2] += took
			return
		}
	}
}

//go:noinline
func descend(depth, which int, ns uint64) uint64 {
	if depth > 1 {
		return descend(depth-1, which, ns) + uint64(depth)
	}
	switch which {
	case 0:
		work_a(ns)
	case 1:
		work_b(ns)
	default:
		work_c(ns)
	}
	return sink
}

func argument(index int, otherwise float64) float64 {
	if len(os.Args) > index {
		if value, err := strconv.ParseFloat(os.Args[index], 64); err == nil {
			return value
		}
	}
	return otherwise
}

func main() {
	runtime.LockOSThread()
	seconds := argument(1, 10)
	time.Sleep(time.Duration(argument(2, 0) * 1e9))
	random, check := uint64(88172645463325252), uint64(0)
	for float64(spent[0]+spent[1]+spent[2]) < seconds*1e9 {
		random = random*6364136223846793005 + 1442695040888963407
		pick, ns := (random>>33)%100, 500000+(random>>20)%3500000
		which := 2
		if pick < 60 {
			which = 0
		} else if pick < 90 {
			which = 1
		}
		check += descend(30, which, ns)
	}
	fmt.Printf("{\"work_a\":%d,\"work_b\":%d,\"work_c\":%d,\"check\":%d}\n", spent[0], spent[1], spent[2], check&1)
}
