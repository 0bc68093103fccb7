// What each hook is asked, and what it answers. A hook is one line: `return hook.pre_query(at, len, decide);`
// Written by scripts/write_sdk.py from the contract; do not edit.

import { encode } from "./base64";
import { answer, text } from "./hookline";
import { quoted } from "./json";
import { Reader, Texts, hasPart } from "./read";

/** What a hook answers: JSON, or nothing for its default. */
export class Answer {
  constructor(public json: string) {}
}

function texts(values: string[]): string {
  let out = "";
  for (let i = 0; i < values.length; i++) out += (i ? "," : "") + quoted(values[i]);
  return "[" + out + "]";
}

/** Who asks, and where: the same for every hook of one statement. */
export class HookContext {
  /** Stays the same over every hook of one statement; made by the sidecar where the proxy sends none. */
  requestId: string = "";
  clientId: string | null = null;
  /** The user's name, as the proxy knows it. */
  identity: string | null = null;
  database: string | null = null;
  branch: string | null = null;
  /** Anything else that plugins read; `ATTRIBUTES` has the names that they agree about. */
  attributes: Texts = new Texts();

  static read(reader: Reader): HookContext {
    const found = new HookContext();
    reader.open();
    for (let first = true; reader.next(first); first = false) {
      if (reader.is("request_id")) found.requestId = reader.text();
      else if (reader.is("client_id")) found.clientId = reader.text();
      else if (reader.is("identity")) found.identity = reader.text();
      else if (reader.is("database")) found.database = reader.text();
      else if (reader.is("branch")) found.branch = reader.text();
      else if (reader.is("attributes")) found.attributes = reader.map();
      else reader.skip();
    }
    return found;
  }

  /** An attribute that the proxy sent, such as `tenant_id`. */
  attribute(name: string): string | null {
    return this.attributes.get(name);
  }

  /** Whether the attribute `identity.roles` names this role. */
  hasRole(role: string): bool {
    const roles = this.attributes.get("identity.roles");
    return roles !== null && hasPart(roles, role);
  }
}

/** Input of `authenticate`. */
export class AuthenticateInput {
  /** Names in lower case; repeated headers joined with a comma. */
  headers: Texts = new Texts();
  username: string = "";
  password: string | null = null;
  clientIp: string = "";
  database: string | null = null;
  /** Its `request_id` is the header `x-request-id` where the proxy names it there alone. */
  hookContext: HookContext = new HookContext();

  static read(reader: Reader): AuthenticateInput {
    const found = new AuthenticateInput();
    reader.open();
    for (let first = true; reader.next(first); first = false) {
      if (reader.is("headers")) found.headers = reader.map();
      else if (reader.is("username")) found.username = reader.text();
      else if (reader.is("password")) found.password = reader.text();
      else if (reader.is("client_ip")) found.clientIp = reader.text();
      else if (reader.is("database")) found.database = reader.text();
      else if (reader.is("hook_context")) found.hookContext = HookContext.read(reader);
      else reader.skip();
    }
    return found;
  }

  /** An attribute that the proxy sent, such as `tenant_id`. */
  attribute(name: string): string | null {
    return this.hookContext.attribute(name);
  }

  /** Whether the attribute `identity.roles` names this role. */
  hasRole(role: string): bool {
    return this.hookContext.hasRole(role);
  }
}

/** Who a client is: what `authenticate` answers, and `authorize` is asked with. */
export class Identity {
  /** Stays the same for this client, and is nobody else's. */
  userId: string = "";
  /** For people, and as the user's name in `hook_context.identity`. */
  username: string = "";
  /** What the client may act as; a role has no comma. In later hooks it is the attribute `identity.roles`. */
  roles: string[] = [];
  /** The tenant that the client belongs to; in later hooks it is the attribute of that name. */
  tenantId: string | null = null;
  /** Anything else that was proven of the client, such as the claims of a token. JSON, as it is written. */
  claims: string = "{}";

  static read(reader: Reader): Identity {
    const found = new Identity();
    let seen = 0;
    reader.open();
    for (let first = true; reader.next(first); first = false) {
      if (reader.is("user_id")) { found.userId = reader.text(); seen |= 1; }
      else if (reader.is("username")) { found.username = reader.text(); seen |= 2; }
      else if (reader.is("roles")) found.roles = reader.texts();
      else if (reader.is("tenant_id")) found.tenantId = reader.text();
      else if (reader.is("claims")) found.claims = reader.raw();
      else reader.skip();
    }
    reader.need((seen & 1) != 0, "user_id");
    reader.need((seen & 2) != 0, "username");
    return found;
  }

  /** As JSON. */
  written(): string {
    let out = "";
    out += '{"user_id":' + quoted(this.userId);
    out += ',"username":' + quoted(this.username);
    out += ',"roles":' + texts(this.roles);
    const tenantId = this.tenantId;
    if (tenantId !== null) out += ',"tenant_id":' + quoted(tenantId);
    out += ',"claims":' + this.claims;
    return out + "}";
  }
}

/** Input of `authorize`. */
export class AuthorizeInput {
  /** The statement, as the client sent it. */
  query: string = "";
  /**
   * The statement without its literals. Where the proxy does not compute it, and after a rewrite, guests find the
   * query's own text here, and the attribute `hookline.normalized` is `verbatim`.
   */
  normalized: string = "";
  tables: string[] = [];
  isReadOnly: bool = false;
  hookContext: HookContext = new HookContext();
  identity: Identity | null = null;
  /** What is to be done: a verb of the proxy's, or an HTTP method. Empty where the proxy does not say. */
  action: string = "";
  /** To what: a table, or an HTTP path. Empty where the proxy does not say. */
  resource: string = "";

  static read(reader: Reader): AuthorizeInput {
    const found = new AuthorizeInput();
    let seen = 0;
    reader.open();
    for (let first = true; reader.next(first); first = false) {
      if (reader.is("query")) { found.query = reader.text(); seen |= 1; }
      else if (reader.is("normalized")) found.normalized = reader.text();
      else if (reader.is("tables")) found.tables = reader.texts();
      else if (reader.is("is_read_only")) found.isReadOnly = reader.flag();
      else if (reader.is("hook_context")) found.hookContext = HookContext.read(reader);
      else if (reader.is("identity")) found.identity = Identity.read(reader);
      else if (reader.is("action")) found.action = reader.text();
      else if (reader.is("resource")) found.resource = reader.text();
      else reader.skip();
    }
    reader.need((seen & 1) != 0, "query");
    return found;
  }

  /** An attribute that the proxy sent, such as `tenant_id`. */
  attribute(name: string): string | null {
    return this.hookContext.attribute(name);
  }

  /** Whether the attribute `identity.roles` names this role. */
  hasRole(role: string): bool {
    return this.hookContext.hasRole(role);
  }
}

/** Input of `pre_query`, `rewrite` and `route`. */
export class QueryInput {
  /** The statement, as the client sent it. */
  query: string = "";
  /**
   * The statement without its literals. Where the proxy does not compute it, and after a rewrite, guests find the
   * query's own text here, and the attribute `hookline.normalized` is `verbatim`.
   */
  normalized: string = "";
  tables: string[] = [];
  isReadOnly: bool = false;
  hookContext: HookContext = new HookContext();

  static read(reader: Reader): QueryInput {
    const found = new QueryInput();
    let seen = 0;
    reader.open();
    for (let first = true; reader.next(first); first = false) {
      if (reader.is("query")) { found.query = reader.text(); seen |= 1; }
      else if (reader.is("normalized")) found.normalized = reader.text();
      else if (reader.is("tables")) found.tables = reader.texts();
      else if (reader.is("is_read_only")) found.isReadOnly = reader.flag();
      else if (reader.is("hook_context")) found.hookContext = HookContext.read(reader);
      else reader.skip();
    }
    reader.need((seen & 1) != 0, "query");
    return found;
  }

  /** An attribute that the proxy sent, such as `tenant_id`. */
  attribute(name: string): string | null {
    return this.hookContext.attribute(name);
  }

  /** Whether the attribute `identity.roles` names this role. */
  hasRole(role: string): bool {
    return this.hookContext.hasRole(role);
  }
}

/** Input of `cache_get`. */
export class CacheGetInput {
  /** The statement, as the client sent it. */
  query: string = "";
  /**
   * The statement without its literals. Where the proxy does not compute it, and after a rewrite, guests find the
   * query's own text here, and the attribute `hookline.normalized` is `verbatim`.
   */
  normalized: string = "";
  tables: string[] = [];
  isReadOnly: bool = false;
  hookContext: HookContext = new HookContext();
  key: string = "";

  static read(reader: Reader): CacheGetInput {
    const found = new CacheGetInput();
    let seen = 0;
    reader.open();
    for (let first = true; reader.next(first); first = false) {
      if (reader.is("query")) { found.query = reader.text(); seen |= 1; }
      else if (reader.is("normalized")) found.normalized = reader.text();
      else if (reader.is("tables")) found.tables = reader.texts();
      else if (reader.is("is_read_only")) found.isReadOnly = reader.flag();
      else if (reader.is("hook_context")) found.hookContext = HookContext.read(reader);
      else if (reader.is("key")) { found.key = reader.text(); seen |= 32; }
      else reader.skip();
    }
    reader.need((seen & 1) != 0, "query");
    reader.need((seen & 32) != 0, "key");
    return found;
  }

  /** An attribute that the proxy sent, such as `tenant_id`. */
  attribute(name: string): string | null {
    return this.hookContext.attribute(name);
  }

  /** Whether the attribute `identity.roles` names this role. */
  hasRole(role: string): bool {
    return this.hookContext.hasRole(role);
  }
}

/** Input of `cache_set`. */
export class CacheSetInput {
  /** The statement, as the client sent it. */
  query: string = "";
  /**
   * The statement without its literals. Where the proxy does not compute it, and after a rewrite, guests find the
   * query's own text here, and the attribute `hookline.normalized` is `verbatim`.
   */
  normalized: string = "";
  tables: string[] = [];
  isReadOnly: bool = false;
  hookContext: HookContext = new HookContext();
  key: string = "";
  /** The bytes to store, base64. */
  value: string = "";
  /** -1 where nothing is said. */
  ttlMs: i64 = -1;

  static read(reader: Reader): CacheSetInput {
    const found = new CacheSetInput();
    let seen = 0;
    reader.open();
    for (let first = true; reader.next(first); first = false) {
      if (reader.is("query")) { found.query = reader.text(); seen |= 1; }
      else if (reader.is("normalized")) found.normalized = reader.text();
      else if (reader.is("tables")) found.tables = reader.texts();
      else if (reader.is("is_read_only")) found.isReadOnly = reader.flag();
      else if (reader.is("hook_context")) found.hookContext = HookContext.read(reader);
      else if (reader.is("key")) { found.key = reader.text(); seen |= 32; }
      else if (reader.is("value")) { found.value = reader.text(); seen |= 64; }
      else if (reader.is("ttl_ms")) found.ttlMs = reader.integer();
      else reader.skip();
    }
    reader.need((seen & 1) != 0, "query");
    reader.need((seen & 32) != 0, "key");
    reader.need((seen & 64) != 0, "value");
    return found;
  }

  /** An attribute that the proxy sent, such as `tenant_id`. */
  attribute(name: string): string | null {
    return this.hookContext.attribute(name);
  }

  /** Whether the attribute `identity.roles` names this role. */
  hasRole(role: string): bool {
    return this.hookContext.hasRole(role);
  }
}

/** Input of `on_connect`, `on_disconnect` and `metrics`. */
export class EventInput {
  hookContext: HookContext = new HookContext();
  /** JSON, as it is written. */
  event: string = "{}";

  static read(reader: Reader): EventInput {
    const found = new EventInput();
    reader.open();
    for (let first = true; reader.next(first); first = false) {
      if (reader.is("hook_context")) found.hookContext = HookContext.read(reader);
      else if (reader.is("event")) found.event = reader.raw();
      else reader.skip();
    }
    return found;
  }

  /** An attribute that the proxy sent, such as `tenant_id`. */
  attribute(name: string): string | null {
    return this.hookContext.attribute(name);
  }

  /** Whether the attribute `identity.roles` names this role. */
  hasRole(role: string): bool {
    return this.hookContext.hasRole(role);
  }
}

/** How a statement went; the second element of `post_query`'s input. */
export class Outcome {
  success: bool = false;
  targetNode: string | null = null;
  elapsedUs: i64 = 0;
  responseBytes: i64 = 0;
  error: string | null = null;

  static read(reader: Reader): Outcome {
    const found = new Outcome();
    let seen = 0;
    reader.open();
    for (let first = true; reader.next(first); first = false) {
      if (reader.is("success")) { found.success = reader.flag(); seen |= 1; }
      else if (reader.is("target_node")) found.targetNode = reader.text();
      else if (reader.is("elapsed_us")) found.elapsedUs = reader.integer();
      else if (reader.is("response_bytes")) found.responseBytes = reader.integer();
      else if (reader.is("error")) found.error = reader.text();
      else reader.skip();
    }
    reader.need((seen & 1) != 0, "success");
    return found;
  }
}

/** What `authenticate` answers. */
export class Authenticate extends Answer {
  /** The client is who `identity` says. */
  static success(identity: Identity): Authenticate {
    let out = '{"action":"success"';
    out += ',"identity":' + identity.written();
    return new Authenticate(out + "}");
  }

  /** The client's credentials are wrong. */
  static denied(message: string): Authenticate {
    let out = '{"action":"denied"';
    out += ',"message":' + quoted(message);
    return new Authenticate(out + "}");
  }

  /** No plugin has an opinion; the proxy's own rules apply. */
  static defer(): Authenticate {
    return new Authenticate('');
  }
}

/** What `authorize` answers. */
export class Authorize extends Answer {
  /** The action may be done. */
  static allow(reason: string | null = null): Authorize {
    let out = '{"action":"allow"';
    if (reason !== null) out += ',"reason":' + quoted(reason);
    return new Authorize(out + "}");
  }

  /** The action may not be done. */
  static deny(reason: string | null = null): Authorize {
    let out = '{"action":"deny"';
    if (reason !== null) out += ',"reason":' + quoted(reason);
    return new Authorize(out + "}");
  }

  /** No plugin has an opinion; the proxy's own rules apply. */
  static defer(): Authorize {
    return new Authorize('');
  }
}

/** What `pre_query` answers. */
export class PreQuery extends Answer {
  /** Go on with the query as it is. */
  static continue(): PreQuery {
    return new PreQuery('');
  }

  /** Go on with another query. */
  static rewrite(value: string): PreQuery {
    let out = '{"action":"rewrite"';
    out += ',"value":' + quoted(value);
    return new PreQuery(out + "}");
  }

  /** Refuse the statement. */
  static block(value: string): PreQuery {
    let out = '{"action":"block"';
    out += ',"value":' + quoted(value);
    return new PreQuery(out + "}");
  }

  /** Answer the client with these bytes, and do not run the query. */
  static cached(data: Uint8Array): PreQuery {
    let out = '{"action":"cached"';
    out += ',"data_base64":"' + encode(data) + '"';
    return new PreQuery(out + "}");
  }
}

/** What `rewrite` answers. */
export class Rewrite extends Answer {
  /** Go on with the query as it is. */
  static continue(): Rewrite {
    return new Rewrite('');
  }

  /** Go on with another query. */
  static rewrite(value: string): Rewrite {
    let out = '{"action":"rewrite"';
    out += ',"value":' + quoted(value);
    return new Rewrite(out + "}");
  }

  /** Refuse the statement. */
  static block(value: string): Rewrite {
    let out = '{"action":"block"';
    out += ',"value":' + quoted(value);
    return new Rewrite(out + "}");
  }
}

/** What `route` answers. */
export class Route extends Answer {
  /** Send the statement to the default node, the primary, or any standby. */
  static default(): Route {
    return new Route('');
  }

  /** Send the statement to the default node, the primary, or any standby. */
  static primary(): Route {
    return new Route('{"action":"primary"}');
  }

  /** Send the statement to the default node, the primary, or any standby. */
  static standby(): Route {
    return new Route('{"action":"standby"}');
  }

  /** Send the statement to a node or a branch by name. */
  static node(target: string): Route {
    let out = '{"action":"node"';
    out += ',"target":' + quoted(target);
    return new Route(out + "}");
  }

  /** Send the statement to a node or a branch by name. */
  static branch(target: string): Route {
    let out = '{"action":"branch"';
    out += ',"target":' + quoted(target);
    return new Route(out + "}");
  }

  /** Do not route the statement at all. */
  static block(reason: string): Route {
    let out = '{"action":"block"';
    out += ',"reason":' + quoted(reason);
    return new Route(out + "}");
  }
}

/** What `cache_get` answers. */
export class CacheGet extends Answer {
  /** Answer from the cache. */
  static hit(data: Uint8Array, ttlMs: i64 = -1): CacheGet {
    let out = '{"action":"hit"';
    out += ',"data_base64":"' + encode(data) + '"';
    if (ttlMs >= 0) out += ',"ttl_ms":' + ttlMs.toString();
    return new CacheGet(out + "}");
  }

  /** The cache has nothing. */
  static miss(): CacheGet {
    return new CacheGet('');
  }
}

/** What `cache_set` answers. */
export class CacheSet extends Answer {
  /** Store the value. */
  static store(ttlMs: i64 = -1): CacheSet {
    let out = '{"action":"store"';
    if (ttlMs >= 0) out += ',"ttl_ms":' + ttlMs.toString();
    return new CacheSet(out + "}");
  }

  /** Do not store the value. */
  static skip(): CacheSet {
    return new CacheSet('{"action":"skip"}');
  }
}

/** Each reads the input of a call, asks a function, and packs what it answers. */
export namespace hook {
  export function authenticate(at: usize, len: i32, decide: (input: AuthenticateInput) => Authenticate): u64 {
    const reader = new Reader(text(at, len));
    const input = AuthenticateInput.read(reader);
    reader.end();
    return answer(decide(input).json);
  }

  export function authorize(at: usize, len: i32, decide: (input: AuthorizeInput) => Authorize): u64 {
    const reader = new Reader(text(at, len));
    const input = AuthorizeInput.read(reader);
    reader.end();
    return answer(decide(input).json);
  }

  export function pre_query(at: usize, len: i32, decide: (input: QueryInput) => PreQuery): u64 {
    const reader = new Reader(text(at, len));
    const input = QueryInput.read(reader);
    reader.end();
    return answer(decide(input).json);
  }

  export function rewrite(at: usize, len: i32, decide: (input: QueryInput) => Rewrite): u64 {
    const reader = new Reader(text(at, len));
    const input = QueryInput.read(reader);
    reader.end();
    return answer(decide(input).json);
  }

  export function route(at: usize, len: i32, decide: (input: QueryInput) => Route): u64 {
    const reader = new Reader(text(at, len));
    const input = QueryInput.read(reader);
    reader.end();
    return answer(decide(input).json);
  }

  export function cache_get(at: usize, len: i32, decide: (input: CacheGetInput) => CacheGet): u64 {
    const reader = new Reader(text(at, len));
    const input = CacheGetInput.read(reader);
    reader.end();
    return answer(decide(input).json);
  }

  export function cache_set(at: usize, len: i32, decide: (input: CacheSetInput) => CacheSet): u64 {
    const reader = new Reader(text(at, len));
    const input = CacheSetInput.read(reader);
    reader.end();
    return answer(decide(input).json);
  }

  export function post_query(at: usize, len: i32, decide: (input: QueryInput, outcome: Outcome) => void): u64 {
    const reader = new Reader(text(at, len));
    reader.part(0x5b);
    const input = QueryInput.read(reader);
    reader.part(0x2c);
    const outcome = Outcome.read(reader);
    reader.part(0x5d);
    reader.end();
    decide(input, outcome);
    return 0;
  }

  export function metrics(at: usize, len: i32, decide: (input: EventInput) => void): u64 {
    const reader = new Reader(text(at, len));
    const input = EventInput.read(reader);
    reader.end();
    decide(input);
    return 0;
  }

  export function on_connect(at: usize, len: i32, decide: (input: EventInput) => void): u64 {
    const reader = new Reader(text(at, len));
    const input = EventInput.read(reader);
    reader.end();
    decide(input);
    return 0;
  }

  export function on_disconnect(at: usize, len: i32, decide: (input: EventInput) => void): u64 {
    const reader = new Reader(text(at, len));
    const input = EventInput.read(reader);
    reader.end();
    decide(input);
    return 0;
  }

  /** The input is any JSON; so is the answer. Null is none. */
  export function custom_hook(at: usize, len: i32, decide: (json: string) => string | null): u64 {
    const json = decide(text(at, len));
    return json === null ? 0 : answer(json);
  }
}
