//! Everything a Hookline plugin in Rust needs: typed inputs and answers for each hook, the host's functions, and a host
//! for tests ([`testing`]) with which `cargo test` runs without WebAssembly.
//!
//! ```
//! use hookline::{PreQuery, QueryInput};
//!
//! hookline::pre_query!(decide);
//!
//! fn decide(input: &QueryInput) -> PreQuery {
//!     if input.tables.iter().any(|table| table == "salaries") && !input.has_role("hr") {
//!         return PreQuery::block("salaries are for the role hr");
//!     }
//!     PreQuery::Continue
//! }
//! ```
//!
//! A plugin that cannot do its work (no permission, a full store) calls [`fail`], panics, or answers an `Err`: the call
//! fails with cause `trap`, the log says why, and the resource's failurePolicy decides what that means. So does an input
//! that is malformed. Never guess.

mod answer;
pub mod base64;
mod errors;
mod host;
pub mod json;
mod messages;
mod read;
pub mod sql;
#[cfg(target_arch = "wasm32")]
mod sys;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
mod types;

pub use answer::{Answer, Outcomes};
pub use errors::{Error, Failure};
pub use host::*;
pub use messages::{Column, Params, Prepared, Request, Response, Rows};
pub use read::{read, Malformed, Map, Read, Reader};
use std::alloc::{alloc as take, dealloc as give, Layout};
#[cfg(not(target_arch = "wasm32"))]
use testing::sys;
pub use types::*;

/// Exports a hook as it is: `hook!(custom_hook, decide)`, with a function that takes the input's text and answers JSON,
/// or an empty text for the hook's default. Each hook has a macro of its own, which reads and writes types.
#[macro_export]
macro_rules! hook {
    ($hook:ident, $body:expr) => {
        $crate::export!($hook, |input| $crate::text_of($body(input)));
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! export {
    ($hook:ident, $run:expr) => {
        const _: () = {
            #[cfg_attr(target_arch = "wasm32", export_name = stringify!($hook))]
            #[allow(dead_code)]
            unsafe extern "C" fn exported(at: *const u8, len: usize) -> u64 {
                $crate::call(at, len, $run)
            }
        };
    };
}

fn layout(size: usize) -> Layout {
    // SAFETY: 1 is a power of two, and no block of a module of 32 bits overflows when it is rounded up to that.
    unsafe { Layout::from_size_align_unchecked(size.max(1), 1) }
}

/// Room for `size` bytes; null where there is none.
#[cfg_attr(target_arch = "wasm32", no_mangle)]
pub extern "C" fn alloc(size: usize) -> *mut u8 {
    unsafe { take(layout(size)) }
}

/// Gives back what `alloc` gave, or what an answer points to.
///
/// # Safety
/// The host calls it, once for each block and with its size.
#[cfg_attr(target_arch = "wasm32", no_mangle)]
pub unsafe extern "C" fn dealloc(at: *mut u8, size: usize) {
    give(at, layout(size));
}

#[doc(hidden)]
pub fn text_of(text: String) -> String {
    text
}

/// One call of a hook: the input's text, which is the host's until it calls `dealloc`, and the answer, packed.
///
/// # Safety
/// `at` and `len` are those that a hook was called with.
#[doc(hidden)]
pub unsafe fn call(at: *const u8, len: usize, run: impl FnOnce(&str) -> String) -> u64 {
    say_why_it_panics();
    let input = std::str::from_utf8(std::slice::from_raw_parts(at, len));
    let input = input.unwrap_or_else(|_| fail("the input is not UTF-8"));
    let answer = run(input).into_boxed_str();
    if answer.is_empty() {
        return 0;
    }
    let len = answer.len();
    let at = Box::into_raw(answer) as *mut u8; // the host gives it back with `dealloc`
    (at as usize as u64) << 32 | len as u64
}

/// A panic is a line in the log and a trap.
fn say_why_it_panics() {
    use std::sync::atomic::{AtomicBool, Ordering};
    static IS_SET: AtomicBool = AtomicBool::new(false);
    if IS_SET.swap(true, Ordering::Relaxed) {
        return;
    }
    std::panic::set_hook(Box::new(|info| {
        let message = match info.payload().downcast_ref::<&str>() {
            Some(text) => text,
            None => info.payload().downcast_ref::<String>().map_or("", |text| text),
        };
        let mut line = String::from("panicked");
        if let Some(at) = info.location() {
            line.push_str(" at ");
            line.push_str(at.file());
            line.push(':');
            json::decimal(&mut line, at.line().into());
        }
        line.push_str(": ");
        line.push_str(message);
        log(Level::Error, &line);
    }));
}
