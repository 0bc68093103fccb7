import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { reset } from "../hookline-sdk/native.js";
import { call } from "../plugin.js";

const ask = (query) => JSON.parse(call("pre_query", JSON.stringify({ query })) || "null");

beforeEach(() => reset());

test("a drop is refused", () => {
  assert.deepEqual(ask("DROP TABLE t"), { action: "block", value: "drop is not allowed" });
});

test("the settings say why", () => {
  reset({ config: { because: ": ask the owner" } });
  assert.equal(ask("truncate t").value, "truncate is not allowed: ask the owner");
});

test("anything else goes on", () => {
  assert.equal(ask("select 1"), null);
});

test("a hook that it does not have fails", () => {
  assert.throws(() => call("route", "{}"), /no function for the hook route/);
});
