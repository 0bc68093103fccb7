// Package hookline is everything a Hookline plugin in Go needs: hooks, answers, host functions. The standard library
// alone; built with
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o plugin.wasm .
//
// A hook is one line that exports it, and a function of its input:
//
//	//go:wasmexport pre_query
//	func preQuery(at, size uint32) uint64 { return hookline.OnPreQuery(at, size, guard) }
//
//	func guard(in *hookline.QueryInput) hookline.PreQueryAnswer {
//		if len(in.Query) > 10_000 {
//			return hookline.Block("the query is too long")
//		}
//		return hookline.Continue{}
//	}
//
// Nil is the hook's default. An input that is not what the contract says fails the call before the function is asked.
//
// A plugin that cannot do its work (no permission, a full store) calls Fail, or panics: the call fails with cause trap,
// the log says why and where, and the resource's failurePolicy decides what that means. Never guess.
//
// Without wasm, `go test` finds a host in memory: see NewHost.
//
// A Go program takes milliseconds to start, so it wants `isolation: {mode: Pooled}`.
package hookline

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
)

// Memory that the host has a pointer to is kept in `held`, so that the garbage collector leaves it alone until the
// host gives it back.
var held = map[uint32][]byte{}

func hold(block []byte) uint32 {
	at := address(block)
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

// Input is what the host wrote for this call, as it is. It is the host's again when the hook returns.
func Input(at, size uint32) []byte { return held[at][:size] }

// Answer writes anything as JSON to where the host reads it; nil is the hook's default.
func Answer(answer any) uint64 {
	if answer == nil {
		return 0
	}
	text, err := json.Marshal(answer)
	if err != nil {
		Fail(err.Error())
	}
	return written(text)
}

func written(text []byte) uint64 {
	if text == nil {
		return 0
	}
	return uint64(hold(text))<<32 | uint64(len(text))
}

// OnCustom runs a custom_hook: any JSON comes in, and whatever encoding/json writes goes out; nil is no answer.
func OnCustom(at, size uint32, hook func(in json.RawMessage) any) uint64 {
	defer recovered()
	in, err := read(Input(at, size), (*reader).raw)
	if err != nil {
		Fail(err.Error())
	}
	return Answer(hook(in))
}

// failure is a panic whose reason is in the log already.
type failure string

// Fail ends the call with a line in the log and a trap; the resource's failurePolicy decides what that means.
func Fail(why string) {
	Log(Error, why)
	panic(failure(why))
}

// What a panic leaves behind: a line in the log that says what and where, and a call that has failed.
func recovered() {
	why := recover()
	if why == nil {
		return
	}
	if _, told := why.(failure); !told {
		Log(Error, fmt.Sprintf("panic: %v at %s", why, panicked()))
	}
	end(why)
}

// Where the panic came from: the first place that is neither the runtime's nor this package's.
func panicked() string {
	places := make([]uintptr, 32)
	frames := runtime.CallersFrames(places[:runtime.Callers(3, places)])
	for {
		frame, more := frames.Next()
		if frame.File != "" && !strings.HasPrefix(frame.Function, "runtime.") {
			return fmt.Sprintf("%s:%d", short(frame.File), frame.Line)
		}
		if !more {
			return "an unknown place"
		}
	}
}

// The file with the folder that it lies in, as a person looks for it.
func short(path string) string {
	parts := strings.Split(path, "/")
	return strings.Join(parts[max(len(parts)-2, 0):], "/")
}

// HasRole says whether the proxy sent this role: one of the attribute identity.roles, which has commas between them.
func (c HookContext) HasRole(role string) bool {
	for each := range strings.SplitSeq(c.Attributes["identity.roles"], ",") {
		if strings.TrimSpace(each) == role {
			return true
		}
	}
	return false
}
