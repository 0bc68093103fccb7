//! The host functions, as docs/author/guest-abi.md has them. A plugin imports those alone that it calls. All of them
//! look blocking; while one waits, others are answered.

use crate::json::{self, Value};
use crate::{base64, dealloc};
use std::fmt;

mod raw {
    #[link(wasm_import_module = "env")]
    extern "C" {
        pub fn kv_get(key: *const u8, key_len: usize, out: *mut u8, out_max: usize) -> i32;
        pub fn kv_set(key: *const u8, key_len: usize, val: *const u8, val_len: usize) -> i32;
        pub fn kv_delete(key: *const u8, key_len: usize) -> i32;
        pub fn sha256_hex(data: *const u8, data_len: usize, out: *mut u8) -> i32;
    }
    #[link(wasm_import_module = "hookline")]
    extern "C" {
        pub fn log(level: i32, line: *const u8, len: usize) -> i32;
        pub fn get_time() -> i64;
        pub fn random(out: *mut u8, len: usize) -> i32;
        pub fn get_config(path: *const u8, len: usize) -> u64;
        pub fn metric_inc(name: *const u8, len: usize, by: f64) -> i32;
        pub fn metric_gauge(name: *const u8, len: usize, value: f64) -> i32;
        pub fn metric_observe(name: *const u8, len: usize, value: f64) -> i32;
        pub fn hmac_sha256(key: *const u8, key_len: usize, data: *const u8, data_len: usize, out: *mut u8) -> i32;
        pub fn kv_list(prefix: *const u8, len: usize) -> u64;
        pub fn kv_incr(key: *const u8, key_len: usize, by: i64) -> i64;
        pub fn kv_compare_and_set(
            key: *const u8, key_len: usize, was: *const u8, was_len: i32, val: *const u8, val_len: usize,
        ) -> i32;
        pub fn kv_set_ttl(key: *const u8, key_len: usize, ttl_ms: i64) -> i32;
        pub fn query_execute(
            source: *const u8, source_len: usize, sql: *const u8, sql_len: usize, params: *const u8, params_len: usize,
        ) -> u64;
        pub fn query_prepare(source: *const u8, source_len: usize, sql: *const u8, sql_len: usize) -> u64;
        pub fn query_get_tables(sql: *const u8, len: usize) -> u64;
        pub fn query_normalize(sql: *const u8, len: usize) -> u64;
        pub fn cache_get(cache: *const u8, cache_len: usize, key: *const u8, key_len: usize) -> u64;
        pub fn cache_exists(cache: *const u8, cache_len: usize, key: *const u8, key_len: usize) -> i32;
        pub fn cache_set(
            cache: *const u8, cache_len: usize, key: *const u8, key_len: usize, val: *const u8, val_len: usize,
            ttl_ms: i64,
        ) -> i32;
        pub fn cache_delete(cache: *const u8, cache_len: usize, key: *const u8, key_len: usize) -> i32;
        pub fn http_fetch(request: *const u8, len: usize) -> u64;
        pub fn http_post(
            url: *const u8, url_len: usize, kind: *const u8, kind_len: usize, body: *const u8, body_len: usize,
        ) -> u64;
    }
}

// ---- How they say what went wrong. ----

/// What a host function says where it does not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// A pointer or length outside memory.
    Memory,
    /// Too large.
    Size,
    /// The resource does not grant the permission.
    Denied,
    /// A malformed argument, or a cache that the resource does not name.
    Argument,
    /// A cap is reached.
    Cap,
    /// Not now.
    Unavailable,
    /// What a newer host may say.
    Other(i32),
}

impl Error {
    fn of(code: i32) -> Error {
        match code {
            -1 => Error::Memory,
            -2 => Error::Size,
            -3 => Error::Denied,
            -4 => Error::Argument,
            -5 => Error::Cap,
            -6 => Error::Unavailable,
            _ => Error::Other(code),
        }
    }

    /// As the guest ABI numbers it.
    pub fn code(self) -> i32 {
        match self {
            Error::Memory => -1,
            Error::Size => -2,
            Error::Denied => -3,
            Error::Argument => -4,
            Error::Cap => -5,
            Error::Unavailable => -6,
            Error::Other(code) => code,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Error::Memory => f.write_str("an argument lies outside memory"),
            Error::Size => f.write_str("it is too large"),
            Error::Denied => f.write_str("the resource does not grant the permission"),
            Error::Argument => f.write_str("an argument is malformed"),
            Error::Cap => f.write_str("a cap is reached"),
            Error::Unavailable => f.write_str("the host cannot do it now"),
            Error::Other(code) => write!(f, "the host answered {}", code),
        }
    }
}

impl std::error::Error for Error {}

/// Why a statement or a request came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// `timeout`, `denied`, `limit` or `failed`.
    pub cause: String,
    /// One sentence.
    pub message: String,
    /// Where PostgreSQL said it.
    pub sqlstate: Option<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}: {}", self.cause, self.message)
    }
}

impl std::error::Error for Failure {}

fn done(answer: i32) -> Result<(), Error> {
    number(answer).map(|_| ())
}

fn number(answer: i32) -> Result<usize, Error> {
    usize::try_from(answer).map_err(|_| Error::of(answer))
}

/// The bytes that the host put where our `alloc` said; they are ours now.
fn unpack(packed: u64) -> Result<Option<Vec<u8>>, Error> {
    let (at, len) = ((packed >> 32) as usize as *mut u8, packed as u32);
    if at.is_null() {
        return if len == 0 { Ok(None) } else { Err(Error::of((len as i32).wrapping_neg())) };
    }
    let bytes = unsafe { std::slice::from_raw_parts(at, len as usize) }.to_vec();
    unsafe { dealloc(at, len as usize) };
    Ok(Some(bytes))
}

fn reply(packed: u64) -> Result<Value, Failure> {
    let failed = |message: &str| Failure { cause: "failed".into(), message: message.into(), sqlstate: None };
    let bytes = unpack(packed).map_err(|error| failed(&error.to_string()))?;
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

#[derive(Debug, Clone, Copy)]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

pub fn log(level: Level, line: &str) {
    unsafe { raw::log(level as i32, line.as_ptr(), line.len()) };
}

/// Ends the call with a line in the log and a trap; the resource's failurePolicy decides what that means.
pub fn fail(why: &str) -> ! {
    log(Level::Error, why);
    panic!("{}", why)
}

/// Milliseconds since 1970, UTC.
pub fn get_time() -> i64 {
    unsafe { raw::get_time() }
}

/// Fills up to 4096 bytes from the system's generator.
pub fn random(out: &mut [u8]) -> Result<(), Error> {
    done(unsafe { raw::random(out.as_mut_ptr(), out.len()) })
}

/// JSON of the setting at a dotted path; None where there is none.
pub fn get_config(path: &str) -> Result<Option<String>, Error> {
    let bytes = unpack(unsafe { raw::get_config(path.as_ptr(), path.len()) })?;
    Ok(bytes.map(|bytes| String::from_utf8(bytes).expect("the host writes UTF-8")))
}

/// The whole config. Without the permission the call fails: a guard must not run on defaults because somebody
/// forgot a line.
pub fn config() -> Value {
    match get_config("") {
        Ok(None) => Value::Object(Vec::new()),
        Ok(Some(text)) => json::parse(&text).expect("the config is JSON"),
        Err(_) => fail("the config cannot be read; is the permission config.read granted?"),
    }
}

// ---- Metrics. ----

pub fn metric_inc(name: &str, by: f64) -> Result<(), Error> {
    done(unsafe { raw::metric_inc(name.as_ptr(), name.len(), by) })
}

pub fn metric_gauge(name: &str, value: f64) -> Result<(), Error> {
    done(unsafe { raw::metric_gauge(name.as_ptr(), name.len(), value) })
}

pub fn metric_observe(name: &str, value: f64) -> Result<(), Error> {
    done(unsafe { raw::metric_observe(name.as_ptr(), name.len(), value) })
}

/// Adds one to a counter. Without the permission `metrics` nothing is counted, and nothing breaks.
pub fn count(name: &str) {
    let _ = metric_inc(name, 1.0);
}

// ---- Hashes. ----

/// 64 lower-case hexadecimal digits. HeliosDB's functions do not say what was wrong.
pub fn sha256_hex(data: &[u8]) -> Result<String, Error> {
    let mut out = [0; 64];
    done(unsafe { raw::sha256_hex(data.as_ptr(), data.len(), out.as_mut_ptr()) })?;
    Ok(out.iter().map(|&digit| char::from(digit)).collect())
}

pub fn hmac_sha256(key: &[u8], data: &[u8]) -> Result<[u8; 32], Error> {
    let mut out = [0; 32];
    done(unsafe { raw::hmac_sha256(key.as_ptr(), key.len(), data.as_ptr(), data.len(), out.as_mut_ptr()) })?;
    Ok(out)
}

// ---- Keys: the pod's own, or the cluster's, as the resource says. Each call is atomic. ----

/// Bytes of a key, and of a value.
pub const KV_MAX: usize = 65_536;

/// The value of a key; None where there is none, and also without the permission: who must tell them apart asks
/// `kv_list`.
pub fn kv_get(key: &[u8]) -> Option<Vec<u8>> {
    for room in [4096, KV_MAX] {
        let mut out = vec![0; room];
        let len = unsafe { raw::kv_get(key.as_ptr(), key.len(), out.as_mut_ptr(), room) };
        if let Ok(len) = usize::try_from(len) {
            out.truncate(len);
            return Some(out);
        }
        if len != -2 {
            return None;
        }
    }
    None
}

/// HeliosDB's functions do not say what was wrong: `Memory` stands for all.
pub fn kv_set(key: &[u8], value: &[u8]) -> Result<(), Error> {
    done(unsafe { raw::kv_set(key.as_ptr(), key.len(), value.as_ptr(), value.len()) })
}

pub fn kv_delete(key: &[u8]) -> Result<(), Error> {
    done(unsafe { raw::kv_delete(key.as_ptr(), key.len()) })
}

/// The keys with that prefix, in order.
pub fn kv_list(prefix: &str) -> Result<Vec<String>, Error> {
    let bytes = unpack(unsafe { raw::kv_list(prefix.as_ptr(), prefix.len()) })?.unwrap_or_default();
    let keys = json::parse(std::str::from_utf8(&bytes).unwrap_or("")).unwrap_or(Value::Null);
    Ok(keys.items().iter().filter_map(Value::text).map(str::to_owned).collect())
}

/// Adds to a decimal number; the sum. What went wrong is not said: a permission, a cap, no number.
pub fn kv_incr(key: &[u8], by: i64) -> Result<i64, Error> {
    let sum = unsafe { raw::kv_incr(key.as_ptr(), key.len(), by) };
    if sum == i64::MIN { Err(Error::Unavailable) } else { Ok(sum) }
}

/// Whether the value was `was` (None: there was no such key) and is `value` now.
pub fn kv_compare_and_set(key: &[u8], was: Option<&[u8]>, value: &[u8]) -> Result<bool, Error> {
    let (at, len) = was.map_or((std::ptr::null(), -1), |was| (was.as_ptr(), was.len() as i32));
    let (val, val_len) = (value.as_ptr(), value.len());
    number(unsafe { raw::kv_compare_and_set(key.as_ptr(), key.len(), at, len, val, val_len) }).map(|swapped| swapped == 1)
}

/// Whether there is such a key. 0 or less takes the limit off.
pub fn kv_set_ttl(key: &[u8], ttl_ms: i64) -> Result<bool, Error> {
    number(unsafe { raw::kv_set_ttl(key.as_ptr(), key.len(), ttl_ms) }).map(|found| found == 1)
}

// ---- Caches. An empty name is the first of the resource's; a ttl of 0 is the cache's own. ----

pub fn cache_get(cache: &str, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    unpack(unsafe { raw::cache_get(cache.as_ptr(), cache.len(), key.as_ptr(), key.len()) })
}

pub fn cache_exists(cache: &str, key: &[u8]) -> Result<bool, Error> {
    number(unsafe { raw::cache_exists(cache.as_ptr(), cache.len(), key.as_ptr(), key.len()) }).map(|found| found == 1)
}

pub fn cache_set(cache: &str, key: &[u8], value: &[u8], ttl_ms: i64) -> Result<(), Error> {
    let (at, len) = (value.as_ptr(), value.len());
    done(unsafe { raw::cache_set(cache.as_ptr(), cache.len(), key.as_ptr(), key.len(), at, len, ttl_ms) })
}

/// Whether it was there.
pub fn cache_delete(cache: &str, key: &[u8]) -> Result<bool, Error> {
    number(unsafe { raw::cache_delete(cache.as_ptr(), cache.len(), key.as_ptr(), key.len()) }).map(|found| found == 1)
}

// ---- Databases. ----

/// A statement's parameters, `$1` first: `Params::new().text("acme").int(7)`.
#[derive(Debug, Clone, Default)]
pub struct Params(String);

impl Params {
    pub fn new() -> Params {
        Params::default()
    }

    /// A value that is JSON already.
    pub fn json(mut self, json: &str) -> Params {
        self.0.push(if self.0.is_empty() { '[' } else { ',' });
        self.0.push_str(json);
        self
    }

    pub fn null(self) -> Params {
        self.json("null")
    }

    pub fn bool(self, value: bool) -> Params {
        self.json(if value { "true" } else { "false" })
    }

    pub fn int(self, value: i64) -> Params {
        self.json(&value.to_string())
    }

    /// Infinities and NaN go as text, as PostgreSQL writes them.
    pub fn float(self, value: f64) -> Params {
        match value {
            _ if value.is_finite() => self.json(&format!("{:?}", value)),
            _ if value.is_nan() => self.text("NaN"),
            _ => self.text(if value > 0.0 { "Infinity" } else { "-Infinity" }),
        }
    }

    pub fn text(self, value: &str) -> Params {
        self.json(&json::quoted(value))
    }

    pub fn bytes(self, value: &[u8]) -> Params {
        self.text(&base64::encode(value))
    }

    pub fn texts<'a>(self, values: impl IntoIterator<Item = &'a str>) -> Params {
        let quoted: Vec<String> = values.into_iter().map(json::quoted).collect();
        self.json(&format!("[{}]", quoted.join(",")))
    }

    fn written(self) -> String {
        if self.0.is_empty() { String::new() } else { self.0 + "]" }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// As PostgreSQL names it.
    pub kind: String,
}

/// What a statement came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<Value>>,
    /// Those that it answered or changed.
    pub row_count: u64,
}

fn columns(reply: &Value) -> Vec<Column> {
    let text = |column: &Value, name| column.get(name).and_then(Value::text).unwrap_or("").to_owned();
    let columns = reply.get("columns").map_or(&[][..], Value::items);
    columns.iter().map(|each| Column { name: text(each, "name"), kind: text(each, "type") }).collect()
}

fn texts(value: Option<&Value>) -> Vec<String> {
    value.map_or(&[][..], Value::items).iter().filter_map(Value::text).map(str::to_owned).collect()
}

pub fn query_execute(source: &str, sql: &str, params: Params) -> Result<Rows, Failure> {
    let params = params.written();
    let (at, len) = (params.as_ptr(), params.len());
    let packed = unsafe { raw::query_execute(source.as_ptr(), source.len(), sql.as_ptr(), sql.len(), at, len) };
    let reply = reply(packed)?;
    let rows = reply.get("rows").map_or(&[][..], Value::items);
    Ok(Rows {
        columns: columns(&reply),
        rows: rows.iter().map(|row| row.items().to_vec()).collect(),
        row_count: reply.get("rowCount").and_then(Value::int).and_then(|n| n.try_into().ok()).unwrap_or(0),
    })
}

/// What a statement takes and answers, without running it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// Types, as PostgreSQL names them.
    pub parameters: Vec<String>,
    pub columns: Vec<Column>,
}

pub fn query_prepare(source: &str, sql: &str) -> Result<Prepared, Failure> {
    let reply = reply(unsafe { raw::query_prepare(source.as_ptr(), source.len(), sql.as_ptr(), sql.len()) })?;
    Ok(Prepared { parameters: texts(reply.get("parameters")), columns: columns(&reply) })
}

/// The tables that a statement names, as it writes them.
pub fn query_get_tables(sql: &str) -> Result<Vec<String>, Failure> {
    Ok(texts(Some(&reply(unsafe { raw::query_get_tables(sql.as_ptr(), sql.len()) })?)))
}

/// The statement with its constants replaced by parameters.
pub fn query_normalize(sql: &str) -> Result<String, Failure> {
    let reply = reply(unsafe { raw::query_normalize(sql.as_ptr(), sql.len()) })?;
    Ok(reply.get("sql").and_then(Value::text).unwrap_or("").to_owned())
}

// ---- HTTP. ----

/// A request: `Request::new("GET", url).header("accept", "application/json")`.
#[derive(Debug, Clone)]
pub struct Request {
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
    timeout_ms: Option<u64>,
}

impl Request {
    pub fn new(method: &str, url: &str) -> Request {
        Request { method: method.into(), url: url.into(), headers: Vec::new(), body: None, timeout_ms: None }
    }

    pub fn header(mut self, name: &str, value: &str) -> Request {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn body(mut self, body: &[u8]) -> Request {
        self.body = Some(body.into());
        self
    }

    /// Without it, the plugin's `limits.wait` alone.
    pub fn timeout_ms(mut self, timeout: u64) -> Request {
        self.timeout_ms = Some(timeout);
        self
    }

    fn written(&self) -> String {
        let headers: Vec<(&str, &str)> = self.headers.iter().map(|(name, value)| (&name[..], &value[..])).collect();
        let (method, url) = (json::quoted(&self.method), json::quoted(&self.url));
        let mut out = format!(r#"{{"method":{},"url":{},"headers":{}"#, method, url, json::object(&headers));
        if let Some(body) = &self.body {
            out.push_str(&format!(r#","bodyBase64":"{}""#, base64::encode(body)));
        }
        if let Some(timeout) = self.timeout_ms {
            out.push_str(&format!(r#","timeoutMs":{}"#, timeout));
        }
        out + "}"
    }
}

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// With names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub from_cache: bool,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| &value[..])
    }
}

fn response(packed: u64) -> Result<Response, Failure> {
    let reply = reply(packed)?;
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
    let request = request.written();
    response(unsafe { raw::http_fetch(request.as_ptr(), request.len()) })
}

pub fn http_post(url: &str, content_type: &str, body: &[u8]) -> Result<Response, Failure> {
    let (kind, kind_len, at, len) = (content_type.as_ptr(), content_type.len(), body.as_ptr(), body.len());
    response(unsafe { raw::http_post(url.as_ptr(), url.len(), kind, kind_len, at, len) })
}
