//! A guard for each of the twelve hooks, written as a plugin of HeliosDB-Proxy's SDK is.
//!
//! Three habits of that SDK matter here. A `String` with a default takes an absent key and refuses null. An input that
//! does not parse is answered with 0, "no opinion". `alloc` hands out memory from 65536 upwards and never takes it back.
//!
//! Each hook refuses what has `drop` in its `normalized` query, and says something else than the default about an input
//! that parsed. Observing hooks keep what they read under their own name in the store.

#![allow(dead_code)] // a field is there to be parsed

use serde::de::DeserializeOwned;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct HookContext {
    #[serde(default)]
    request_id: String,
    #[serde(default)]
    identity: Option<String>,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Query {
    query: String,
    #[serde(default)]
    normalized: String,
    #[serde(default)]
    tables: Vec<String>,
    #[serde(default)]
    is_read_only: bool,
    hook_context: HookContext,
}

#[derive(Deserialize)]
struct Identity {
    user_id: String,
    username: String,
    roles: Vec<String>,
}

#[derive(Deserialize)]
struct Authorize {
    #[serde(flatten)]
    query: Query,
    #[serde(default)]
    identity: Option<Identity>,
    action: String,
    resource: String,
}

#[derive(Deserialize)]
struct Cached {
    #[serde(flatten)]
    query: Query,
    key: String,
}

#[derive(Deserialize)]
struct Outcome {
    success: bool,
    elapsed_us: u64,
    response_bytes: u64,
}

#[derive(Deserialize)]
struct Authenticate {
    headers: BTreeMap<String, String>,
    username: String,
    password: Option<String>,
    client_ip: String,
}

#[derive(Deserialize)]
struct Event {
    hook_context: HookContext,
    event: BTreeMap<String, serde_json::Value>,
}

#[link(wasm_import_module = "env")]
extern "C" {
    fn kv_set(key: *const u8, key_len: usize, value: *const u8, value_len: usize) -> i32;
}

static mut NEXT: usize = 65_536;

#[no_mangle]
pub extern "C" fn alloc(size: usize) -> usize {
    unsafe {
        let here = NEXT;
        NEXT += (size + 7) & !7;
        here
    }
}

#[no_mangle]
pub extern "C" fn dealloc(_at: usize, _size: usize) {}

/// The answer of a hook that parsed its input; 0 where it did not.
fn answered<T: DeserializeOwned>(at: *const u8, size: usize, answer: impl Fn(T) -> String) -> u64 {
    let input = unsafe { std::slice::from_raw_parts(at, size) };
    match serde_json::from_slice(input) {
        Ok(read) => {
            let text = answer(read);
            let place = alloc(text.len());
            unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), place as *mut u8, text.len()) };
            (place as u64) << 32 | text.len() as u64
        }
        Err(_) => 0,
    }
}

fn observed<T: DeserializeOwned>(hook: &str, at: *const u8, size: usize, seen: impl Fn(T) -> String) {
    let input = unsafe { std::slice::from_raw_parts(at, size) };
    if let Ok(read) = serde_json::from_slice(input) {
        let text = seen(read);
        unsafe { kv_set(hook.as_ptr(), hook.len(), text.as_ptr(), text.len()) };
    }
}

impl Query {
    fn drops(&self) -> bool {
        self.normalized.to_lowercase().contains("drop")
    }
}

macro_rules! deciding {
    ($($hook:ident: $input:ty, $refused:expr, $allowed:expr;)*) => {$(
        #[no_mangle]
        pub extern "C" fn $hook(at: *const u8, size: usize) -> u64 {
            answered(at, size, |read: $input| if refuses(&read) { $refused.into() } else { $allowed.into() })
        }
    )*};
}

trait Guarded {
    fn query(&self) -> &Query;
}

impl Guarded for Query {
    fn query(&self) -> &Query {
        self
    }
}

impl Guarded for Authorize {
    fn query(&self) -> &Query {
        &self.query
    }
}

impl Guarded for Cached {
    fn query(&self) -> &Query {
        &self.query
    }
}

fn refuses(read: &impl Guarded) -> bool {
    read.query().drops()
}

deciding! {
    pre_query: Query, r#"{"kind":"block","reason":"it drops"}"#, r#"{"kind":"continue"}"#;
    rewrite: Query, r#"{"kind":"block","reason":"it drops"}"#, r#"{"kind":"continue"}"#;
    route: Query, r#"{"action":"block","reason":"it drops"}"#, r#"{"action":"primary"}"#;
    cache_get: Cached, r#"{"action":"miss"}"#, r#"{"action":"hit","data":[1]}"#;
    cache_set: Cached, r#"{"action":"skip"}"#, r#"{"action":"store","ttl_ms":7}"#;
    custom_hook: Query, r#"{"refused":true}"#, r#"{"refused":false}"#;
}

#[no_mangle]
pub extern "C" fn authorize(at: *const u8, size: usize) -> u64 {
    answered(at, size, |read: Authorize| {
        let action = if refuses(&read) { "deny" } else { "allow" };
        let reason = format!("{} {} of {}", read.action, read.resource, read.query.hook_context.request_id);
        serde_json::json!({"action": action, "reason": reason}).to_string()
    })
}

#[no_mangle]
pub extern "C" fn authenticate(at: *const u8, size: usize) -> u64 {
    answered(at, size, |read: Authenticate| {
        let message = format!("'{}' at '{}' with {} headers", read.username, read.client_ip, read.headers.len());
        serde_json::json!({"action": "denied", "message": message}).to_string()
    })
}

#[no_mangle]
pub extern "C" fn post_query(at: *const u8, size: usize) {
    observed("post_query", at, size, |(query, outcome): (Query, Outcome)| {
        let Outcome { success, elapsed_us, response_bytes } = outcome;
        format!("{} {} {} {}", query.normalized, success, elapsed_us, response_bytes)
    })
}

fn event(hook: &str, at: *const u8, size: usize) {
    observed(hook, at, size, |read: Event| format!("{} {}", read.hook_context.request_id, read.event.len()))
}

#[no_mangle]
pub extern "C" fn metrics(at: *const u8, size: usize) {
    event("metrics", at, size)
}

#[no_mangle]
pub extern "C" fn on_connect(at: *const u8, size: usize) {
    event("on_connect", at, size)
}

#[no_mangle]
pub extern "C" fn on_disconnect(at: *const u8, size: usize) {
    event("on_disconnect", at, size)
}
