// Everything a Hookline plugin in AssemblyScript needs: typed inputs and answers for each hook, and the host's functions.
//
//     import { PreQuery, QueryInput, hook } from "../hookline-sdk/hookline";
//     export { alloc, dealloc } from "../hookline-sdk/hookline";
//
//     function decide(input: QueryInput): PreQuery {
//       if (!input.tables.includes("salaries") || input.hasRole("hr")) return PreQuery.continue();
//       return PreQuery.block("salaries are for the role hr");
//     }
//     export function pre_query(at: usize, len: i32): u64 {
//       return hook.pre_query(at, len, decide);
//     }
//
// Compile with `--use abort=…/hookline/abort`: a failed assertion and a thrown error come to a line in the log and a
// trap, and the resource's failurePolicy decides what that means. Never guess.
//
// The host functions are as docs/author/guest-abi.md has them. A plugin imports those alone that it calls, and `log`.
// All of them look blocking; while one waits, others are answered. What went wrong is in `error`, as nothing can be
// caught: 0, or a code.

export * from "./types";
export { Texts, sameName } from "./read";

import { decode, encode } from "./base64";
import { decimal, integer, isTrue, member, names, quoted, textOf } from "./json";

@external("env", "kv_get")
declare function hostKvGet(key: usize, keyLen: i32, out: usize, outMax: i32): i32;
@external("env", "kv_set")
declare function hostKvSet(key: usize, keyLen: i32, value: usize, valueLen: i32): i32;
@external("env", "kv_delete")
declare function hostKvDelete(key: usize, keyLen: i32): i32;
@external("env", "sha256_hex")
declare function hostSha256Hex(data: usize, dataLen: i32, out: usize): i32;
@external("hookline", "log")
declare function hostLog(level: i32, line: usize, len: i32): i32;
@external("hookline", "get_time")
declare function hostGetTime(): i64;
@external("hookline", "random")
declare function hostRandom(out: usize, len: i32): i32;
@external("hookline", "get_config")
declare function hostGetConfig(path: usize, len: i32): u64;
@external("hookline", "metric_inc")
declare function hostMetricInc(name: usize, len: i32, by: f64): i32;
@external("hookline", "metric_gauge")
declare function hostMetricGauge(name: usize, len: i32, value: f64): i32;
@external("hookline", "metric_observe")
declare function hostMetricObserve(name: usize, len: i32, value: f64): i32;
@external("hookline", "hmac_sha256")
declare function hostHmacSha256(key: usize, keyLen: i32, data: usize, dataLen: i32, out: usize): i32;
@external("hookline", "kv_list")
declare function hostKvList(prefix: usize, len: i32): u64;
@external("hookline", "kv_incr")
declare function hostKvIncr(key: usize, keyLen: i32, by: i64): i64;
@external("hookline", "kv_compare_and_set")
declare function hostKvCompareAndSet(key: usize, keyLen: i32, was: usize, wasLen: i32, value: usize, valueLen: i32): i32;
@external("hookline", "kv_set_ttl")
declare function hostKvSetTtl(key: usize, keyLen: i32, ttlMs: i64): i32;
@external("hookline", "query_execute")
declare function hostQueryExecute(
  source: usize, sourceLen: i32, sql: usize, sqlLen: i32, params: usize, paramsLen: i32,
): u64;
@external("hookline", "query_prepare")
declare function hostQueryPrepare(source: usize, sourceLen: i32, sql: usize, sqlLen: i32): u64;
@external("hookline", "query_get_tables")
declare function hostQueryGetTables(sql: usize, len: i32): u64;
@external("hookline", "query_normalize")
declare function hostQueryNormalize(sql: usize, len: i32): u64;
@external("hookline", "cache_get")
declare function hostCacheGet(cache: usize, cacheLen: i32, key: usize, keyLen: i32): u64;
@external("hookline", "cache_exists")
declare function hostCacheExists(cache: usize, cacheLen: i32, key: usize, keyLen: i32): i32;
@external("hookline", "cache_set")
declare function hostCacheSet(
  cache: usize, cacheLen: i32, key: usize, keyLen: i32, value: usize, valueLen: i32, ttlMs: i64,
): i32;
@external("hookline", "cache_delete")
declare function hostCacheDelete(cache: usize, cacheLen: i32, key: usize, keyLen: i32): i32;
@external("hookline", "http_fetch")
declare function hostHttpFetch(request: usize, len: i32): u64;
@external("hookline", "http_post")
declare function hostHttpPost(url: usize, urlLen: i32, type: usize, typeLen: i32, body: usize, bodyLen: i32): u64;

// ---- Memory, inputs and answers. ----

// Blocks for the host are taken outside of the garbage collector's sight, and freed when the host says so.
export function alloc(size: i32): usize {
  return heap.alloc(size);
}

export function dealloc(at: usize, size: i32): void {
  heap.free(at);
}

/** What a failed assertion and a thrown error come to: a line in the log and a trap. */
export function abort(message: string | null, file: string | null, line: u32, column: u32): void {
  const place = (file ? file : "") + ":" + decimal(line) + ":" + decimal(column);
  const said = utf8((message ? message : "aborted") + " (at " + place + ")");
  hostLog(Level.Error, said.dataStart, said.byteLength);
  unreachable();
}

/** The text that the host wrote for this call. */
export function text(at: usize, len: i32): string {
  return String.UTF8.decodeUnsafe(at, len);
}

/** Copies an answer to where the host frees it, and packs pointer and length. An empty one is the hook's default. */
export function answer(json: string): u64 {
  if (json.length == 0) return 0;
  const bytes = utf8(json);
  const at = heap.alloc(bytes.byteLength);
  memory.copy(at, bytes.dataStart, bytes.byteLength);
  return ((<u64>at) << 32) | (<u64>bytes.byteLength);
}

/** Half of a surrogate pair becomes U+FFFD: a host takes UTF-8 alone. */
export function utf8(text: string): Uint8Array {
  return Uint8Array.wrap(String.UTF8.encode(text, false, String.UTF8.ErrorMode.REPLACE));
}

// ---- What they answer. ----

export enum Code {
  None = 0,
  Memory = -1, // a pointer or length outside memory; of kvSet, kvDelete and sha256Hex anything
  Size = -2, // too large
  Denied = -3, // the resource does not grant the permission
  Argument = -4, // a malformed argument, or a cache that the resource does not name
  Cap = -5, // a cap is reached
  Unavailable = -6, // not now
}

/** Bytes, or nothing (`value` is null), or an error. */
export class Bytes {
  constructor(
    public value: Uint8Array | null,
    public error: i32,
  ) {}

  /** The bytes as text; null where there is nothing. */
  get text(): string | null {
    const value = this.value;
    return value ? String.UTF8.decodeUnsafe(value.dataStart, value.byteLength) : null;
  }
}

/** A number, or an error. */
export class Num {
  constructor(
    public value: i64,
    public error: i32,
  ) {}
}

/** Whether, or an error. */
export class Bool {
  constructor(
    public value: bool,
    public error: i32,
  ) {}
}

/** Why a statement or a request came to nothing. */
export class Failure {
  constructor(
    /** `timeout`, `denied`, `limit` or `failed`. */
    public cause: string,
    /** One sentence. */
    public message: string,
    /** Where PostgreSQL said it. */
    public sqlstate: string | null,
  ) {}
}

/** JSON, or a failure. */
export class Reply {
  constructor(
    public json: string,
    public failure: Failure | null,
  ) {}
}

// The bytes that the host put where our alloc said.
function unpack(packed: u64): Bytes {
  const at = <usize>(packed >> 32);
  const len = <i32>packed;
  if (at == 0) return new Bytes(null, -len);
  const value = new Uint8Array(len);
  memory.copy(value.dataStart, at, len);
  heap.free(at);
  return new Bytes(value, 0);
}

function done(answer: i32): i32 {
  return min(answer, 0);
}

function yes(answer: i32): Bool {
  return new Bool(answer == 1, min(answer, 0));
}

function reply(packed: u64): Reply {
  const bytes = unpack(packed);
  const json = bytes.text;
  if (json === null || json.length == 0) {
    return new Reply("", new Failure("failed", "the host answered " + (bytes.error ? "-" : "") + decimal(-bytes.error), null));
  }
  const error = member(json, 0, "error");
  if (error < 0) return new Reply(json, null);
  const cause = textOf(json, member(json, error, "cause"));
  const message = textOf(json, member(json, error, "message"));
  const sqlstate = textOf(json, member(json, error, "sqlstate"));
  return new Reply("", new Failure(cause ? cause : "failed", message ? message : "", sqlstate));
}

// ---- Log, time, chance, settings. ----

export enum Level {
  Trace,
  Debug,
  Info,
  Warn,
  Error,
}

export function log(level: Level, line: string): void {
  const bytes = utf8(line);
  hostLog(level, bytes.dataStart, bytes.byteLength);
}

/** Milliseconds since 1970, UTC. */
export function getTime(): i64 {
  return hostGetTime();
}

/** Up to 4096 bytes from the system's generator. */
export function random(length: i32): Bytes {
  const out = new Uint8Array(length);
  const error = done(hostRandom(out.dataStart, length));
  return new Bytes(error ? null : out, error);
}

/** JSON of the setting at a dotted path; nothing where there is none. */
export function getConfig(path: string): Bytes {
  const bytes = utf8(path);
  return unpack(hostGetConfig(bytes.dataStart, bytes.byteLength));
}

/** The whole config, JSON. Without the permission the call fails: a guard must not run on defaults unnoticed. */
export function config(): string {
  const found = getConfig("");
  assert(found.error == 0, "the config cannot be read; is the permission config.read granted?");
  const json = found.text;
  return json === null ? "{}" : json;
}

// ---- Metrics. ----

export function metricInc(name: string, by: f64): i32 {
  const bytes = utf8(name);
  return done(hostMetricInc(bytes.dataStart, bytes.byteLength, by));
}

export function metricGauge(name: string, value: f64): i32 {
  const bytes = utf8(name);
  return done(hostMetricGauge(bytes.dataStart, bytes.byteLength, value));
}

export function metricObserve(name: string, value: f64): i32 {
  const bytes = utf8(name);
  return done(hostMetricObserve(bytes.dataStart, bytes.byteLength, value));
}

/** Adds one to a counter. Without the permission `metrics` nothing is counted, and nothing breaks. */
export function count(name: string): void {
  metricInc(name, 1);
}

// ---- Hashes. ----

/** 64 lower-case hexadecimal digits; null where it cannot be done. */
export function sha256Hex(data: Uint8Array): string | null {
  const out = new Uint8Array(64);
  const length = hostSha256Hex(data.dataStart, data.byteLength, out.dataStart);
  return length == 64 ? String.UTF8.decodeUnsafe(out.dataStart, 64) : null;
}

/** 32 bytes. */
export function hmacSha256(key: Uint8Array, data: Uint8Array): Bytes {
  const out = new Uint8Array(32);
  const error = done(hostHmacSha256(key.dataStart, key.byteLength, data.dataStart, data.byteLength, out.dataStart));
  return new Bytes(error ? null : out, error);
}

// ---- Keys: the pod's own, or the cluster's, as the resource says. Each call is atomic. ----

/** Bytes of a key, and of a value. */
export const KV_MAX = 65536;

/** The value of a key; null where there is none, and without the permission: who must tell them apart asks kvList. */
export function kvGet(key: string): Uint8Array | null {
  const name = utf8(key);
  let room = 4096;
  let out = new Uint8Array(room);
  let length = hostKvGet(name.dataStart, name.byteLength, out.dataStart, room);
  if (length == Code.Size) {
    room = KV_MAX;
    out = new Uint8Array(room);
    length = hostKvGet(name.dataStart, name.byteLength, out.dataStart, room);
  }
  return length < 0 ? null : out.subarray(0, length);
}

/** The same, of a value that is text. */
export function kvGetText(key: string): string | null {
  return new Bytes(kvGet(key), 0).text;
}

export function kvSet(key: string, value: Uint8Array): bool {
  const name = utf8(key);
  return hostKvSet(name.dataStart, name.byteLength, value.dataStart, value.byteLength) == 0;
}

export function kvDelete(key: string): bool {
  const name = utf8(key);
  return hostKvDelete(name.dataStart, name.byteLength) == 0;
}

/** A JSON array of the keys with that prefix, in order. */
export function kvList(prefix: string): Bytes {
  const bytes = utf8(prefix);
  return unpack(hostKvList(bytes.dataStart, bytes.byteLength));
}

/** Adds to a decimal number; the sum. What went wrong is not said: a permission, a cap, no number. */
export function kvIncr(key: string, by: i64): Num {
  const name = utf8(key);
  const sum = hostKvIncr(name.dataStart, name.byteLength, by);
  return sum == i64.MIN_VALUE ? new Num(0, Code.Unavailable) : new Num(sum, 0);
}

/** Whether the value was `was` (null: there was no such key) and is `value` now. */
export function kvCompareAndSet(key: string, was: Uint8Array | null, value: Uint8Array): Bool {
  const name = utf8(key);
  const at = was ? was.dataStart : 0;
  const len = was ? was.byteLength : -1;
  return yes(hostKvCompareAndSet(name.dataStart, name.byteLength, at, len, value.dataStart, value.byteLength));
}

/** Whether there is such a key. 0 or less takes the limit off. */
export function kvSetTtl(key: string, ttlMs: i64): Bool {
  const name = utf8(key);
  return yes(hostKvSetTtl(name.dataStart, name.byteLength, ttlMs));
}

// ---- Caches. An empty name is the first of the resource's; a ttl of 0 is the cache's own. ----

export function cacheGet(cache: string, key: string): Bytes {
  const from = utf8(cache);
  const name = utf8(key);
  return unpack(hostCacheGet(from.dataStart, from.byteLength, name.dataStart, name.byteLength));
}

export function cacheExists(cache: string, key: string): Bool {
  const from = utf8(cache);
  const name = utf8(key);
  return yes(hostCacheExists(from.dataStart, from.byteLength, name.dataStart, name.byteLength));
}

export function cacheSet(cache: string, key: string, value: Uint8Array, ttlMs: i64): i32 {
  const into = utf8(cache);
  const name = utf8(key);
  return done(
    hostCacheSet(
      into.dataStart, into.byteLength, name.dataStart, name.byteLength, value.dataStart, value.byteLength, ttlMs,
    ),
  );
}

/** Whether it was there. */
export function cacheDelete(cache: string, key: string): Bool {
  const from = utf8(cache);
  const name = utf8(key);
  return yes(hostCacheDelete(from.dataStart, from.byteLength, name.dataStart, name.byteLength));
}

// ---- Databases. ----

/** A statement's parameters, `$1` first: `new Params().text("acme").int(7)`. */
export class Params {
  private array: string = "";

  /** A value that is JSON already. */
  json(value: string): Params {
    this.array += (this.array.length ? "," : "[") + value;
    return this;
  }

  null(): Params {
    return this.json("null");
  }

  bool(value: bool): Params {
    return this.json(value ? "true" : "false");
  }

  int(value: i64): Params {
    return this.json(value.toString());
  }

  /** Infinities and NaN go as text, as PostgreSQL writes them. */
  float(value: f64): Params {
    return isFinite(value) ? this.json(value.toString()) : this.text(value.toString());
  }

  text(value: string): Params {
    return this.json(quoted(value));
  }

  bytes(value: Uint8Array): Params {
    return this.text(encode(value));
  }

  texts(values: string[]): Params {
    let list = "";
    for (let i = 0; i < values.length; i++) list += (i ? "," : "") + quoted(values[i]);
    return this.json("[" + list + "]");
  }

  written(): string {
    return this.array.length ? this.array + "]" : "";
  }
}

/** `{"columns": [{"name", "type"}], "rows": [[…]], "rowCount": n}` */
export function queryExecute(source: string, sql: string, params: Params = new Params()): Reply {
  const from = utf8(source);
  const statement = utf8(sql);
  const array = utf8(params.written());
  return reply(
    hostQueryExecute(
      from.dataStart, from.byteLength, statement.dataStart, statement.byteLength, array.dataStart, array.byteLength,
    ),
  );
}

/** `{"parameters": ["int4"], "columns": [{"name", "type"}]}` */
export function queryPrepare(source: string, sql: string): Reply {
  const from = utf8(source);
  const statement = utf8(sql);
  return reply(hostQueryPrepare(from.dataStart, from.byteLength, statement.dataStart, statement.byteLength));
}

/** An array of the tables that a statement names, as it writes them. */
export function queryGetTables(sql: string): Reply {
  const statement = utf8(sql);
  return reply(hostQueryGetTables(statement.dataStart, statement.byteLength));
}

/** `{"sql": "select $1"}` */
export function queryNormalize(sql: string): Reply {
  const statement = utf8(sql);
  return reply(hostQueryNormalize(statement.dataStart, statement.byteLength));
}

// ---- HTTP. ----

/** A request: `new Request("GET", url).header("accept", "application/json")`. */
export class Request {
  private headers: string = "";
  private content: string = "";
  private timeout: i64 = 0;

  constructor(
    private method: string,
    private url: string,
  ) {}

  header(name: string, value: string): Request {
    this.headers += (this.headers.length ? "," : "") + quoted(name) + ":" + quoted(value);
    return this;
  }

  body(bytes: Uint8Array): Request {
    this.content = ',"bodyBase64":"' + encode(bytes) + '"';
    return this;
  }

  /** Without it, the plugin's `limits.wait` alone. */
  timeoutMs(timeout: i64): Request {
    this.timeout = timeout;
    return this;
  }

  written(): string {
    const timeout = this.timeout ? ',"timeoutMs":' + this.timeout.toString() : "";
    const head = '{"method":' + quoted(this.method) + ',"url":' + quoted(this.url);
    return head + ',"headers":{' + this.headers + "}" + this.content + timeout + "}";
  }
}

/** What a server answered, or a failure. */
export class Response {
  failure: Failure | null = null;
  status: i32 = 0;
  headerNames: string[] = []; // in lower case
  headerValues: string[] = [];
  body: Uint8Array = new Uint8Array(0);
  fromCache: bool = false;

  /** By its name in lower case. */
  header(name: string): string | null {
    const at = this.headerNames.indexOf(name);
    return at < 0 ? null : this.headerValues[at];
  }

  get text(): string {
    return String.UTF8.decodeUnsafe(this.body.dataStart, this.body.byteLength);
  }
}

function response(packed: u64): Response {
  const answered = reply(packed);
  const json = answered.json;
  const out = new Response();
  out.failure = answered.failure;
  if (out.failure !== null) return out;
  out.status = <i32>integer(json, member(json, 0, "status"), 0);
  const headers = member(json, 0, "headers");
  out.headerNames = names(json, headers);
  for (let i = 0; i < out.headerNames.length; i++) {
    const value = textOf(json, member(json, headers, out.headerNames[i]));
    out.headerValues.push(value ? value : "");
  }
  const coded = textOf(json, member(json, 0, "bodyBase64"));
  const plain = textOf(json, member(json, 0, "body"));
  const bytes = coded !== null ? decode(coded) : null;
  if (bytes !== null) out.body = bytes;
  else if (plain !== null) out.body = utf8(plain);
  out.fromCache = isTrue(json, member(json, 0, "fromCache"));
  return out;
}

export function httpFetch(request: Request): Response {
  const json = utf8(request.written());
  return response(hostHttpFetch(json.dataStart, json.byteLength));
}

export function httpPost(url: string, contentType: string, body: Uint8Array): Response {
  const to = utf8(url);
  const type = utf8(contentType);
  return response(
    hostHttpPost(to.dataStart, to.byteLength, type.dataStart, type.byteLength, body.dataStart, body.byteLength),
  );
}
