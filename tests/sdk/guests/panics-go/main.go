// Command panics-go panics where it is asked to.
package main

import "hookline"

//go:wasmexport pre_query
func preQuery(at, size uint32) uint64 { return hookline.OnPreQuery(at, size, guard) }

func guard(in *hookline.QueryInput) hookline.PreQueryAnswer {
	var digits [10]int
	digits[len(in.Query)]++
	return hookline.Block(in.Query)
}

func main() {}
