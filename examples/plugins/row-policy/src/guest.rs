//! The guest's side of the ABI: memory that the host writes to and reads from, and host functions.

use crate::json::{self, Value};
use std::alloc::{alloc as take, dealloc as give, Layout};

#[link(wasm_import_module = "hookline")]
extern "C" {
    fn get_config(path: *const u8, len: usize) -> u64;
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size.max(1), 8).expect("a size below 2 GiB")
}

/// Room for `size` bytes; null where there is none.
#[no_mangle]
pub extern "C" fn alloc(size: usize) -> *mut u8 {
    unsafe { take(layout(size)) }
}

/// Gives back what `alloc` gave, or what an answer points to. It is used by the host, which is trusted to
/// give back each block once and with its size.
#[no_mangle]
pub extern "C" fn dealloc(at: *mut u8, size: usize) {
    unsafe { give(at, layout(size)) }
}

/// The bytes the host wrote for this call. They are the host's until it calls `dealloc`.
pub fn input<'call>(at: *const u8, len: usize) -> &'call str {
    let bytes = unsafe { std::slice::from_raw_parts(at, len) };
    std::str::from_utf8(bytes).expect("the input is UTF-8")
}

/// The whole config.
pub fn config() -> Value {
    let packed = unsafe { get_config(std::ptr::null(), 0) };
    let (at, len) = ((packed >> 32) as usize as *mut u8, packed as u32 as usize);
    if at.is_null() {
        assert!(len == 0, "the config cannot be read; is the permission config.read granted?");
        return Value::Object(Vec::new());
    }
    let config = json::parse(input(at, len)).expect("the config is JSON");
    dealloc(at, len);
    config
}

/// Copies an answer to where the host gives it back with `dealloc`, and packs pointer and length.
pub fn answer(text: String) -> u64 {
    let at = alloc(text.len());
    assert!(!at.is_null(), "there is no memory for the answer");
    unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), at, text.len()) };
    (at as u64) << 32 | text.len() as u64
}
