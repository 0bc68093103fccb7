//! Memory that is only ever taken, never given back one by one: a call is short. When the host gives back the input,
//! which is the first block of a call, the call is over and all of it is free again. So a plugin runs as well with
//! `isolation: Pooled` as with `PerCall`. Keep no pointer into this memory in a global variable: it would outlive the
//! call.
//!
//! Short inputs have a place of their own, so that the host need not ask for one: then all is free again when the next
//! hook begins.

const std = @import("std");
const builtin = @import("builtin");

pub const is_wasm = builtin.target.cpu.arch.isWasm();

/// For whatever lives as long as the call.
pub const allocator: std.mem.Allocator = .{ .ptr = undefined, .vtable = &.{
    .alloc = take,
    .resize = resize,
    .remap = remap,
    .free = std.mem.Allocator.noFree,
} };

/// Without memory there is no answer to give: the call fails, and the resource's failurePolicy decides.
pub fn exhausted() noreturn {
    @branchHint(.cold);
    @panic("the plugin has no memory left");
}

/// All of it is free again.
pub fn release() void {
    taken = 0;
}

// ---- The end of what is taken; 0 at the start of a call. ----

var taken: usize = 0;

const Native = struct {
    var room: [64 << 20]u8 align(16) = undefined;
};

fn start() usize {
    const at = if (is_wasm) @intFromPtr(@extern(*u8, .{ .name = "__heap_base" })) else @intFromPtr(&Native.room);
    return std.mem.alignForward(usize, at, 16);
}

fn reach(end: usize) bool {
    if (!is_wasm) return end <= @intFromPtr(&Native.room) + Native.room.len;
    const pages = (end + 0xffff) >> 16;
    const have = @wasmMemorySize(0);
    return pages <= have or @wasmMemoryGrow(0, pages - have) != -1;
}

fn take(_: *anyopaque, len: usize, alignment: std.mem.Alignment, _: usize) ?[*]u8 {
    const at = alignment.forward(if (taken == 0) start() else taken);
    const end = std.math.add(usize, at, len) catch return null;
    if (end > std.math.maxInt(usize) - 0x1ffff or !reach(end)) return null;
    taken = end;
    return @ptrFromInt(at);
}

/// The last block may grow where it is.
fn resize(_: *anyopaque, block: []u8, _: std.mem.Alignment, len: usize, _: usize) bool {
    const at = @intFromPtr(block.ptr);
    if (len <= block.len) return true;
    if (at + block.len != taken or len > std.math.maxInt(usize) - 0x1ffff - at or !reach(at + len)) return false;
    taken = at + len;
    return true;
}

fn remap(context: *anyopaque, block: []u8, alignment: std.mem.Alignment, len: usize, address: usize) ?[*]u8 {
    return if (resize(context, block, alignment, len, address)) block.ptr else null;
}

// ---- What the host calls. ----

const input_room = 8192;

const Wasm = struct {
    var input: [input_room]u8 = undefined;

    fn inputRegion() callconv(.c) u64 {
        return pack(&input);
    }

    fn alloc(size: usize) callconv(.c) ?[*]u8 {
        return take(undefined, @max(size, 1), .@"16", 0);
    }

    fn dealloc(block: ?[*]u8, _: usize) callconv(.c) void {
        if (@intFromPtr(block) == start()) release();
    }
};

/// Exports what every plugin has; hookline.zig does it with the first hook.
pub fn exported() void {
    @export(&Wasm.alloc, .{ .name = "alloc" });
    @export(&Wasm.dealloc, .{ .name = "dealloc" });
    @export(&Wasm.inputRegion, .{ .name = "hookline_input" });
}

/// The input of a hook that begins.
pub fn begun(at: [*]const u8, len: usize) []const u8 {
    if (at == @as([*]const u8, &Wasm.input)) release();
    return at[0..len];
}

/// As the host takes what is answered.
pub fn pack(bytes: []const u8) u64 {
    return @as(u64, @intFromPtr(bytes.ptr)) << 32 | bytes.len;
}
