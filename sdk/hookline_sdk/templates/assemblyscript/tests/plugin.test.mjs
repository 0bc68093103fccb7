import assert from "node:assert/strict";
import test from "node:test";
import { Trap, load } from "../hookline-sdk/testing.mjs";

const MODULE = new URL("../build/my-plugin.wasm", import.meta.url);
const config = { tables: ["salaries"], roles: ["hr"] };
const question = (table, roles) => ({
  query: "SELECT 1", tables: [table], hook_context: { attributes: { "identity.roles": roles } },
});

test("a limited table is for its roles", () => {
  const plugin = load(MODULE, { config });
  assert.deepEqual(plugin.ask("pre_query", question("salaries", "app")), { action: "block", value: "salaries is not for you" });
  assert.deepEqual(plugin.ask("pre_query", question("salaries", "app, hr")), { action: "continue" });
});

test("other tables are for all", () => {
  assert.deepEqual(load(MODULE, { config }).ask("pre_query", question("orders", "")), { action: "continue" });
});

test("without its settings, and asked what is no input, it fails and says why", () => {
  const plugin = load(MODULE, { permissions: [] });
  assert.throws(() => plugin.ask("pre_query", question("orders", "")), Trap);
  assert.throws(() => plugin.ask("pre_query", {}), /query is missing/);
});
