// read-replica: reads go to a standby, but a client that wrote reads its own writes.
//
// A standby is behind the primary by some milliseconds. So for `sticky_ms` after a write, reads of the same
// client go to the primary. The time of the last write is kept for 512 groups of clients, by a hash of their
// ids: that bounds the keys, and costs no more than a few reads that a standby could have had.

import { answer, config, getTime, kvGetText, kvSet, text, utf8 } from "../../../../sdk/hookline_sdk/assemblyscript/hookline";
import { integer, isTrue, member, textOf, texts } from "../../../../sdk/hookline_sdk/assemblyscript/json";

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

function decide(input: string, settings: string): string {
  const context = member(input, 0, "hook_context");
  const client = textOf(input, member(input, context, "client_id"));
  const key = group(client ? client : "");
  const sticky = integer(settings, member(settings, 0, "sticky_ms"), 2000);

  if (!isTrue(input, member(input, 0, "is_read_only"))) {
    assert(kvSet(key, utf8(getTime().toString())), "a write cannot be remembered; is kv.write granted?");
    return "primary";
  }
  const tables = texts(input, member(input, 0, "tables"));
  const primary = texts(settings, member(settings, 0, "primary_tables"));
  for (let i = 0; i < tables.length; i++) {
    if (primary.includes(last(tables[i]))) return "primary";
  }
  const wrote = kvGetText(key);
  return wrote !== null && getTime() - I64.parseInt(wrote) < sticky ? "primary" : "standby";
}

export function route(at: usize, len: i32): u64 {
  return answer('{"action":"' + decide(text(at, len), config()) + '"}');
}
