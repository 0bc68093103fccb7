// read-replica: reads go to a standby, but a client that wrote reads its own writes.
//
// A standby is behind the primary by some milliseconds. So for `sticky_ms` after a write, reads of the same
// client go to the primary. The time of the last write is kept for 512 groups of clients, by a hash of their
// ids: that bounds the keys, and costs no more than a few reads that a standby could have had.

import {
  QueryInput, Route, config, getTime, hook, kvGetText, kvSet, utf8,
} from "../../../../sdk/hookline_sdk/assemblyscript/hookline";
import { integer, member, texts } from "../../../../sdk/hookline_sdk/assemblyscript/json";

export { alloc, dealloc } from "../../../../sdk/hookline_sdk/assemblyscript/hookline";

const GROUPS: u32 = 512;

function group(client: string): string {
  let hash: u32 = 0x811c9dc5; // FNV-1a
  for (let i = 0; i < client.length; i++) hash = (hash ^ client.charCodeAt(i)) * 0x01000193;
  return "wrote/" + (hash % GROUPS).toString();
}

function last(name: string): string {
  return name.substring(name.lastIndexOf(".") + 1).toLowerCase();
}

function decide(input: QueryInput): Route {
  const settings = config();
  const client = input.hookContext.clientId;
  const key = group(client ? client : "");

  if (!input.isReadOnly) {
    assert(kvSet(key, utf8(getTime().toString())), "a write cannot be remembered; is kv.write granted?");
    return Route.primary();
  }
  const primary = texts(settings, member(settings, 0, "primary_tables"));
  for (let i = 0; i < input.tables.length; i++) {
    if (primary.includes(last(input.tables[i]))) return Route.primary();
  }
  const wrote = kvGetText(key);
  const sticky = integer(settings, member(settings, 0, "sticky_ms"), 2000);
  return wrote !== null && getTime() - I64.parseInt(wrote) < sticky ? Route.primary() : Route.standby();
}

export function route(at: usize, len: i32): u64 {
  return hook.route(at, len, decide);
}
