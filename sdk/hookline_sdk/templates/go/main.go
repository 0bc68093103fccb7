// Command my-plugin: only some roles may read some tables.
package main

import (
	"slices"
	"strings"

	"hookline"
)

type config struct {
	Tables []string `json:"tables"`
	Roles  []string `json:"roles"`
}

//go:wasmexport pre_query
func preQuery(at, size uint32) uint64 { return hookline.OnPreQuery(at, size, guard) }

func guard(in *hookline.QueryInput) hookline.PreQueryAnswer {
	var conf config
	hookline.Config(&conf)
	for _, table := range in.Tables {
		limited := slices.ContainsFunc(conf.Tables, func(each string) bool { return strings.EqualFold(each, table) })
		if limited && !slices.ContainsFunc(conf.Roles, in.HookContext.HasRole) {
			return hookline.Block(table + " is not for you")
		}
	}
	return hookline.Continue{}
}

// main is not called: the module is a reactor, and the host calls its exports.
func main() {}
