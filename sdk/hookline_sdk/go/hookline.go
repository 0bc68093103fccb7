// Package hookline is everything a Hookline plugin in Go needs: hooks, answers, host functions. The standard library
// alone; built with
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o plugin.wasm .
//
// A hook takes its input and answers anything that encoding/json can write, or nil for the hook's default:
//
//	//go:wasmexport pre_query
//	func preQuery(at, size uint32) uint64 { return hookline.Answer(decide(hookline.Input(at, size))) }
//
// A plugin that cannot do its work (no permission, a full store, an input that is not JSON) calls Fail: the call
// fails with cause trap, and the resource's failurePolicy decides what that means. Never guess.
//
// A Go program takes milliseconds to start, so it wants `isolation: {mode: Pooled}`.
package hookline

import (
	"encoding/json"
	"runtime"
	"unsafe"
)

// Memory that the host has a pointer to is kept in `held`, so that the garbage collector leaves it alone until the
// host gives it back.
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

// Input is what the host wrote for this call. It is the host's again when the hook returns.
func Input(at, size uint32) []byte { return held[at][:size] }

// Answer writes a hook's answer as JSON to where the host reads it.
func Answer(answer any) uint64 {
	if answer == nil {
		return 0
	}
	text, err := json.Marshal(answer)
	if err != nil {
		Fail(err.Error())
	}
	return uint64(hold(text))<<32 | uint64(len(text))
}

// Fail ends the call with a line in the log and a trap; the resource's failurePolicy decides what that means.
func Fail(why string) {
	Log(Error, why)
	panic(why)
}
