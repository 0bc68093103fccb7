//! The host's functions, natively: what `sys` is in a module.

use super::sha256::{hmac, sha256};
use super::{with, State};
use crate::json::{self, Value};
use crate::{Error, Level};

pub type Found = Result<Option<Vec<u8>>, Error>;

const MEMORY: i32 = -1;
const SIZE: i32 = -2;
const DENIED: i32 = -3;
const ARGUMENT: i32 = -4;

fn may(state: &State, permission: &str) -> bool {
    state.permissions.as_ref().map_or(true, |granted| granted.iter().any(|each| each == permission))
}

fn granted(permission: &str, run: impl FnOnce(&mut State) -> i32) -> i32 {
    with(|state| if may(state, permission) { run(state) } else { DENIED })
}

/// HeliosDB's functions say -1 whatever went wrong.
fn plain(code: i32) -> i32 {
    if code < 0 { MEMORY } else { code }
}

fn found(permission: &str, run: impl FnOnce(&mut State) -> Option<Vec<u8>>) -> Found {
    with(|state| if may(state, permission) { Ok(run(state)) } else { Err(Error::Denied) })
}

pub fn stop(why: &str) -> ! {
    panic!("{}", why)
}

pub fn log(level: i32, line: &str) {
    let levels = [Level::Trace, Level::Debug, Level::Info, Level::Warn, Level::Error];
    with(|state| state.log.push((levels[level as usize], line.to_owned())));
}

pub fn get_time() -> i64 {
    with(|state| state.now)
}

/// The same in each run, so that a test says the same (xorshift64).
pub fn random(out: &mut [u8]) -> i32 {
    if out.len() > 4096 {
        return SIZE;
    }
    with(|state| {
        for byte in out {
            state.random ^= state.random << 13;
            state.random ^= state.random >> 7;
            state.random ^= state.random << 17;
            *byte = state.random as u8;
        }
    });
    0
}

pub fn get_config(path: &str) -> Found {
    found("config.read", |state| {
        let mut value = &state.config;
        for name in path.split('.').filter(|name| !name.is_empty()) {
            value = value.get(name)?;
        }
        Some(value.to_string().into_bytes())
    })
}

fn measure(name: &str, change: impl FnOnce(&mut f64)) -> i32 {
    granted("metrics", |state| {
        change(state.metrics.entry(name.to_owned()).or_insert(0.0));
        0
    })
}

pub fn metric_inc(name: &str, by: f64) -> i32 {
    measure(name, |sum| *sum += by)
}

pub fn metric_gauge(name: &str, value: f64) -> i32 {
    measure(name, |last| *last = value)
}

pub fn metric_observe(name: &str, value: f64) -> i32 {
    measure(name, |sum| *sum += value)
}

pub fn sha256_hex(data: &[u8], out: &mut [u8; 64]) -> i32 {
    plain(granted("crypto", |_| {
        let hex: String = sha256(data).iter().map(|byte| format!("{:02x}", byte)).collect();
        out.copy_from_slice(hex.as_bytes());
        64
    }))
}

pub fn hmac_sha256(key: &[u8], data: &[u8], out: &mut [u8; 32]) -> i32 {
    granted("crypto", |_| {
        *out = hmac(key, data);
        0
    })
}

pub fn kv_get(key: &[u8]) -> Option<Vec<u8>> {
    found("kv.read", |state| state.kv.get(key, state.now)).unwrap_or(None)
}

pub fn kv_set(key: &[u8], value: &[u8]) -> i32 {
    plain(granted("kv.write", |state| state.kv.set(key, value, None, state.now)))
}

pub fn kv_delete(key: &[u8]) -> i32 {
    plain(granted("kv.write", |state| {
        state.kv.delete(key, state.now);
        0
    }))
}

pub fn kv_list(prefix: &str) -> Found {
    found("kv.read", |state| {
        let names = state.kv.names(prefix.as_bytes(), state.now).into_iter().map(Value::from).collect::<Vec<_>>();
        Some(Value::from(names).to_string().into_bytes())
    })
}

pub fn kv_incr(key: &[u8], by: i64) -> i64 {
    with(|state| {
        if !may(state, "kv.write") {
            return i64::MIN;
        }
        let was = state.kv.get(key, state.now).map_or(Some(0), |value| std::str::from_utf8(&value).ok()?.parse().ok());
        let until = state.kv.until(key);
        match was.and_then(|was: i64| was.checked_add(by)) {
            Some(sum) if state.kv.set(key, sum.to_string().as_bytes(), until, state.now) == 0 => sum,
            _ => i64::MIN,
        }
    })
}

pub fn kv_compare_and_set(key: &[u8], was: Option<&[u8]>, value: &[u8]) -> i32 {
    granted("kv.write", |state| {
        if state.kv.get(key, state.now).as_deref() != was {
            return 0;
        }
        let code = state.kv.set(key, value, None, state.now);
        if code < 0 { code } else { 1 }
    })
}

pub fn kv_set_ttl(key: &[u8], ttl_ms: i64) -> i32 {
    granted("kv.write", |state| {
        let until = if ttl_ms > 0 { Some(state.now + ttl_ms) } else { None };
        i32::from(state.kv.limit(key, until, state.now))
    })
}

pub fn cache_get(cache: &str, key: &[u8]) -> Found {
    found("cache.read", |state| state.caches.get_mut(cache)?.get(key, state.now))
}

pub fn cache_exists(cache: &str, key: &[u8]) -> i32 {
    match cache_get(cache, key) {
        Ok(value) => i32::from(value.is_some()),
        Err(error) => error.code(),
    }
}

pub fn cache_set(cache: &str, key: &[u8], value: &[u8], ttl_ms: i64) -> i32 {
    granted("cache.write", |state| {
        if ttl_ms < 0 {
            return ARGUMENT;
        }
        let until = if ttl_ms > 0 { Some(state.now + ttl_ms) } else { None };
        state.caches.entry(cache.to_owned()).or_default().put(key, value, until);
        0
    })
}

pub fn cache_delete(cache: &str, key: &[u8]) -> i32 {
    granted("cache.write", |state| {
        let now = state.now;
        i32::from(state.caches.get_mut(cache).map_or(false, |found| found.delete(key, now)))
    })
}

/// What the test says; an error as the host tells one where it says nothing.
fn given(permission: &str, function: &str, question: &[&str]) -> Found {
    let failed = |cause: &str, message: String| {
        let error = Value::from([("cause", cause.into()), ("message", message.into())]);
        Ok(Some(Value::from([("error", error)]).to_string().into_bytes()))
    };
    with(|state| {
        if !may(state, permission) {
            return failed("denied", format!("the resource does not grant {}", permission));
        }
        let answers = state.answers.iter().filter(|(name, _)| name == function);
        match answers.filter_map(|(_, give)| give(question)).next() {
            Some(answer) => {
                assert!(json::parse(&answer).is_some(), "the test's answer for {} is no JSON: {}", function, answer);
                Ok(Some(answer.into_bytes()))
            }
            None => failed("unavailable", format!("the test has no answer for this {}; see Host::answer", function)),
        }
    })
}

pub fn query_execute(source: &str, sql: &str, params: &str) -> Found {
    given("query.execute", "query_execute", &[source, sql, params])
}

pub fn query_prepare(source: &str, sql: &str) -> Found {
    given("query.execute", "query_prepare", &[source, sql])
}

pub fn query_get_tables(sql: &str) -> Found {
    given("query.execute", "query_get_tables", &[sql])
}

pub fn query_normalize(sql: &str) -> Found {
    given("query.execute", "query_normalize", &[sql])
}

pub fn http_fetch(request: &str) -> Found {
    given("http.fetch", "http_fetch", &[request])
}

pub fn http_post(url: &str, content_type: &str, body: &[u8]) -> Found {
    given("http.fetch", "http_post", &[url, content_type, &String::from_utf8_lossy(body)])
}
