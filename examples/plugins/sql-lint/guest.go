package main

import (
	"encoding/json"
	"runtime"
	"unsafe"
)

// The guest's side of the ABI. Memory that the host has a pointer to is kept in `held`, so that the garbage
// collector leaves it alone until the host gives it back.

var held = map[uint32][]byte{}

func hold(block []byte) uint32 {
	at := uint32(uintptr(unsafe.Pointer(unsafe.SliceData(block))))
	held[at] = block
	return at
}

//go:wasmexport alloc
func alloc(size uint32) uint32 {
	return hold(make([]byte, size, max(size, 1)))
}

// freed counts the bytes given back since the last collection.
var freed uint32

// A call ends before Go's background collector gets a turn, so garbage would pile up from call to call until
// memory is used up. Collecting here, after the answer was read, costs no caller any time.
//
//go:wasmexport dealloc
func dealloc(at, size uint32) {
	delete(held, at)
	if freed += size; freed > 64<<10 {
		runtime.GC()
		freed = 0
	}
}

//go:wasmexport pre_query
func hookPreQuery(at, size uint32) uint64 {
	answer, err := json.Marshal(preQuery(held[at][:size]))
	if err != nil {
		fail(err.Error())
	}
	return uint64(hold(answer))<<32 | uint64(len(answer))
}

const (
	levelWarn  = 3
	levelError = 4
)

//go:wasmimport hookline get_config
func hostGetConfig(path unsafe.Pointer, size uint32) uint64

//go:wasmimport hookline log
func hostLog(level uint32, line unsafe.Pointer, size uint32) int32

//go:wasmimport hookline metric_inc
func hostMetricInc(name unsafe.Pointer, size uint32, by float64) int32

// getConfig answers the whole config. Without the permission config.read the call fails, because running on
// defaults instead would go unnoticed.
func getConfig() []byte {
	packed := hostGetConfig(nil, 0)
	at := uint32(packed >> 32)
	if at == 0 {
		if packed != 0 {
			fail("the config cannot be read; is the permission config.read granted?")
		}
		return []byte("{}")
	}
	block := held[at]
	delete(held, at)
	return block
}

func logLine(level uint32, line string) {
	hostLog(level, unsafe.Pointer(unsafe.StringData(line)), uint32(len(line)))
	runtime.KeepAlive(line)
}

func count(metric string) {
	hostMetricInc(unsafe.Pointer(unsafe.StringData(metric)), uint32(len(metric)), 1)
	runtime.KeepAlive(metric)
}

// fail ends the call with a trap; the resource's failurePolicy decides what that means.
func fail(why string) {
	logLine(levelError, why)
	panic(why)
}
