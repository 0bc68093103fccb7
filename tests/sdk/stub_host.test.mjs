// The host for tests in Node.js (sdk/hookline_sdk/assemblyscript/testing.mjs), and how inputs are read.
// Run by test_native_tests.py, with MODULES: the folder of hooks-assemblyscript.wasm and probe-assemblyscript.wasm.

import assert from "node:assert/strict";
import test from "node:test";
import { Trap, load } from "../../sdk/hookline_sdk/assemblyscript/testing.mjs";

const HOOKS = `${process.env.MODULES}/hooks-assemblyscript.wasm`;
const PROBE = `${process.env.MODULES}/probe-assemblyscript.wasm`;

/** A host, and how to call one of its functions: the probe does what it is told. */
function probe(options) {
  const plugin = load(PROBE, options);
  return [plugin, (...fields) => JSON.parse(plugin.askText("custom_hook", fields.join("\u001f")))];
}

test("a malformed input is refused with the reason", () => {
  const plugin = load(HOOKS);
  const reasons = {
    "": "an object was expected (at character 0)",
    "{}": "query is missing (at character 2)",
    '{"query":null}': "query is missing (at character 14)",
    '{"query":7}': "a text was expected (at character 9)",
    '{"query":"q","tables":{}}': "a list was expected (at character 22)",
    '{"query":"q","is_read_only":"true"}': "true or false was expected (at character 28)",
    '{"query":"q"} x': "there is something behind it (at character 14)",
    '{"query":"q",}': "a text was expected (at character 13)",
    '{"query":"q" "x":1}': "a comma is missing (at character 13)",
    '{"query" "q"}': "a colon is missing (at character 9)",
    '{"query":"\\x"}': "an escape is none (at character 13)",
    '{"query":"\\u00g0"}': "an escape is none (at character 17)",
    '{"query":"q': "a text does not end (at character 11)",
    '{"x":[1,],"query":"q"}': "it is no JSON (at character 8)",
    '{"x":tru,"query":"q"}': "it is no JSON (at character 5)",
    '{"x":1.,"query":"q"}': "it is no JSON (at character 7)",
    '{"query":"q","hook_context":{"attributes":{"a":1}}}': "a text was expected (at character 47)",
    [`{"query":"q","x":${"[".repeat(5000)}`]: "it is nested too deeply (at character 80)",
  };
  for (const [text, reason] of Object.entries(reasons)) {
    assert.throws(() => plugin.askText("pre_query", text), Trap, text);
    assert.match(plugin.log.at(-1).text, new RegExp(`^the input is malformed: ${reason.replace(/[()]/g, "\\$&")} \\(at `), text);
  }
  assert.throws(() => plugin.askText("cache_set", '{"query":"","key":"","value":"","ttl_ms":1.5}'), /a whole number was expected/);
  assert.throws(() => plugin.askText("cache_set", '{"query":"","key":"","value":"","ttl_ms":9223372036854775808}'), Trap);
  assert.throws(() => plugin.askText("post_query", '[{"query":"q"}]'), /a list of two was expected/);
});

test("what is escaped is read, and what may be left out is empty", () => {
  const plugin = load(HOOKS);
  const read = (text) => JSON.parse(plugin.askText("pre_query", `{"normalized":${text},"x":{"query":[true,-1.5e+3]},"\\u0071uery":"block"}`)).value;
  assert.equal(read('"\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\ud83d\\uDE00"'), '"\\/\b\f\n\r\té😀');
  assert.equal(read("null"), "");
  assert.deepEqual(plugin.ask("authorize", { query: "q" }), { action: "deny" });
});

test("keys are kept and counted, and go with their time", () => {
  const [plugin, call] = probe({ kv: { a: "1" }, time: 1000 });
  assert.equal(call("kv_get", "a"), "some|1");
  assert.equal(call("kv_incr", "a", "41"), "42");
  assert.equal(call("kv_set", "b", "x"), "ok");
  assert.equal(call("kv_incr", "b", "1"), "error|-6");
  assert.equal(call("kv_compare_and_set", "c", "-", "y"), "true");
  assert.equal(call("kv_compare_and_set", "c", "-", "z"), "false");
  assert.equal(call("kv_compare_and_set", "c", "y", "z"), "true");
  assert.equal(call("kv_list", ""), "a,b,c");
  assert.equal(call("kv_set_ttl", "c", "10"), "true");
  plugin.time += 9;
  assert.equal(plugin.value("c"), "z");
  plugin.time += 1;
  assert.equal(plugin.value("c"), undefined);
  assert.equal(call("kv_set_ttl", "c", "10"), "false");
  assert.equal(call("kv_delete", "a"), "ok");
  assert.equal(call("kv_get", "a"), "none");
  for (let i = 0; i < 1023; i++) call("kv_incr", `n${i}`, "1");
  assert.equal(call("kv_compare_and_set", "one more", "-", ""), "error|-5");
});

test("what is not granted is denied", () => {
  const [plugin, call] = probe({ permissions: ["metrics"], kv: { a: "1" } });
  assert.equal(call("get_config", ""), "error|-3");
  assert.equal(call("kv_get", "a"), "none");
  assert.equal(call("kv_list", ""), "error|-3");
  assert.equal(call("cache_get", "", "a"), "error|-3");
  assert.equal(call("hmac_sha256", "", ""), "error|-3");
  assert.match(call("query_normalize", "q"), /^failure\|denied\|/);
  assert.equal(call("metric_inc", "n", "6"), "ok");
  assert.equal(plugin.metric("n"), 1.5);
});

test("settings, hashes, caches and answers are those of the test", () => {
  const [plugin, call] = probe({
    config: { a: { b: [1] } },
    answers: { query_normalize: (sql) => (sql === "q" ? { sql: "n" } : undefined), http_post: { status: 204, headers: {}, body: "" } },
  });
  assert.equal(call("get_config", "a.b"), "some|[1]");
  assert.equal(call("get_config", "a.toString"), "none");
  assert.equal(call("sha256_hex", "abc"), "some|ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  assert.equal(call("cache_set", "one", "k", "v", "5"), "ok");
  assert.equal(call("cache_get", "one", "k"), "some|v");
  assert.equal(call("cache_get", "two", "k"), "none");
  plugin.time += 5;
  assert.equal(call("cache_exists", "one", "k"), "false");
  assert.equal(call("query_normalize", "q"), "n");
  assert.match(call("query_normalize", "x"), /^failure\|unavailable\|/);
  assert.equal(call("http_post", "u", "t", "b"), "204|||false");
  assert.equal(call("random", "5000"), "error|-2");
  call("log", "3", "é");
  assert.deepEqual(plugin.log, [{ level: "warn", text: "é" }]);
});
