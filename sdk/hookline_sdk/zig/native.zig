//! A host in memory, for `zig test`. It keeps keys and caches, notes what the plugin logs and counts, and reaches
//! nobody: what a database or a server would say, the test says.
//!
//!     const host = hookline.testing.begin();
//!     host.config = "{\"max_length\": 20}";
//!     const answer = try hookline.call(.pre_query, guard, "{\"query\": \"select 1\"}");
//!     try std.testing.expectEqualStrings("{\"action\":\"continue\"}", answer.?);
//!
//! Where a hook returns an error, or its input is malformed, `call` says error.CallFailed. `fail` and panics end the
//! test program, with what was logged.

const std = @import("std");
const memory = @import("memory.zig");

const Text = []const u8;

/// What a host function answers where it answers bytes, none, or a code.
pub const Bytes = struct { code: i32 = 0, bytes: ?Text = null };

pub const Line = struct { level: i32, text: Text };

pub const Host = struct {
    arena: std.heap.ArenaAllocator = .init(std.heap.page_allocator),
    /// spec.config, as JSON.
    config: Text = "{}",
    /// Permissions that the resource does not grant.
    denied: []const Text = &.{},
    keys: std.array_hash_map.String(Text) = .empty,
    /// By cache, a slash and key.
    caches: std.array_hash_map.String(Text) = .empty,
    /// Counters and gauges, and the sum of what was observed.
    metrics: std.array_hash_map.String(f64) = .empty,
    lines: std.ArrayList(Line) = .empty,
    /// Milliseconds since 1970.
    now: i64 = 1_767_225_600_000,
    /// What query* and http* answer, by the function's name in the contract: the JSON of docs/host-functions.md.
    answers: std.array_hash_map.String(Text) = .empty,

    fn keep(self: *Host, text: Text) Text {
        return self.arena.allocator().dupe(u8, text) catch @panic("no memory");
    }

    fn denies(self: *Host, permission: Text) bool {
        for (self.denied) |each| if (std.mem.eql(u8, each, permission)) return true;
        return false;
    }

    pub fn put(self: *Host, key: Text, value: Text) void {
        self.keys.put(self.arena.allocator(), self.keep(key), self.keep(value)) catch @panic("no memory");
    }

    pub fn answer(self: *Host, function: Text, text: Text) void {
        self.answers.put(self.arena.allocator(), self.keep(function), self.keep(text)) catch @panic("no memory");
    }

    /// Whether a line of the log has this in it.
    pub fn logged(self: *Host, part: Text) bool {
        for (self.lines.items) |line| if (std.mem.indexOf(u8, line.text, part) != null) return true;
        return false;
    }
};

var here: Host = .{};

/// A fresh host, which is the plugin's from now on.
pub fn begin() *Host {
    here.arena.deinit();
    here = .{};
    memory.release();
    return &here;
}

/// The call fails here.
pub fn end() noreturn {
    std.debug.print("the call failed\n", .{});
    for (here.lines.items) |line| std.debug.print("  logged: {s}\n", .{line.text});
    std.process.abort();
}

// ---- The host functions, as imports.zig has them. ----

const denied_code = -3;

pub fn kvGet(key: Text, out: []u8) i32 {
    const value = here.keys.get(key) orelse return -1;
    if (here.denies("kv.read")) return -1;
    if (value.len > out.len) return -2;
    @memcpy(out[0..value.len], value);
    return @intCast(value.len);
}

fn write(key: Text, value: Text) i32 {
    if (here.denies("kv.write")) return denied_code;
    if (key.len > 65536 or value.len > 65536) return -2;
    if (here.keys.count() >= 1024 and here.keys.get(key) == null) return -5;
    here.put(key, value);
    return 0;
}

pub fn kvSet(key: Text, value: Text) i32 {
    return if (write(key, value) < 0) -1 else 0;
}

pub fn kvDelete(key: Text) i32 {
    if (here.denies("kv.write")) return -1;
    _ = here.keys.orderedRemove(key);
    return 0;
}

fn less(_: void, a: Text, b: Text) bool {
    return std.mem.lessThan(u8, a, b);
}

pub fn kvList(prefix: Text) Bytes {
    if (here.denies("kv.read")) return .{ .code = denied_code };
    var list: std.ArrayList(Text) = .empty;
    for (here.keys.keys()) |key| {
        if (std.mem.startsWith(u8, key, prefix)) list.append(memory.allocator, key) catch memory.exhausted();
    }
    std.mem.sort(Text, list.items, {}, less);
    return .{ .bytes = @import("json.zig").valueText(list.items) };
}

pub fn kvIncr(key: Text, by: i64) i64 {
    const least = std.math.minInt(i64);
    const old = std.fmt.parseInt(i64, here.keys.get(key) orelse "0", 10) catch return least;
    var digits: [21]u8 = undefined;
    const sum = old + by;
    return if (write(key, std.fmt.bufPrint(&digits, "{d}", .{sum}) catch unreachable) < 0) least else sum;
}

pub fn kvCompareAndSet(key: Text, was: ?Text, value: Text) i32 {
    if (here.denies("kv.write")) return denied_code;
    const old = here.keys.get(key);
    if ((old == null) != (was == null)) return 0;
    if (old) |text| if (!std.mem.eql(u8, text, was.?)) return 0;
    const code = write(key, value);
    return if (code < 0) code else 1;
}

/// Nothing ends here by itself.
pub fn kvSetTtl(key: Text, _: i64) i32 {
    if (here.denies("kv.write")) return denied_code;
    return @intFromBool(here.keys.get(key) != null);
}

pub fn sha256Hex(text: Text, out: *[64]u8) i32 {
    if (here.denies("crypto")) return -1;
    var sum: [32]u8 = undefined;
    std.crypto.hash.sha2.Sha256.hash(text, &sum, .{});
    out.* = std.fmt.bytesToHex(sum, .lower);
    return 64;
}

pub fn hmacSha256(key: Text, text: Text, out: *[32]u8) i32 {
    if (here.denies("crypto")) return denied_code;
    std.crypto.auth.hmac.sha2.HmacSha256.create(out, text, key);
    return 0;
}

pub fn log(level: i32, line: Text) void {
    here.lines.append(here.arena.allocator(), .{ .level = level, .text = here.keep(line) }) catch @panic("no memory");
}

pub fn getTime() i64 {
    return here.now;
}

/// The same numbers in every run, so that a test says the same.
pub fn random(out: []u8) i32 {
    if (out.len > 4096) return -2;
    for (out, 0..) |*byte, at| byte.* = @truncate((at + 1) *% 0x9e3779b97f4a7c15 >> 32);
    return 0;
}

pub fn getConfig(path: Text) Bytes {
    if (here.denies("config.read")) return .{ .code = denied_code };
    var value = std.json.parseFromSliceLeaky(std.json.Value, here.arena.allocator(), here.config, .{}) catch
        @panic("the test's config is not JSON");
    if (path.len > 0) {
        var parts = std.mem.splitScalar(u8, path, '.');
        while (parts.next()) |name| {
            if (value != .object) return .{};
            value = value.object.get(name) orelse return .{};
        }
    }
    return .{ .bytes = @import("json.zig").valueText(value) };
}

fn measure(name: Text, value: f64, counts: bool) i32 {
    if (here.denies("metrics")) return denied_code;
    const old = if (counts) here.metrics.get(name) orelse 0 else 0;
    here.metrics.put(here.arena.allocator(), here.keep(name), old + value) catch @panic("no memory");
    return 0;
}

pub fn metricInc(name: Text, by: f64) i32 {
    return measure(name, by, true);
}

pub fn metricGauge(name: Text, value: f64) i32 {
    return measure(name, value, false);
}

pub fn metricObserve(name: Text, value: f64) i32 {
    return measure(name, value, true);
}

fn cacheName(cache: Text, key: Text) Text {
    return std.mem.concat(here.arena.allocator(), u8, &.{ cache, "/", key }) catch @panic("no memory");
}

pub fn cacheGet(cache: Text, key: Text) Bytes {
    if (here.denies("cache.read")) return .{ .code = denied_code };
    return .{ .bytes = here.caches.get(cacheName(cache, key)) };
}

pub fn cacheExists(cache: Text, key: Text) i32 {
    if (here.denies("cache.read")) return denied_code;
    return @intFromBool(here.caches.get(cacheName(cache, key)) != null);
}

pub fn cacheSet(cache: Text, key: Text, value: Text, ttl_ms: i64) i32 {
    if (here.denies("cache.write")) return denied_code;
    if (ttl_ms < 0) return -4;
    here.caches.put(here.arena.allocator(), cacheName(cache, key), here.keep(value)) catch @panic("no memory");
    return 0;
}

pub fn cacheDelete(cache: Text, key: Text) i32 {
    if (here.denies("cache.write")) return denied_code;
    return @intFromBool(here.caches.orderedRemove(cacheName(cache, key)));
}

fn given(function: Text, permission: Text) Bytes {
    if (here.denies(permission)) return .{ .bytes = "{\"error\":{\"cause\":\"denied\",\"message\":\"the permission is not granted\"}}" };
    return .{ .bytes = here.answers.get(function) orelse "{\"error\":{\"cause\":\"failed\",\"message\":\"the test has no answer for it\"}}" };
}

pub fn queryExecute(_: Text, _: Text, _: Text) Bytes {
    return given("query_execute", "query.execute");
}

pub fn queryPrepare(_: Text, _: Text) Bytes {
    return given("query_prepare", "query.execute");
}

pub fn queryGetTables(_: Text) Bytes {
    return given("query_get_tables", "query.execute");
}

pub fn queryNormalize(_: Text) Bytes {
    return given("query_normalize", "query.execute");
}

pub fn httpFetch(_: Text) Bytes {
    return given("http_fetch", "http.fetch");
}

pub fn httpPost(_: Text, _: Text, _: Text) Bytes {
    return given("http_post", "http.fetch");
}
