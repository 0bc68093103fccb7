// Command idle-go calls no host function.
package main

import (
	"encoding/json"

	"hookline"
)

//go:wasmexport custom_hook
func hookCustom(at, size uint32) uint64 {
	return hookline.Answer(json.RawMessage(hookline.Input(at, size)))
}

func main() {}
