import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { reset } from "../hookline-sdk/native.js";
import { call } from "../plugin.js";

function ask(table, roles = "") {
  const input = { query: "select 1", tables: [table], hook_context: { attributes: { "identity.roles": roles } } };
  return JSON.parse(call("pre_query", JSON.stringify(input)) || "null");
}

beforeEach(() => reset({ config: { tables: ["salaries"], roles: ["hr"] } }));

test("a limited table is for its roles", () => {
  assert.deepEqual(ask("salaries", "app"), { action: "block", value: "salaries is not for you" });
  assert.equal(ask("Salaries", "app, hr"), null);
});

test("other tables are for all", () => {
  assert.equal(ask("orders"), null);
});

test("a hook that it does not have fails", () => {
  assert.throws(() => call("route", "{}"), /no function for the hook route/);
});
