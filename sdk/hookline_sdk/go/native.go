//go:build !wasip1

package hookline

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
)

// Host stands for Hookline where there is no wasm, as in `go test`. It keeps keys and caches in memory, notes what the
// plugin logs and counts, and reaches nobody: what a database or a server would say, the test says.
//
//	host := hookline.NewHost()
//	host.Config = map[string]any{"max_length": 20}
//	answer, err := host.Call(preQuery, `{"query": "select 1"}`)
//
// It is for one test at a time, as a plugin is one call at a time.
type Host struct {
	Config  any                 // spec.config: what the plugin reads, as encoding/json writes it
	Denied  []string            // permissions that the resource does not grant, such as "kv.write"
	Keys    map[string][]byte   // those of the plugin
	Caches  map[string][]byte   // by cache, a slash and key; the cache without a name is ""
	Log     []Line              // what the plugin logged
	Metrics map[string]float64  // counters and gauges, and the sum of what was observed
	Now     int64               // milliseconds since 1970; what GetTime answers
	Fetch   func(Request) any   // what an HTTP request comes to: see Answered
	Query   func(Statement) any // what query_* comes to: see Answered
	next    uint32
}

// Answered is for Fetch and Query: whatever encoding/json writes is what the plugin's call reads, so a Host.Fetch
// answers map[string]any{"status": 200, "body": "…"} and a Host.Query hookline.Rows{…}; a *Failure is one.
type Answered = any

// Line is one of the log.
type Line struct {
	Level Level
	Text  string
}

// Statement is what a database is asked. Of query_get_tables and query_normalize it has the SQL alone.
type Statement struct {
	Function string // query_execute, query_prepare, query_get_tables or query_normalize
	Source   string
	SQL      string
	Params   []any
}

var (
	host   *Host
	onlyMe sync.Mutex
)

// NewHost answers a fresh host, which is the plugin's from now on.
func NewHost() *Host {
	onlyMe.Lock()
	defer onlyMe.Unlock()
	held = map[uint32][]byte{}
	host = &Host{Keys: map[string][]byte{}, Caches: map[string][]byte{}, Metrics: map[string]float64{}, Now: 1_767_225_600_000}
	return host
}

func here() *Host {
	if host == nil {
		return NewHost()
	}
	return host
}

// Ended is why a call failed: the plugin called Fail, or panicked.
type Ended struct{ Why string }

func (e *Ended) Error() string { return "the call failed: " + e.Why }

// The call fails: Call catches this.
func end(why any) { panic(why) }

// Call asks an exported hook as the host does, and answers what it wrote; no text is the hook's default. The error is
// an *Ended.
func (h *Host) Call(hook func(at, size uint32) uint64, input string) (answer string, err error) {
	host = h
	defer func() {
		if why := recover(); why != nil {
			answer, err = "", &Ended{Why: fmt.Sprint(why)}
		}
	}()
	at := alloc(uint32(len(input)))
	copy(held[at], input)
	packed := hook(at, uint32(len(input)))
	if packed != 0 {
		answer = string(Input(uint32(packed>>32), uint32(packed)))
		dealloc(uint32(packed>>32), uint32(packed))
	}
	dealloc(at, uint32(len(input)))
	if err := json.Unmarshal([]byte(answer), new(any)); packed != 0 && err != nil {
		return "", errors.New("the hook answers what is no JSON: " + answer)
	}
	return answer, nil
}

// Logged says whether a line of the log has this in it.
func (h *Host) Logged(part string) bool {
	return slices.ContainsFunc(h.Log, func(line Line) bool { return strings.Contains(line.Text, part) })
}

// A block's address is a number of its own: those of a machine do not fit in 32 bits.
func address([]byte) uint32 {
	h := here()
	h.next++
	return h.next
}

func (h *Host) denies(permission string) bool { return slices.Contains(h.Denied, permission) }

func (h *Host) keys(prefix string) []string {
	found := slices.Sorted(maps.Keys(h.Keys))
	return slices.DeleteFunc(found, func(key string) bool { return !strings.HasPrefix(key, prefix) })
}

// The JSON at a dotted path of the config; nil where there is nothing.
func (h *Host) setting(path string) []byte {
	text, err := json.Marshal(h.Config)
	if err != nil {
		panic("Host.Config is no JSON: " + err.Error())
	}
	for _, name := range strings.Split(path, ".") {
		if path == "" {
			break
		}
		var object map[string]json.RawMessage
		if json.Unmarshal(text, &object) != nil || object[name] == nil {
			return nil
		}
		text = object[name]
	}
	if path == "" && string(text) == "null" {
		return []byte("{}")
	}
	return text
}

func (h *Host) queried(statement Statement) uint64 {
	if h.denies("query.execute") {
		return given(&Failure{Cause: "denied", Message: "the resource does not grant the permission query.execute"})
	}
	if h.Query == nil {
		return given(&Failure{Cause: "failed", Message: "the test has no Host.Query"})
	}
	return given(h.Query(statement))
}

func given(answer any) uint64 {
	if failure, ok := answer.(*Failure); ok {
		answer = map[string]any{"error": failure}
	}
	text, err := json.Marshal(answer)
	if err != nil || reflect.ValueOf(answer).Kind() == reflect.Invalid {
		panic(fmt.Sprintf("the test's answer is no JSON: %v", answer))
	}
	return written(text)
}
