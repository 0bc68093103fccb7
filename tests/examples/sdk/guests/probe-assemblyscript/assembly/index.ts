// Calls the host function that its input names, with the arguments behind it (all apart by U+001F), and answers in
// a JSON string what the SDK made of it.

import * as hookline from "../../../../../../sdk/hookline_sdk/assemblyscript/hookline";
import { elements, integer, member, quoted, textOf, texts } from "../../../../../../sdk/hookline_sdk/assemblyscript/json";

export { alloc, dealloc } from "../../../../../../sdk/hookline_sdk/assemblyscript/hookline";

function utf8(text: string): Uint8Array {
  return hookline.utf8(text);
}

function number(text: string): i64 {
  return I64.parseInt(text);
}

function real(text: string): f64 {
  return <f64>number(text) / 4;
}

function error(code: i32): string {
  return "error|" + code.toString();
}

function done(code: i32): string {
  return code ? error(code) : "ok";
}

function bytes(found: hookline.Bytes): string {
  const text = found.text;
  if (found.error) return error(found.error);
  return text === null ? "none" : "some|" + text;
}

function yes(found: hookline.Bool): string {
  return found.error ? error(found.error) : found.value.toString();
}

function failure(found: hookline.Failure): string {
  const sqlstate = found.sqlstate;
  return "failure|" + found.cause + "|" + found.message + "|" + (sqlstate ? sqlstate : "");
}

function response(found: hookline.Response): string {
  const failed = found.failure;
  if (failed) return failure(failed);
  const kind = found.header("content-type");
  return found.status.toString() + "|" + (kind ? kind : "") + "|" + found.text + "|" + found.fromCache.toString();
}

function list(json: string, at: i32, name: string): string {
  const found: string[] = [];
  const places = elements(json, at);
  for (let i = 0; i < places.length; i++) {
    const one = textOf(json, name.length ? member(json, places[i], name) : places[i]);
    found.push(one ? one : "");
  }
  return found.join(",");
}

function query(name: string, a: string[]): string {
  let reply: hookline.Reply;
  if (name == "query_execute") {
    const params = new hookline.Params();
    for (let i = 3; i < a.length; i++) {
      const kind = a[i].charAt(0);
      const value = a[i].substring(1);
      if (kind == "n") params.null();
      else if (kind == "b") params.bool(value == "true");
      else if (kind == "i") params.int(number(value));
      else if (kind == "t") params.text(value);
      else params.bytes(utf8(value));
    }
    reply = hookline.queryExecute(a[1], a[2], params);
  } else if (name == "query_prepare") reply = hookline.queryPrepare(a[1], a[2]);
  else if (name == "query_get_tables") reply = hookline.queryGetTables(a[1]);
  else reply = hookline.queryNormalize(a[1]);
  const failed = reply.failure;
  const json = reply.json;
  if (failed) return failure(failed);
  if (name == "query_get_tables") return texts(json, 0).join(",");
  const columns = member(json, 0, "columns");
  if (name == "query_prepare") {
    return texts(json, member(json, 0, "parameters")).join(",") + "|" + list(json, columns, "name");
  }
  if (name == "query_normalize") return textOf(json, member(json, 0, "sql"))!;
  let out = integer(json, member(json, 0, "rowCount"), -1).toString();
  out += "|" + list(json, columns, "name") + "|" + list(json, columns, "type") + "|";
  const rows = elements(json, member(json, 0, "rows"));
  for (let i = 0; i < rows.length; i++) out += list(json, rows[i], "") + ";";
  return out;
}

function stored(name: string, a: string[]): string {
  if (name == "kv_get") return bytes(new hookline.Bytes(hookline.kvGet(a[1]), 0));
  if (name == "kv_set") return done(hookline.kvSet(a[1], utf8(a[2])) ? 0 : -1);
  if (name == "kv_delete") return done(hookline.kvDelete(a[1]) ? 0 : -1);
  if (name == "kv_incr") {
    const sum = hookline.kvIncr(a[1], number(a[2]));
    return sum.error ? error(sum.error) : sum.value.toString();
  }
  if (name == "kv_list") {
    const found = hookline.kvList(a[1]);
    const keys = found.text;
    return keys === null ? error(found.error) : texts(keys, 0).join(",");
  }
  if (name == "kv_compare_and_set") {
    return yes(hookline.kvCompareAndSet(a[1], a[2] == "-" ? null : utf8(a[2]), utf8(a[3])));
  }
  if (name == "kv_set_ttl") return yes(hookline.kvSetTtl(a[1], number(a[2])));
  if (name == "cache_get") return bytes(hookline.cacheGet(a[1], a[2]));
  if (name == "cache_exists") return yes(hookline.cacheExists(a[1], a[2]));
  if (name == "cache_delete") return yes(hookline.cacheDelete(a[1], a[2]));
  return done(hookline.cacheSet(a[1], a[2], utf8(a[3]), number(a[4])));
}

function call(a: string[]): string {
  const name = a[0];
  if (name.startsWith("query_")) return query(name, a);
  if (name.startsWith("kv_") || name.startsWith("cache_")) return stored(name, a);
  if (name == "log") {
    hookline.log(<hookline.Level>number(a[1]), a[2]);
    return "ok";
  }
  if (name == "get_time") return hookline.getTime().toString();
  if (name == "random") return bytes(hookline.random(<i32>number(a[1])));
  if (name == "get_config") return bytes(hookline.getConfig(a[1]));
  if (name == "metric_inc") return done(hookline.metricInc(a[1], real(a[2])));
  if (name == "metric_gauge") return done(hookline.metricGauge(a[1], real(a[2])));
  if (name == "metric_observe") return done(hookline.metricObserve(a[1], real(a[2])));
  if (name == "hmac_sha256") return bytes(hookline.hmacSha256(utf8(a[1]), utf8(a[2])));
  if (name == "sha256_hex") {
    const hex = hookline.sha256Hex(utf8(a[1]));
    return hex === null ? error(-1) : "some|" + hex;
  }
  if (name == "http_post") return response(hookline.httpPost(a[1], a[2], utf8(a[3])));
  const request = new hookline.Request(a[1], a[2]);
  if (a[3].length) request.header(a[3], a[4]);
  if (a[5].length) request.body(utf8(a[5]));
  return response(hookline.httpFetch(request.timeoutMs(number(a[6]))));
}

export function custom_hook(at: usize, len: i32): u64 {
  return hookline.answer(quoted(call(hookline.text(at, len).split("\u{1f}"))));
}
