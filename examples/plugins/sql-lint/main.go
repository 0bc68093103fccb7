// Command sql-lint finds SQL that is slow or wrong more often than not, and warns about it or blocks it.
//
// It shows what a plugin in Go looks like: the standard library and the SDK alone.
package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"hookline"
)

type input struct {
	Query       string `json:"query"`
	HookContext struct {
		Attributes map[string]string `json:"attributes"`
	} `json:"hook_context"`
}

type config struct {
	Rules              map[string]string `json:"rules"`
	ExemptApplications []string          `json:"exempt_applications"`
}

type decision struct {
	Action string `json:"action"`
	Value  string `json:"value,omitempty"`
}

//go:wasmexport pre_query
func hookPreQuery(at, size uint32) uint64 { return hookline.Answer(preQuery(hookline.Input(at, size))) }

func preQuery(raw []byte) decision {
	var in input
	if err := json.Unmarshal(raw, &in); err != nil {
		hookline.Fail("the input is not JSON: " + err.Error())
	}
	var conf config
	hookline.Config(&conf)
	if slices.Contains(conf.ExemptApplications, in.HookContext.Attributes["application_name"]) {
		return decision{Action: "continue"}
	}
	var blocked []string
	for _, found := range lint(in.Query) {
		switch conf.Rules[found.rule] {
		case "off":
		case "block":
			hookline.Count("blocked_total")
			blocked = append(blocked, found.String())
		default:
			hookline.Count("warned_total")
			hookline.Log(hookline.Warn, found.String())
		}
	}
	if len(blocked) > 0 {
		return decision{Action: "block", Value: strings.Join(blocked, "; ")}
	}
	return decision{Action: "continue"}
}

func (f finding) String() string { return fmt.Sprintf("%s: %s", f.rule, f.why) }

// main is not called: the module is a reactor, and the host calls its exports.
func main() {}
