//! The host functions, as docs/author/guest-abi.md has them. A plugin imports those alone that it calls, and `log`. All
//! of them look blocking; while one waits, others are answered.

use crate::errors::{Error, Failure};
use crate::json::{self, Value};
use crate::messages::{Column, Params, Prepared, Request, Response, Rows};
use crate::{base64, sys};

fn done(answer: i32) -> Result<(), Error> {
    number(answer).map(|_| ())
}

fn number(answer: i32) -> Result<usize, Error> {
    usize::try_from(answer).map_err(|_| Error::of(answer))
}

fn reply(found: sys::Found) -> Result<Value, Failure> {
    let failed = |message: &str| Failure { cause: "failed".into(), message: message.into(), sqlstate: None };
    let bytes = found.map_err(|error| failed(&error.to_string()))?;
    let value = bytes.and_then(|bytes| json::parse(std::str::from_utf8(&bytes).ok()?));
    let value = value.ok_or_else(|| failed("the host answered no JSON"))?;
    match value.get("error") {
        None => Ok(value),
        Some(error) => {
            let text = |name| error.get(name).and_then(Value::text).map(str::to_owned);
            Err(Failure {
                cause: text("cause").unwrap_or_else(|| "failed".into()),
                message: text("message").unwrap_or_default(),
                sqlstate: text("sqlstate"),
            })
        }
    }
}

// ---- Log, time, chance, settings. ----

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

pub fn log(level: Level, line: &str) {
    sys::log(level as i32, line);
}

/// Ends the call with a line in the log and a trap; the resource's failurePolicy decides what that means.
pub fn fail(why: &str) -> ! {
    log(Level::Error, why);
    sys::stop(why)
}

/// Milliseconds since 1970, UTC.
pub fn get_time() -> i64 {
    sys::get_time()
}

/// Fills up to 4096 bytes from the system's generator.
pub fn random(out: &mut [u8]) -> Result<(), Error> {
    done(sys::random(out))
}

/// JSON of the setting at a dotted path; None where there is none.
pub fn get_config(path: &str) -> Result<Option<String>, Error> {
    let bytes = sys::get_config(path)?;
    Ok(bytes.map(|bytes| String::from_utf8(bytes).unwrap_or_else(|_| fail("the host wrote no UTF-8"))))
}

/// The whole config. Without the permission the call fails: a guard must not run on defaults because somebody
/// forgot a line.
pub fn config() -> Value {
    match get_config("") {
        Ok(None) => Value::Object(Vec::new()),
        Ok(Some(text)) => json::parse(&text).unwrap_or_else(|| fail("the config is no JSON")),
        Err(_) => fail("the config cannot be read; is the permission config.read granted?"),
    }
}

// ---- Metrics. ----

pub fn metric_inc(name: &str, by: f64) -> Result<(), Error> {
    done(sys::metric_inc(name, by))
}

pub fn metric_gauge(name: &str, value: f64) -> Result<(), Error> {
    done(sys::metric_gauge(name, value))
}

pub fn metric_observe(name: &str, value: f64) -> Result<(), Error> {
    done(sys::metric_observe(name, value))
}

/// Adds one to a counter. Without the permission `metrics` nothing is counted, and nothing breaks.
pub fn count(name: &str) {
    let _ = metric_inc(name, 1.0);
}

// ---- Hashes. ----

/// 64 lower-case hexadecimal digits. HeliosDB's functions do not say what was wrong.
pub fn sha256_hex(data: &[u8]) -> Result<String, Error> {
    let mut out = [0; 64];
    done(sys::sha256_hex(data, &mut out))?;
    Ok(out.iter().map(|&digit| char::from(digit)).collect())
}

pub fn hmac_sha256(key: &[u8], data: &[u8]) -> Result<[u8; 32], Error> {
    let mut out = [0; 32];
    done(sys::hmac_sha256(key, data, &mut out))?;
    Ok(out)
}

// ---- Keys: the pod's own, or the cluster's, as the resource says. Each call is atomic. ----

/// Bytes of a key, and of a value.
pub const KV_MAX: usize = 65_536;

/// The value of a key; None where there is none, and also without the permission: who must tell them apart asks
/// `kv_list`.
pub fn kv_get(key: &[u8]) -> Option<Vec<u8>> {
    sys::kv_get(key)
}

/// HeliosDB's functions do not say what was wrong: `Memory` stands for all.
pub fn kv_set(key: &[u8], value: &[u8]) -> Result<(), Error> {
    done(sys::kv_set(key, value))
}

pub fn kv_delete(key: &[u8]) -> Result<(), Error> {
    done(sys::kv_delete(key))
}

/// The keys with that prefix, in order.
pub fn kv_list(prefix: &str) -> Result<Vec<String>, Error> {
    let bytes = sys::kv_list(prefix)?.unwrap_or_default();
    let keys = json::parse(std::str::from_utf8(&bytes).unwrap_or("")).unwrap_or(Value::Null);
    Ok(keys.items().iter().filter_map(Value::text).map(str::to_owned).collect())
}

/// Adds to a decimal number; the sum. What went wrong is not said: a permission, a cap, no number.
pub fn kv_incr(key: &[u8], by: i64) -> Result<i64, Error> {
    let sum = sys::kv_incr(key, by);
    if sum == i64::MIN { Err(Error::Unavailable) } else { Ok(sum) }
}

/// Whether the value was `was` (None: there was no such key) and is `value` now.
pub fn kv_compare_and_set(key: &[u8], was: Option<&[u8]>, value: &[u8]) -> Result<bool, Error> {
    number(sys::kv_compare_and_set(key, was, value)).map(|swapped| swapped == 1)
}

/// Whether there is such a key. 0 or less takes the limit off.
pub fn kv_set_ttl(key: &[u8], ttl_ms: i64) -> Result<bool, Error> {
    number(sys::kv_set_ttl(key, ttl_ms)).map(|found| found == 1)
}

// ---- Caches. An empty name is the first of the resource's; a ttl of 0 is the cache's own. ----

pub fn cache_get(cache: &str, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    sys::cache_get(cache, key)
}

pub fn cache_exists(cache: &str, key: &[u8]) -> Result<bool, Error> {
    number(sys::cache_exists(cache, key)).map(|found| found == 1)
}

pub fn cache_set(cache: &str, key: &[u8], value: &[u8], ttl_ms: i64) -> Result<(), Error> {
    done(sys::cache_set(cache, key, value, ttl_ms))
}

/// Whether it was there.
pub fn cache_delete(cache: &str, key: &[u8]) -> Result<bool, Error> {
    number(sys::cache_delete(cache, key)).map(|found| found == 1)
}

// ---- Databases. ----

fn columns(reply: &Value) -> Vec<Column> {
    let text = |column: &Value, name| column.get(name).and_then(Value::text).unwrap_or("").to_owned();
    let columns = reply.get("columns").map_or(&[][..], Value::items);
    columns.iter().map(|each| Column { name: text(each, "name"), kind: text(each, "type") }).collect()
}

fn texts(value: Option<&Value>) -> Vec<String> {
    value.map_or(&[][..], Value::items).iter().filter_map(Value::text).map(str::to_owned).collect()
}

pub fn query_execute(source: &str, sql: &str, params: Params) -> Result<Rows, Failure> {
    let reply = reply(sys::query_execute(source, sql, &params.written()))?;
    let rows = reply.get("rows").map_or(&[][..], Value::items);
    Ok(Rows {
        columns: columns(&reply),
        rows: rows.iter().map(|row| row.items().to_vec()).collect(),
        row_count: reply.get("rowCount").and_then(Value::int).and_then(|n| n.try_into().ok()).unwrap_or(0),
    })
}

pub fn query_prepare(source: &str, sql: &str) -> Result<Prepared, Failure> {
    let reply = reply(sys::query_prepare(source, sql))?;
    Ok(Prepared { parameters: texts(reply.get("parameters")), columns: columns(&reply) })
}

/// The tables that a statement names, as it writes them.
pub fn query_get_tables(sql: &str) -> Result<Vec<String>, Failure> {
    Ok(texts(Some(&reply(sys::query_get_tables(sql))?)))
}

/// The statement with its constants replaced by parameters.
pub fn query_normalize(sql: &str) -> Result<String, Failure> {
    let reply = reply(sys::query_normalize(sql))?;
    Ok(reply.get("sql").and_then(Value::text).unwrap_or("").to_owned())
}

// ---- HTTP. ----

fn response(found: sys::Found) -> Result<Response, Failure> {
    let reply = reply(found)?;
    let text = |name| reply.get(name).and_then(Value::text);
    let headers = reply.get("headers").map_or(&[][..], Value::members);
    let headers = headers.iter().filter_map(|(name, value)| Some((name.clone(), value.text()?.to_owned())));
    Ok(Response {
        status: reply.get("status").and_then(Value::int).and_then(|n| n.try_into().ok()).unwrap_or(0),
        headers: headers.collect(),
        body: text("bodyBase64").and_then(base64::decode).unwrap_or_else(|| text("body").unwrap_or("").into()),
        from_cache: reply.get("fromCache") == Some(&Value::Bool(true)),
    })
}

pub fn http_fetch(request: &Request) -> Result<Response, Failure> {
    response(sys::http_fetch(&request.written()))
}

pub fn http_post(url: &str, content_type: &str, body: &[u8]) -> Result<Response, Failure> {
    response(sys::http_post(url, content_type, body))
}
