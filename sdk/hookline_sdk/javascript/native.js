// The host for tests in Node.js: keys, settings and permissions that a test gives, and what the plugin did with them.

import { createHash, createHmac, randomBytes } from "node:crypto";

/** What there is, and what was done; `reset` makes it new. */
export const state = {};

/** Begin anew: everything is granted, or the `permissions` that are given alone. */
export function reset({ config = {}, keys = {}, caches = {}, permissions = null, answers = {}, now = 0 } = {}) {
  Object.assign(state, {
    config,
    keys: new Map(Object.entries(keys)),
    caches: new Map(Object.entries(caches).map(([name, values]) => [name, new Map(Object.entries(values))])),
    permissions,
    answers,
    now,
    log: [],
    metrics: {},
  });
}

reset();

/** A failure of the call, as `fail` makes one. */
export class Failure extends Error {
  ended = true;
}

/** An error as a host function throws it: with its text as the payload. */
function refused(payload) {
  return Object.assign(new Error(payload), { payload });
}

function need(permission, name) {
  if (state.permissions !== null && !state.permissions.includes(permission)) {
    throw refused(`${name}: denied: the permission ${permission} is not granted`);
  }
}

function answered(name, permission, question) {
  need(permission, name);
  const found = state.answers[name];
  if (found === undefined) {
    throw refused(`${name}: the test has no answer: reset({ answers: { "${name}": … } })`);
  }
  return JSON.stringify(typeof found === "function" ? found(...question) : found);
}

export function log(level, text) {
  state.log.push({ level, text });
}

export function fail(message) {
  throw new Failure(message);
}

export function getTime() {
  return state.now || Date.now();
}

export function random(bytes) {
  return randomBytes(bytes).toString("hex");
}

export function getConfig(path) {
  need("config.read", "get-config");
  let found = state.config;
  for (const part of path === "" ? [] : path.split(".")) {
    found = found !== null && typeof found === "object" && Object.hasOwn(found, part) ? found[part] : undefined;
  }
  return found === undefined ? undefined : JSON.stringify(found);
}

export function metricInc(name, by) {
  need("metrics", "metric-inc");
  state.metrics[name] = (state.metrics[name] ?? 0) + by;
}

export function metricGauge(name, value) {
  need("metrics", "metric-gauge");
  state.metrics[name] = value;
}

export function metricObserve(name, value) {
  need("metrics", "metric-observe");
  (state.metrics[name] ??= []).push(value);
}

export function sha256Hex(text) {
  need("crypto", "sha256-hex");
  return createHash("sha256").update(text).digest("hex");
}

export function hmacSha256(key, text) {
  need("crypto", "hmac-sha256");
  return createHmac("sha256", key).update(text).digest("hex");
}

export function kvGet(key) {
  need("kv.read", "kv-get");
  return state.keys.get(key);
}

export function kvSet(key, value) {
  need("kv.write", "kv-set");
  state.keys.set(key, value);
}

export function kvDelete(key) {
  need("kv.write", "kv-delete");
  state.keys.delete(key);
}

export function kvList(prefix) {
  need("kv.read", "kv-list");
  return [...state.keys.keys()].filter((key) => key.startsWith(prefix)).sort();
}

export function kvIncr(key, by) {
  need("kv.write", "kv-incr");
  const sum = Number(state.keys.get(key) ?? 0) + Number(by);
  state.keys.set(key, String(sum));
  return sum;
}

export function kvCompareAndSet(key, old, value) {
  need("kv.write", "kv-compare-and-set");
  if (state.keys.get(key) !== (old ?? undefined)) {
    return false;
  }
  state.keys.set(key, value);
  return true;
}

export function kvSetTtl(key, ttlMs) {
  need("kv.write", "kv-set-ttl");
  if (ttlMs < 0) {
    throw refused("kv-set-ttl: an argument is not what the function takes");
  }
  return state.keys.has(key);
}

function cache(name) {
  const found = state.caches.get(name) ?? new Map();
  state.caches.set(name, found);
  return found;
}

export function cacheGet(name, key) {
  need("cache.read", "cache-get");
  return cache(name).get(key);
}

export function cacheExists(name, key) {
  need("cache.read", "cache-exists");
  return cache(name).has(key);
}

export function cacheSet(name, key, value, ttlMs) {
  need("cache.write", "cache-set");
  if (ttlMs < 0) {
    throw refused("cache-set: an argument is not what the function takes");
  }
  cache(name).set(key, value);
}

export function cacheDelete(name, key) {
  need("cache.write", "cache-delete");
  return cache(name).delete(key);
}

export function queryExecute(source, sql, parameters) {
  return answered("query-execute", "query.execute", [source, sql, JSON.parse(parameters)]);
}

export function queryPrepare(source, sql) {
  return answered("query-prepare", "query.execute", [source, sql]);
}

export function queryGetTables(sql) {
  return answered("query-get-tables", "query.execute", [sql]);
}

export function queryNormalize(sql) {
  return answered("query-normalize", "query.execute", [sql]);
}

export function httpFetch(request) {
  return answered("http-fetch", "http.fetch", [JSON.parse(request)]);
}

export function httpPost(url, contentType, body) {
  return answered("http-post", "http.fetch", [url, contentType, body]);
}
