//! Everything a Hookline plugin in Rust needs: hooks, answers, host functions.
//!
//! ```ignore
//! use hookline::json;
//!
//! fn pre_query(input: &str) -> String {
//!     let input = json::parse(input).expect("the input is JSON");
//!     let query = input.get("query").and_then(json::Value::text).expect("the input has a query");
//!     json::object(&[("action", if query.len() > 10_000 { "block" } else { "continue" }), ("value", "too long")])
//! }
//! hookline::hook!(pre_query, pre_query);
//! ```
//!
//! A plugin that cannot do its work (no permission, a full store, an input that is not JSON) calls `fail`, or
//! panics: the call fails with cause `trap`, and the resource's failurePolicy decides what that means. Never guess.

pub mod base64;
mod host;
pub mod json;

pub use host::*;
use std::alloc::{alloc as take, dealloc as give, Layout};

/// Exports a hook: `hook!(rewrite, decide)`, with a function that takes the input and answers JSON, or nothing for
/// the hook's default.
#[macro_export]
macro_rules! hook {
    ($hook:ident, $body:path) => {
        const _: () = {
            #[export_name = stringify!($hook)]
            unsafe extern "C" fn exported(at: *const u8, len: usize) -> u64 {
                $crate::answer($body($crate::input(at, len)))
            }
        };
    };
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size.max(1), 8).expect("a size below 2 GiB")
}

/// Room for `size` bytes; null where there is none.
#[no_mangle]
pub extern "C" fn alloc(size: usize) -> *mut u8 {
    unsafe { take(layout(size)) }
}

/// Gives back what `alloc` gave, or what an answer points to.
///
/// # Safety
/// The host calls it, once for each block and with its size.
#[no_mangle]
pub unsafe extern "C" fn dealloc(at: *mut u8, size: usize) {
    give(at, layout(size));
}

/// The text the host wrote for this call. It is the host's until it calls `dealloc`.
///
/// # Safety
/// `at` and `len` are those that a hook was called with.
#[doc(hidden)]
pub unsafe fn input<'call>(at: *const u8, len: usize) -> &'call str {
    std::str::from_utf8(std::slice::from_raw_parts(at, len)).expect("the input is UTF-8")
}

/// Copies an answer to where the host gives it back with `dealloc`, and packs pointer and length.
#[doc(hidden)]
pub fn answer(text: String) -> u64 {
    if text.is_empty() {
        return 0;
    }
    let at = alloc(text.len());
    assert!(!at.is_null(), "there is no memory for the answer");
    unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), at, text.len()) };
    (at as u64) << 32 | text.len() as u64
}
