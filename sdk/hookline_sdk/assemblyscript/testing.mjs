// A host for tests. AssemblyScript compiles to WebAssembly alone, so this is its native way: Node.js runs the module, and
// the host's functions do here what they do in a sidecar, with keys, caches and clock in memory.
//
//     import { load } from "../hookline-sdk/testing.mjs";
//
//     const plugin = load("my-plugin.wasm", { config: { tables: ["salaries"] } });
//     plugin.ask("pre_query", { query: "SELECT 1" }); // { action: "continue" }
//
// Each question has an instance of its own, as with `isolation: PerCall`; keys, caches and metrics stay. What asks a
// database or a server is answered by the test.

import { createHash, createHmac } from "node:crypto";
import { readFileSync } from "node:fs";

const LEVELS = ["trace", "debug", "info", "warn", "error"];
const DEFAULTS = {
  authenticate: "defer", authorize: "defer", pre_query: "continue", rewrite: "continue", route: "default",
  cache_get: "miss", cache_set: "store", custom_hook: "empty",
};
const MAX_BYTES = 65536;
const MAX_KEYS = 1024;
const E = { memory: -1, size: -2, denied: -3, argument: -4, cap: -5 };

/** A call that failed: its message has the trap and what the plugin logged of it. */
export class Trap extends Error {}

class Store {
  entries = new Map();

  get(key, now) {
    const found = this.entries.get(key);
    if (found && found.until !== null && found.until <= now) this.entries.delete(key);
    return this.entries.get(key);
  }

  set(key, value, until, now) {
    if (Buffer.byteLength(key, "latin1") > MAX_BYTES || value.length > MAX_BYTES) return E.size;
    for (const each of [...this.entries.keys()]) this.get(each, now);
    if (this.entries.size >= MAX_KEYS && !this.entries.has(key)) return E.cap;
    this.entries.set(key, { value, until });
    return 0;
  }
}

/**
 * A plugin with a fresh host. `options`: `config`, an object; `permissions`, a list (all, where it is not given); `kv`, an
 * object of texts; `answers`, what `http_*` and `query_*` answer: by function, an object, or a function of the question's
 * texts; `time`, milliseconds since 1970.
 */
export function load(file, options = {}) {
  return new Plugin(new WebAssembly.Module(readFileSync(file)), options);
}

export class Plugin {
  #module;
  #options;
  #kv = new Store();
  #caches = new Map();
  #metrics = new Map();
  #random = 0x9e3779b9;
  /** What the plugin logged: `{ level, text }`, in order. */
  log = [];

  constructor(module, options) {
    this.#module = module;
    this.#options = { config: {}, answers: {}, ...options };
    this.time = options.time ?? Date.UTC(2026, 0, 1);
    for (const [key, value] of Object.entries(options.kv ?? {})) {
      this.#kv.set(latin(Buffer.from(key)), Buffer.from(value), null, 0);
    }
  }

  /** The decision of one call. Throws a Trap where the plugin fails. */
  ask(hook, input) {
    const text = this.askText(hook, JSON.stringify(input));
    if (text === "") return { action: DEFAULTS[hook] ?? "accepted" };
    return hook === "custom_hook" ? { action: "answered", value: JSON.parse(text) } : JSON.parse(text);
  }

  /** The same with the input and the answer as they are; "" is the hook's default. */
  askText(hook, text) {
    const before = this.log.length;
    const bytes = Buffer.from(text);
    let exports;
    const memory = () => Buffer.from(exports.memory.buffer);
    const instance = new WebAssembly.Instance(this.#module, this.#imports(memory, (size) => exports.alloc(size) >>> 0));
    exports = instance.exports;
    if (typeof exports[hook] !== "function") throw new Error(`the module has no hook ${hook}`);
    try {
      exports._initialize?.();
      const at = exports.alloc(bytes.length) >>> 0;
      bytes.copy(memory(), at);
      const packed = BigInt.asUintN(64, exports[hook](at, bytes.length) ?? 0n);
      const [start, length] = [Number(packed >> 32n), Number(packed & 0xffffffffn)];
      return start ? memory().toString("utf8", start, start + length) : "";
    } catch (error) {
      if (!(error instanceof WebAssembly.RuntimeError)) throw error;
      const said = this.log.slice(before).map((line) => line.text);
      throw new Trap([`${hook} trapped: ${error.message}`, ...said].join("; "));
    }
  }

  /** The value of a key as text; undefined where there is none. */
  value(key) {
    return this.#kv.get(latin(Buffer.from(key)), this.time)?.value.toString();
  }

  /** The sum of a counter, what a gauge was set to last, or the sum of what was observed. */
  metric(name) {
    return this.#metrics.get(name) ?? 0;
  }

  #may(permission) {
    return this.#options.permissions === undefined || this.#options.permissions.includes(permission);
  }

  #cache(name) {
    if (!this.#caches.has(name)) this.#caches.set(name, new Store());
    return this.#caches.get(name);
  }

  #answer(permission, name, question) {
    const failed = (cause, message) => ({ error: { cause, message } });
    if (!this.#may(permission)) return failed("denied", `the resource does not grant ${permission}`);
    const given = this.#options.answers[name];
    const answer = typeof given === "function" ? given(...question) : given;
    return answer ?? failed("unavailable", `the test has no answer for this ${name}; give it one in 'answers'`);
  }

  #imports(memory, alloc) {
    const bytes = (at, length) => Buffer.from(memory().subarray(at >>> 0, (at >>> 0) + (length >>> 0)));
    const text = (at, length) => bytes(at, length).toString();
    const key = (at, length) => latin(bytes(at, length));
    const put = (data, at) => data.copy(memory(), at >>> 0);
    const pack = (data) => {
      const at = alloc(data.length);
      put(data, at);
      return BigInt.asIntN(64, (BigInt(at) << 32n) | BigInt(data.length));
    };
    const json = (value) => pack(Buffer.from(JSON.stringify(value)));
    const denied = BigInt(-E.denied);
    const until = (ms) => (ms > 0n ? this.time + Number(ms) : null);
    const measure = (name, change) => {
      if (!this.#may("metrics")) return E.denied;
      this.#metrics.set(name, change(this.metric(name)));
      return 0;
    };
    const plain = (code) => (code < 0 ? E.memory : code); // HeliosDB's functions say -1 whatever went wrong
    const answer = (permission, name, ...question) => json(this.#answer(permission, name, question));
    return {
      env: {
        kv_get: (at, length, out, max) => {
          const found = this.#may("kv.read") ? this.#kv.get(key(at, length), this.time) : undefined;
          if (!found) return E.memory;
          if (found.value.length > max) return E.size;
          put(found.value, out);
          return found.value.length;
        },
        kv_set: (at, length, value, valueLength) => {
          if (!this.#may("kv.write")) return E.memory;
          return plain(this.#kv.set(key(at, length), bytes(value, valueLength), null, this.time));
        },
        kv_delete: (at, length) => {
          if (!this.#may("kv.write")) return E.memory;
          this.#kv.entries.delete(key(at, length));
          return 0;
        },
        sha256_hex: (at, length, out) => {
          if (!this.#may("crypto")) return E.memory;
          put(Buffer.from(createHash("sha256").update(bytes(at, length)).digest("hex")), out);
          return 64;
        },
      },
      hookline: {
        log: (level, at, length) => {
          this.log.push({ level: LEVELS[level], text: text(at, length) });
          return 0;
        },
        get_time: () => BigInt(this.time),
        // The same in each run, so that a test says the same (xorshift32).
        random: (out, length) => {
          if (length >>> 0 > 4096) return E.size;
          const drawn = Buffer.alloc(length);
          for (let i = 0; i < length; i++) {
            this.#random ^= this.#random << 13;
            this.#random ^= this.#random >>> 17;
            this.#random ^= this.#random << 5;
            drawn[i] = this.#random & 255;
          }
          put(drawn, out);
          return 0;
        },
        get_config: (at, length) => {
          if (!this.#may("config.read")) return denied;
          const path = text(at, length).split(".").filter((name) => name !== "");
          const member = (value, name) => (Object.hasOwn(Object(value), name) ? value[name] : undefined);
          const found = path.reduce(member, this.#options.config);
          return found === undefined ? 0n : json(found);
        },
        metric_inc: (at, length, by) => measure(text(at, length), (sum) => sum + by),
        metric_gauge: (at, length, value) => measure(text(at, length), () => value),
        metric_observe: (at, length, value) => measure(text(at, length), (sum) => sum + value),
        hmac_sha256: (at, length, data, dataLength, out) => {
          if (!this.#may("crypto")) return E.denied;
          put(createHmac("sha256", bytes(at, length)).update(bytes(data, dataLength)).digest(), out);
          return 0;
        },
        kv_list: (at, length) => {
          if (!this.#may("kv.read")) return denied;
          const prefix = key(at, length);
          const has = (each) => each.startsWith(prefix) && this.#kv.get(each, this.time);
          const keys = [...this.#kv.entries.keys()].filter(has);
          return json(keys.sort().map((each) => Buffer.from(each, "latin1").toString()));
        },
        kv_incr: (at, length, by) => {
          const none = -(2n ** 63n);
          if (!this.#may("kv.write")) return none;
          const found = this.#kv.get(key(at, length), this.time);
          const was = found ? found.value.toString() : "0";
          if (!/^-?\d+$/.test(was)) return none;
          const sum = BigInt(was) + by;
          if (BigInt.asIntN(64, sum) !== sum) return none;
          const code = this.#kv.set(key(at, length), Buffer.from(sum.toString()), found?.until ?? null, this.time);
          return code < 0 ? none : sum;
        },
        kv_compare_and_set: (at, length, was, wasLength, value, valueLength) => {
          if (!this.#may("kv.write")) return E.denied;
          const found = this.#kv.get(key(at, length), this.time);
          const fits = wasLength === -1 ? !found : found && found.value.equals(bytes(was, wasLength));
          if (!fits) return 0;
          const code = this.#kv.set(key(at, length), bytes(value, valueLength), null, this.time);
          return code < 0 ? code : 1;
        },
        kv_set_ttl: (at, length, ms) => {
          if (!this.#may("kv.write")) return E.denied;
          const found = this.#kv.get(key(at, length), this.time);
          if (found) found.until = until(ms);
          return found ? 1 : 0;
        },
        cache_get: (cache, cacheLength, at, length) => {
          if (!this.#may("cache.read")) return denied;
          const found = this.#cache(text(cache, cacheLength)).get(key(at, length), this.time);
          return found ? pack(found.value) : 0n;
        },
        cache_exists: (cache, cacheLength, at, length) => {
          if (!this.#may("cache.read")) return E.denied;
          return this.#cache(text(cache, cacheLength)).get(key(at, length), this.time) ? 1 : 0;
        },
        cache_set: (cache, cacheLength, at, length, value, valueLength, ms) => {
          if (!this.#may("cache.write")) return E.denied;
          if (ms < 0n) return E.argument;
          const entry = { value: bytes(value, valueLength), until: until(ms) };
          this.#cache(text(cache, cacheLength)).entries.set(key(at, length), entry);
          return 0;
        },
        cache_delete: (cache, cacheLength, at, length) => {
          if (!this.#may("cache.write")) return E.denied;
          const store = this.#cache(text(cache, cacheLength));
          return store.get(key(at, length), this.time) && store.entries.delete(key(at, length)) ? 1 : 0;
        },
        query_execute: (source, sourceLength, sql, sqlLength, params, paramsLength) =>
          answer(
            "query.execute", "query_execute", text(source, sourceLength), text(sql, sqlLength), text(params, paramsLength),
          ),
        query_prepare: (source, sourceLength, sql, sqlLength) =>
          answer("query.execute", "query_prepare", text(source, sourceLength), text(sql, sqlLength)),
        query_get_tables: (sql, length) => answer("query.execute", "query_get_tables", text(sql, length)),
        query_normalize: (sql, length) => answer("query.execute", "query_normalize", text(sql, length)),
        http_fetch: (request, length) => answer("http.fetch", "http_fetch", text(request, length)),
        http_post: (url, urlLength, type, typeLength, body, bodyLength) =>
          answer("http.fetch", "http_post", text(url, urlLength), text(type, typeLength), text(body, bodyLength)),
      },
    };
  }
}

/** Bytes as a key of a Map: one character each. */
function latin(data) {
  return data.toString("latin1");
}
