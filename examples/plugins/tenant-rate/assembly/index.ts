// tenant-rate: so many queries in any window for each tenant; over all pods with `kv: {scope: Cluster}`.
//
// The window slides: what a tenant asked in the window before counts by the part of it that is still within reach,
// so that nobody gets twice the rate around the full minute. A query that is blocked does not count.
//
// There are two keys for a tenant, for even and odd windows. A value holds the number of its window beside the count,
// and a count of an old window is replaced by compare-and-set. So no decision depends on a time limit: a call that
// ends in the middle leaves nothing that counts. The limit that is set all the same takes keys of tenants away who
// are gone. Up to 512 tenants at a time fit into the keys of a plugin, of a pod or of the cluster.
//
// Time is each pod's own: their clocks have to agree to a part of the window. Where the store is away, the resource's
// failurePolicy.store decides; where a count cannot be kept for another reason, the call fails (trap).

import {
  PreQuery, QueryInput, config, count, getTime, hook, kvCompareAndSet, kvGetText, kvIncr, kvSetTtl, utf8,
} from "../../../../sdk/hookline_sdk/assemblyscript/hookline";
import { integer, member, textOf } from "../../../../sdk/hookline_sdk/assemblyscript/json";

export { alloc, dealloc } from "../../../../sdk/hookline_sdk/assemblyscript/hookline";

// A value is window * 2^20 + count: below 2^53 for windows of a second or more, so that no engine rounds it.
const BITS: i64 = 20;
const COUNT: i64 = (1 << BITS) - 1;
const MAX_TENANT = 256;
const ATTEMPTS = 32;

function keyOf(tenant: string, window: i64): string {
  return tenant + "/" + (window & 1).toString();
}

function stored(key: string): i64 {
  const value = kvGetText(key);
  return value === null ? 0 : I64.parseInt(value);
}

function add(key: string, by: i64): i64 {
  const sum = kvIncr(key, by);
  assert(sum.error == 0, "a count cannot be kept; is kv.write granted, are there too many tenants?");
  return sum.value;
}

/** Counts one query in a window; how many there are with it. */
function counted(key: string, window: i64, windowMs: i64): i64 {
  let value = add(key, 1);
  for (let i = 0; i < ATTEMPTS; i++) {
    if (value >> BITS == window) return value & COUNT;
    const fresh = ((window << BITS) | 1).toString();
    const swapped = kvCompareAndSet(key, utf8(value.toString()), utf8(fresh));
    assert(swapped.error == 0, "a count cannot be kept; is kv.write granted?");
    if (swapped.value) {
      kvSetTtl(key, 3 * windowMs);
      return 1;
    }
    // Somebody was faster, with a query of the old window or with the new one; or the key has reached its limit.
    value = stored(key);
    if (value == 0 || value >> BITS == window) value = add(key, 1);
  }
  throw new Error("a count cannot be kept: too many others at once");
}

/** Why the query is blocked; null where it is not. */
function problem(tenant: string, queries: i64, windowMs: i64): string | null {
  const now = getTime();
  const window = now / windowMs;
  const key = keyOf(tenant, window);
  const current = counted(key, window, windowMs);
  const other = stored(keyOf(tenant, window + 1));
  // Of the window before; or of the next one, where another pod's clock is ahead.
  const before = other >> BITS >= window - 1 ? min(other & COUNT, queries) : 0;
  const left = windowMs - (now % windowMs);
  if ((before * left) / windowMs + current <= queries) return null;
  add(key, -1);
  return "the tenant's rate is used up";
}

function block(why: string): PreQuery {
  count("blocked_total");
  return PreQuery.block(why);
}

function decide(input: QueryInput): PreQuery {
  const settings = config();
  const tenant = input.attribute("tenant_id");
  if (tenant === null || tenant.length == 0) {
    const without = textOf(settings, member(settings, 0, "without_tenant"));
    return without !== null && without == "continue" ? PreQuery.continue() : block("no tenant_id");
  }
  if (tenant.length > MAX_TENANT) return block("the tenant_id is too long");
  const all = integer(settings, member(settings, 0, "queries"), 0);
  const queries = integer(settings, member(settings, member(settings, 0, "tenants"), tenant), all);
  const why = problem(tenant, queries, integer(settings, member(settings, 0, "window_ms"), 60_000));
  return why === null ? PreQuery.continue() : block(why);
}

export function pre_query(at: usize, len: i32): u64 {
  return hook.pre_query(at, len, decide);
}
