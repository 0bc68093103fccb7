//! The host's functions, as it offers them to a module: pointers and lengths in, codes and packed answers out.

use crate::{dealloc, Error};

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

/// Bytes, or nothing.
pub type Found = Result<Option<Vec<u8>>, Error>;

/// The bytes that the host put where our `alloc` said; they are ours now.
fn unpack(packed: u64) -> Found {
    let (at, len) = ((packed >> 32) as usize as *mut u8, packed as u32 as usize);
    if at.is_null() {
        return if len == 0 { Ok(None) } else { Err(Error::of((len as i32).wrapping_neg())) };
    }
    if len == 0 {
        unsafe { dealloc(at, len) };
        return Ok(Some(Vec::new()));
    }
    // Our alloc took them as a vector of bytes takes its own.
    Ok(Some(unsafe { Vec::from_raw_parts(at, len, len) }))
}

/// Ends the call at once.
pub fn stop(_why: &str) -> ! {
    core::arch::wasm32::unreachable()
}

pub fn log(level: i32, line: &str) {
    unsafe { raw::log(level, line.as_ptr(), line.len()) };
}

pub fn get_time() -> i64 {
    unsafe { raw::get_time() }
}

pub fn random(out: &mut [u8]) -> i32 {
    unsafe { raw::random(out.as_mut_ptr(), out.len()) }
}

pub fn get_config(path: &str) -> Found {
    unpack(unsafe { raw::get_config(path.as_ptr(), path.len()) })
}

pub fn metric_inc(name: &str, by: f64) -> i32 {
    unsafe { raw::metric_inc(name.as_ptr(), name.len(), by) }
}

pub fn metric_gauge(name: &str, value: f64) -> i32 {
    unsafe { raw::metric_gauge(name.as_ptr(), name.len(), value) }
}

pub fn metric_observe(name: &str, value: f64) -> i32 {
    unsafe { raw::metric_observe(name.as_ptr(), name.len(), value) }
}

pub fn sha256_hex(data: &[u8], out: &mut [u8; 64]) -> i32 {
    unsafe { raw::sha256_hex(data.as_ptr(), data.len(), out.as_mut_ptr()) }
}

pub fn hmac_sha256(key: &[u8], data: &[u8], out: &mut [u8; 32]) -> i32 {
    unsafe { raw::hmac_sha256(key.as_ptr(), key.len(), data.as_ptr(), data.len(), out.as_mut_ptr()) }
}

pub fn kv_get(key: &[u8]) -> Option<Vec<u8>> {
    for room in [4096, crate::KV_MAX] {
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

pub fn kv_set(key: &[u8], value: &[u8]) -> i32 {
    unsafe { raw::kv_set(key.as_ptr(), key.len(), value.as_ptr(), value.len()) }
}

pub fn kv_delete(key: &[u8]) -> i32 {
    unsafe { raw::kv_delete(key.as_ptr(), key.len()) }
}

pub fn kv_list(prefix: &str) -> Found {
    unpack(unsafe { raw::kv_list(prefix.as_ptr(), prefix.len()) })
}

pub fn kv_incr(key: &[u8], by: i64) -> i64 {
    unsafe { raw::kv_incr(key.as_ptr(), key.len(), by) }
}

pub fn kv_compare_and_set(key: &[u8], was: Option<&[u8]>, value: &[u8]) -> i32 {
    let (at, len) = was.map_or((std::ptr::null(), -1), |was| (was.as_ptr(), was.len() as i32));
    unsafe { raw::kv_compare_and_set(key.as_ptr(), key.len(), at, len, value.as_ptr(), value.len()) }
}

pub fn kv_set_ttl(key: &[u8], ttl_ms: i64) -> i32 {
    unsafe { raw::kv_set_ttl(key.as_ptr(), key.len(), ttl_ms) }
}

pub fn cache_get(cache: &str, key: &[u8]) -> Found {
    unpack(unsafe { raw::cache_get(cache.as_ptr(), cache.len(), key.as_ptr(), key.len()) })
}

pub fn cache_exists(cache: &str, key: &[u8]) -> i32 {
    unsafe { raw::cache_exists(cache.as_ptr(), cache.len(), key.as_ptr(), key.len()) }
}

pub fn cache_set(cache: &str, key: &[u8], value: &[u8], ttl_ms: i64) -> i32 {
    let (at, len) = (value.as_ptr(), value.len());
    unsafe { raw::cache_set(cache.as_ptr(), cache.len(), key.as_ptr(), key.len(), at, len, ttl_ms) }
}

pub fn cache_delete(cache: &str, key: &[u8]) -> i32 {
    unsafe { raw::cache_delete(cache.as_ptr(), cache.len(), key.as_ptr(), key.len()) }
}

pub fn query_execute(source: &str, sql: &str, params: &str) -> Found {
    let (at, len) = (params.as_ptr(), params.len());
    unpack(unsafe { raw::query_execute(source.as_ptr(), source.len(), sql.as_ptr(), sql.len(), at, len) })
}

pub fn query_prepare(source: &str, sql: &str) -> Found {
    unpack(unsafe { raw::query_prepare(source.as_ptr(), source.len(), sql.as_ptr(), sql.len()) })
}

pub fn query_get_tables(sql: &str) -> Found {
    unpack(unsafe { raw::query_get_tables(sql.as_ptr(), sql.len()) })
}

pub fn query_normalize(sql: &str) -> Found {
    unpack(unsafe { raw::query_normalize(sql.as_ptr(), sql.len()) })
}

pub fn http_fetch(request: &str) -> Found {
    unpack(unsafe { raw::http_fetch(request.as_ptr(), request.len()) })
}

pub fn http_post(url: &str, content_type: &str, body: &[u8]) -> Found {
    let (kind, kind_len, at, len) = (content_type.as_ptr(), content_type.len(), body.as_ptr(), body.len());
    unpack(unsafe { raw::http_post(url.as_ptr(), url.len(), kind, kind_len, at, len) })
}
