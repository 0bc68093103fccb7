//go:build !wasip1

package hookline

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

const query = `{"query": "select 'é\n\u00e9\ud83d\ude00'", "tables": ["a", "b"], "is_read_only": true, "new": [1, {"a": -1.5e3}],
	"hook_context": {"request_id": "r", "client_id": null, "identity": "alice", "attributes": {"tenant_id": "acme"}}}`

func echo(at, size uint32) uint64 {
	return OnPreQuery(at, size, func(in *QueryInput) PreQueryAnswer { return Rewrite(in.Query) })
}

func TestAnInputIsWhatTheProxySaid(t *testing.T) {
	var found QueryInput
	_, err := NewHost().Call(func(at, size uint32) uint64 {
		return OnRoute(at, size, func(in *QueryInput) RouteAnswer { found = *in; return nil })
	}, query)
	if err != nil {
		t.Fatal(err)
	}
	context := found.HookContext
	if found.Query != "select 'é\né😀'" || len(found.Tables) != 2 || !found.IsReadOnly || context.RequestID != "r" ||
		context.ClientID != nil || *context.Identity != "alice" || context.Attributes["tenant_id"] != "acme" {
		t.Fatalf("%+v", found)
	}
}

func TestAnInputThatIsNotWhatTheContractSaysFailsTheCall(t *testing.T) {
	for _, input := range []string{
		"", "null", "[]", `{}`, `{"query": null}`, `{"query": 1}`, `{"QUERY": "select 1"}`, `{"query": "a"} x`,
		`{"query": "a", "tables": [1]}`, `{"query": "a", "is_read_only": "no"}`, `{"query": "a",}`, `{"query": "\x"}`,
		`{"query": "\ud800"}`, "{\"query\": \"\xff\"}", "{\"query\": \"a\nb\"}", `{"query": "a", "x": 01}`, `{"query": "a`,
		`{"query": "a", "hook_context": {"attributes": {"a": 1}}}`, `{"query": "a", "x": ` + strings.Repeat("[", 100) + "}",
	} {
		host := NewHost()
		answer, err := host.Call(echo, input)
		var ended *Ended
		if !errors.As(err, &ended) || answer != "" || !host.Logged("the input is not what the contract says") {
			t.Errorf("%s: %s %v", input, answer, err)
		}
	}
}

func TestTextOfAnyKindComesBackAsItWas(t *testing.T) {
	want := "a\"\\\n\t\x01é😀</script>"
	input, _ := json.Marshal(map[string]string{"query": want})
	answer, err := NewHost().Call(echo, string(input))
	var found struct{ Action, Value string }
	if err != nil || json.Unmarshal([]byte(answer), &found) != nil || found.Value != want || found.Action != "rewrite" {
		t.Fatal(answer, err)
	}
}

func answered[A any](t *testing.T, on func(at, size uint32, hook func(*QueryInput) A) uint64, answer A, want string) {
	t.Helper()
	found, err := NewHost().Call(func(at, size uint32) uint64 {
		return on(at, size, func(*QueryInput) A { return answer })
	}, `{"query": ""}`)
	if err != nil || found != want {
		t.Errorf("%s, %v instead of %s", found, err, want)
	}
}

func TestAnswersAreTheHosts(t *testing.T) {
	answered[PreQueryAnswer](t, OnPreQuery, nil, "")
	answered[PreQueryAnswer](t, OnPreQuery, Continue{}, `{"action":"continue"}`)
	answered[PreQueryAnswer](t, OnPreQuery, Block("no"), `{"action":"block","value":"no"}`)
	answered[PreQueryAnswer](t, OnPreQuery, Cached("ab"), `{"action":"cached","data_base64":"YWI="}`)
	answered[RouteAnswer](t, OnRoute, Block("no"), `{"action":"block","reason":"no"}`)
	answered[RouteAnswer](t, OnRoute, Node("n1"), `{"action":"node","target":"n1"}`)
	answered[RewriteAnswer](t, OnRewrite, Rewrite("select 2"), `{"action":"rewrite","value":"select 2"}`)
}

func TestEveryHookReadsItsInput(t *testing.T) {
	const context = `"hook_context": {"request_id": "r"}`
	ttl := int64(7)
	for want, call := range map[string]struct {
		hook  func(at, size uint32) uint64
		input string
	}{
		`{"action":"success","identity":{"user_id":"u","username":"alice"}}`: {func(at, size uint32) uint64 {
			return OnAuthenticate(at, size, func(in *AuthenticateInput) AuthenticateAnswer {
				return Success{UserID: "u", Username: in.Username}
			})
		}, `{"username": "alice", "password": null, "headers": {"a": "b"}}`},
		`{"action":"deny","reason":"admin"}`: {func(at, size uint32) uint64 {
			return OnAuthorize(at, size, func(in *AuthorizeInput) AuthorizeAnswer { return Deny(in.Identity.Roles[0]) })
		}, `{"query": "", "identity": {"user_id": "1", "username": "u", "roles": ["admin"], "claims": {"n": 9007199254740993}}}`},
		`{"action":"hit","data_base64":"aw==","ttl_ms":7}`: {func(at, size uint32) uint64 {
			return OnCacheGet(at, size, func(in *CacheGetInput) CacheGetAnswer { return Hit{Data: []byte(in.Key), TTLMs: &ttl} })
		}, `{"query": "", "key": "k"}`},
		`{"action":"store","ttl_ms":60}`: {func(at, size uint32) uint64 {
			return OnCacheSet(at, size, func(in *CacheSetInput) CacheSetAnswer { return Store{TTLMs: in.TTLMs} })
		}, `{"query": "", "key": "k", "value": "", "ttl_ms": 60.0}`},
		`"[1]"`: {func(at, size uint32) uint64 {
			return OnCustom(at, size, func(in json.RawMessage) any { return string(in) })
		}, ` [1] `},
	} {
		if found, err := NewHost().Call(call.hook, call.input); err != nil || found != want {
			t.Errorf("%s, %v instead of %s", found, err, want)
		}
	}
	seen := ""
	_, err := NewHost().Call(func(at, size uint32) uint64 {
		return OnPostQuery(at, size, func(in *QueryInput, outcome *Outcome) { seen = in.Query + *outcome.Error })
	}, `[{"query": "q"}, {"success": false, "elapsed_us": 5, "error": "e"}]`)
	if err != nil || seen != "qe" {
		t.Error(seen, err)
	}
	_, err = NewHost().Call(func(at, size uint32) uint64 {
		return OnConnect(at, size, func(in *EventInput) { seen = in.Event["n"].(json.Number).String() })
	}, `{`+context+`, "event": {"n": 9007199254740993}}`)
	if err != nil || seen != "9007199254740993" {
		t.Error(seen, err)
	}
}

func TestAPanicIsALineWithItsPlaceAndAFailedCall(t *testing.T) {
	host := NewHost()
	_, err := host.Call(func(at, size uint32) uint64 {
		return OnPreQuery(at, size, func(in *QueryInput) PreQueryAnswer { return Block(in.Tables[3]) })
	}, `{"query": ""}`)
	if err == nil || !host.Logged("panic: runtime error: index out of range [3] with length 0 at go/hookline_test.go:") {
		t.Fatal(err, host.Log)
	}
	if host.Log[0].Level != Error {
		t.Fatal(host.Log)
	}
}

func TestKeysAreThoseOfAnyHost(t *testing.T) {
	host := NewHost()
	sum, err := KVIncr("n", 5)
	if err != nil || sum != 5 || string(host.Keys["n"]) != "5" {
		t.Fatal(sum, err)
	}
	if done, err := KVCompareAndSet("n", []byte("5"), []byte("x")); !done || err != nil {
		t.Fatal(done, err)
	}
	if done, _ := KVCompareAndSet("n", nil, []byte("y")); done {
		t.Fatal("it is there")
	}
	if _, err := KVIncr("n", 1); err == nil {
		t.Fatal("x is no number")
	}
	if keys, err := KVList(""); err != nil || len(keys) != 1 || string(KVGet(keys[0])) != "x" {
		t.Fatal(keys, err)
	}
	host.Denied = []string{"kv.write", "kv.read"}
	if _, err := KVList(""); err != ErrDenied {
		t.Fatal(err)
	}
	if KVSet("m", nil) == nil || KVGet("n") != nil {
		t.Fatal("it is denied")
	}
}

func TestSettingsHashesAndCaches(t *testing.T) {
	host := NewHost()
	host.Config = map[string]any{"a": map[string]any{"b": 7}}
	if found, err := GetConfig("a.b"); string(found) != "7" || err != nil {
		t.Fatal(string(found), err)
	}
	if found, err := GetConfig("a.c"); found != nil || err != nil {
		t.Fatal(string(found), err)
	}
	if hex, err := SHA256Hex([]byte("abc")); hex[:8] != "ba7816bf" || err != nil {
		t.Fatal(hex, err)
	}
	if err := CacheSet("", "k", []byte("v"), 0); err != nil {
		t.Fatal(err)
	}
	if found, err := CacheGet("", "k"); string(found) != "v" || err != nil {
		t.Fatal(string(found), err)
	}
	Count("n_total")
	if host.Metrics["n_total"] != 1 || GetTime() != host.Now {
		t.Fatal(host.Metrics)
	}
}

func TestWhatADatabaseAndAServerSayIsTheTests(t *testing.T) {
	host := NewHost()
	if _, err := QueryExecute("s", "select 1"); err == nil {
		t.Fatal("nobody answers")
	}
	host.Query = func(asked Statement) any {
		if asked.Params[0] != "alice" {
			return &Failure{Cause: "failed", Message: "no", SQLState: "42601"}
		}
		return Rows{Columns: []Column{{Name: "role", Type: "text"}}, Rows: [][]json.RawMessage{{[]byte(`"reader"`)}}}
	}
	rows, err := QueryExecute("s", "select role", "alice")
	var role string
	if err != nil || rows.Scan(0, &role) != nil || role != "reader" {
		t.Fatal(rows, err)
	}
	var failure *Failure
	if _, err := QueryExecute("s", "select role", "bob"); !errors.As(err, &failure) || failure.SQLState != "42601" {
		t.Fatal(err)
	}
	host.Fetch = func(asked Request) any { return map[string]any{"status": 200, "body": asked.URL} }
	if got, err := HTTPFetch(Request{Method: "GET", URL: "https://a/"}); err != nil || string(got.Body) != "https://a/" {
		t.Fatal(got, err)
	}
}
