// All twelve hooks with their types: each answers what it was asked, in another form.

import {
  Authenticate, AuthenticateInput, Authorize, AuthorizeInput, CacheGet, CacheGetInput, CacheSet, CacheSetInput, EventInput,
  Identity, Level, Outcome, PreQuery, QueryInput, Rewrite, Route, hook, log, utf8,
} from "../../../../../sdk/hookline_sdk/assemblyscript/hookline";
import { quoted } from "../../../../../sdk/hookline_sdk/assemblyscript/json";

export { alloc, dealloc } from "../../../../../sdk/hookline_sdk/assemblyscript/hookline";

function or(text: string | null, otherwise: string): string {
  return text === null ? otherwise : text;
}

export function authenticate(at: usize, len: i32): u64 {
  return hook.authenticate(at, len, (input: AuthenticateInput): Authenticate => {
    if (input.username == "") return Authenticate.denied("no name");
    if (input.username == "?") return Authenticate.defer();
    const found = new Identity();
    found.userId = or(input.headers.get("x-id"), "none");
    found.username = input.username;
    found.roles = [or(input.password, "-")];
    found.tenantId = input.database;
    found.claims = '{"ip":' + quoted(input.clientIp) + "}";
    return Authenticate.success(found);
  });
}

export function authorize(at: usize, len: i32): u64 {
  return hook.authorize(at, len, (input: AuthorizeInput): Authorize => {
    const identity = input.identity;
    if (identity === null) return Authorize.deny();
    if (input.action == "GET") return Authorize.allow(identity.roles.join("+") + " " + identity.claims);
    return input.resource == "" ? Authorize.deny("nothing") : Authorize.defer();
  });
}

export function pre_query(at: usize, len: i32): u64 {
  return hook.pre_query(at, len, (input: QueryInput): PreQuery => {
    if (input.query == "block") return PreQuery.block(input.normalized);
    if (input.query == "rewrite") return PreQuery.rewrite(input.tables.join(","));
    if (input.query == "cached") {
      const bytes = new Uint8Array(2);
      bytes[1] = 255;
      return PreQuery.cached(bytes);
    }
    if (input.query == "panic") throw new Error("boom " + input.normalized);
    assert(input.query != "error", "a cap is reached");
    return PreQuery.continue();
  });
}

export function rewrite(at: usize, len: i32): u64 {
  return hook.rewrite(at, len, (input: QueryInput): Rewrite => {
    const text = input.attribute("t");
    if (text !== null) return Rewrite.rewrite(text);
    return input.hasRole("r") ? Rewrite.block("r") : Rewrite.continue();
  });
}

export function route(at: usize, len: i32): u64 {
  return hook.route(at, len, (input: QueryInput): Route => {
    const context = input.hookContext;
    if (input.query == "primary") return Route.primary();
    if (input.query == "standby") return Route.standby();
    if (input.query == "node") return Route.node(or(context.clientId, "none"));
    if (input.query == "branch") return Route.branch(or(context.branch, "none"));
    return input.query == "block" ? Route.block(or(context.identity, "none")) : Route.default();
  });
}

export function cache_get(at: usize, len: i32): u64 {
  return hook.cache_get(at, len, (input: CacheGetInput): CacheGet => {
    if (input.key == "k") return CacheGet.hit(utf8("hi"));
    return input.key == "t" ? CacheGet.hit(new Uint8Array(0), 5) : CacheGet.miss();
  });
}

export function cache_set(at: usize, len: i32): u64 {
  return hook.cache_set(at, len, (input: CacheSetInput): CacheSet => {
    if (input.ttlMs >= 0) return CacheSet.store(input.ttlMs + input.value.length);
    return input.isReadOnly ? CacheSet.skip() : CacheSet.store();
  });
}

export function post_query(at: usize, len: i32): u64 {
  return hook.post_query(at, len, (input: QueryInput, outcome: Outcome): void => {
    const numbers = outcome.elapsedUs.toString() + " " + outcome.responseBytes.toString();
    const went = outcome.success.toString() + " " + or(outcome.targetNode, "-");
    log(Level.Info, input.query + " " + went + " " + numbers + " " + or(outcome.error, "-"));
  });
}

function seen(input: EventInput): void {
  log(Level.Info, input.hookContext.requestId + " " + input.event);
}

export function metrics(at: usize, len: i32): u64 {
  return hook.metrics(at, len, seen);
}

export function on_connect(at: usize, len: i32): u64 {
  return hook.on_connect(at, len, seen);
}

export function on_disconnect(at: usize, len: i32): u64 {
  return hook.on_disconnect(at, len, seen);
}

export function custom_hook(at: usize, len: i32): u64 {
  return hook.custom_hook(at, len, (json: string): string | null => (json == "null" ? null : json));
}
