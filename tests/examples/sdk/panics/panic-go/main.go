// Command panic-go looks for a rule that is not there.
package main

import "hookline"

//go:noinline
func rule(rules []string, number int) string { return rules[number] }

//go:wasmexport custom_hook
func hookCustom(at, size uint32) uint64 {
	return hookline.Answer(rule(nil, len(hookline.Input(at, size))))
}

func main() {}
