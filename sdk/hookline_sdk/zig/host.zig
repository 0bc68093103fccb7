//! The host functions as one likes to call them. All of them look blocking; while one waits, others are answered.
//! docs/host-functions.md says what each costs and when it fails.

const std = @import("std");
const json = @import("json.zig");
const memory = @import("memory.zig");
const host = if (memory.is_wasm) @import("imports.zig") else @import("native.zig");

const Text = []const u8;

/// What a host function says where it does not do what it was asked.
pub const Error = error{
    /// A pointer or length outside memory; of kvSet, kvDelete and sha256Hex anything.
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
};

fn refused(code: i32) Error {
    return switch (code) {
        -1 => error.Memory,
        -2 => error.Size,
        -3 => error.Denied,
        -4 => error.Argument,
        -5 => error.Cap,
        else => error.Unavailable,
    };
}

fn done(answer: i32) Error!void {
    if (answer < 0) return refused(answer);
}

fn yes(answer: i32) Error!bool {
    try done(answer);
    return answer == 1;
}

fn found(answer: host.Bytes) Error!?Text {
    if (answer.code < 0) return refused(answer.code);
    return answer.bytes;
}

/// What query* and http* come to: the answer, or why there is none.
pub fn Reply(comptime T: type) type {
    return union(enum) {
        ok: T,
        failed: Failure,

        /// Without the reason, which goes to the log.
        pub fn get(self: @This()) error{Failed}!T {
            switch (self) {
                .ok => |answer| return answer,
                .failed => |failure| {
                    log(.warn, failure.message);
                    return error.Failed;
                },
            }
        }
    };
}

pub const Failure = struct {
    /// timeout, denied, limit or failed.
    cause: Text,
    /// One sentence.
    message: Text,
    /// Where PostgreSQL said it.
    sqlstate: Text = "",
};

fn failed(message: Text) Failure {
    return .{ .cause = "failed", .message = message };
}

fn parsed(comptime T: type, text: Text) ?T {
    return std.json.parseFromSliceLeaky(T, memory.allocator, text, .{ .ignore_unknown_fields = true }) catch null;
}

fn reply(comptime T: type, answer: host.Bytes) Reply(T) {
    const text = (found(answer) catch null) orelse
        return .{ .failed = failed("the host cannot do it now, or could not read the arguments") };
    if (text.len > 0 and text[0] == '{') {
        const Outcome = struct { @"error": ?Failure = null };
        const outcome = parsed(Outcome, text) orelse return .{ .failed = failed("the host answered no JSON") };
        if (outcome.@"error") |failure| return .{ .failed = failure };
    }
    return .{ .ok = parsed(T, text) orelse return .{ .failed = failed("the host answered something else") } };
}

// ---- Log, time, chance, settings. ----

pub const Level = enum(i32) { trace, debug, info, warn, err };

pub fn log(level: Level, line: Text) void {
    host.log(@intFromEnum(level), line);
}

/// Ends the call with a line in the log and a trap; the resource's failurePolicy decides what that means.
pub fn fail(why: Text) noreturn {
    @branchHint(.cold);
    log(.err, why);
    host.end();
}

/// The same for what should never be: `failAt(@src(), "…")` also says where.
pub fn failAt(comptime place: std.builtin.SourceLocation, comptime what: Text) noreturn {
    @branchHint(.cold);
    fail(std.fmt.comptimePrint("panic: {s} at {s}:{d}", .{ what, place.file, place.line }));
}

/// Milliseconds since 1970, UTC.
pub fn getTime() i64 {
    return host.getTime();
}

/// Fills up to 4096 bytes from the system's generator.
pub fn random(out: []u8) Error!void {
    return done(host.random(out));
}

/// JSON of the setting at a dotted path; null where there is none.
pub fn getConfig(path: Text) Error!?Text {
    return found(host.getConfig(path));
}

/// The whole config as a struct: a field without a default has to be there. Without the permission, or where the config
/// is something else, the call fails, because running on defaults instead would go unnoticed.
pub fn config(comptime T: type) T {
    const text = getConfig("") catch fail("the config cannot be read; is the permission config.read granted?");
    return parsed(T, text orelse "{}") orelse fail("the config is not what the plugin expects");
}

// ---- Metrics. ----

pub fn metricInc(name: Text, by: f64) Error!void {
    return done(host.metricInc(name, by));
}

pub fn metricGauge(name: Text, value: f64) Error!void {
    return done(host.metricGauge(name, value));
}

pub fn metricObserve(name: Text, value: f64) Error!void {
    return done(host.metricObserve(name, value));
}

/// Adds one to a counter. Without the permission `metrics` nothing is counted, and nothing breaks.
pub fn count(name: Text) void {
    metricInc(name, 1) catch {};
}

// ---- Hashes. ----

/// 64 lower-case hexadecimal digits.
pub fn sha256Hex(text: Text) Error![64]u8 {
    var out: [64]u8 = undefined;
    try done(host.sha256Hex(text, &out));
    return out;
}

pub fn hmacSha256(key: Text, text: Text) Error![32]u8 {
    var out: [32]u8 = undefined;
    try done(host.hmacSha256(key, text, &out));
    return out;
}

// ---- Keys: the pod's own, or the cluster's, as the resource says. Each call is atomic. ----

/// How many bytes a key, or a value, may have.
pub const kv_max = 65536;

/// The value of a key; null where there is none, and also without the permission: who must tell them apart asks kvList.
pub fn kvGet(key: Text) ?Text {
    for ([_]usize{ 4096, kv_max }) |room| {
        const out = memory.allocator.alloc(u8, room) catch memory.exhausted();
        const len = host.kvGet(key, out);
        if (len >= 0) return out[0..@intCast(len)];
        if (len != -2) return null;
    }
    return null;
}

pub fn kvSet(key: Text, value: Text) Error!void {
    return done(host.kvSet(key, value));
}

pub fn kvDelete(key: Text) Error!void {
    return done(host.kvDelete(key));
}

/// The keys with that prefix, in order.
pub fn kvList(prefix: Text) Error![]const Text {
    const list = try found(host.kvList(prefix)) orelse return error.Unavailable;
    return parsed([]const Text, list) orelse error.Unavailable;
}

/// Adds to a decimal number, and answers the sum. What went wrong is not said: a permission, a cap, no number.
pub fn kvIncr(key: Text, by: i64) Error!i64 {
    const sum = host.kvIncr(key, by);
    return if (sum == std.math.minInt(i64)) error.Unavailable else sum;
}

/// Whether the value was `was` (null: there was no such key) and is `value` now.
pub fn kvCompareAndSet(key: Text, was: ?Text, value: Text) Error!bool {
    return yes(host.kvCompareAndSet(key, was, value));
}

/// Whether there is such a key. 0 or less takes the limit off.
pub fn kvSetTtl(key: Text, ttl_ms: i64) Error!bool {
    return yes(host.kvSetTtl(key, ttl_ms));
}

// ---- Caches. An empty name is the first of the resource's; a ttl of 0 is the cache's own. ----

/// Null where there is nothing.
pub fn cacheGet(cache: Text, key: Text) Error!?Text {
    return found(host.cacheGet(cache, key));
}

pub fn cacheExists(cache: Text, key: Text) Error!bool {
    return yes(host.cacheExists(cache, key));
}

pub fn cacheSet(cache: Text, key: Text, value: Text, ttl_ms: i64) Error!void {
    return done(host.cacheSet(cache, key, value, ttl_ms));
}

/// Whether it was there.
pub fn cacheDelete(cache: Text, key: Text) Error!bool {
    return yes(host.cacheDelete(cache, key));
}

// ---- Databases. ----

/// A parameter of a statement: `&.{ .{ .text = tenant }, .{ .integer = 7 } }`.
pub const Param = union(enum) {
    none,
    boolean: bool,
    integer: i64,
    text: Text,
    bytes: Text,
    /// Anything else, as JSON.
    json: Text,
};

pub const Column = struct {
    name: Text,
    /// As PostgreSQL names it.
    type: Text,
};

/// What a statement came to.
pub const Rows = struct {
    columns: []const Column = &.{},
    rows: []const []const json.Value = &.{},
    /// Those that it answered or changed.
    rowCount: i64 = 0,
};

fn written(params: []const Param) Text {
    var to: json.Writer = .{};
    for (params, 0..) |param, at| {
        to.put(if (at == 0) "[" else ",");
        switch (param) {
            .none => to.put("null"),
            .boolean => |value| to.put(if (value) "true" else "false"),
            .integer => |value| to.number(value),
            .text => |value| to.string(value),
            .bytes => |value| to.bytes(value),
            .json => |value| to.put(value),
        }
    }
    if (params.len > 0) to.put("]");
    return to.made.items;
}

/// Runs one statement, with parameters for its $1 and so on.
pub fn queryExecute(source: Text, sql: Text, params: []const Param) Reply(Rows) {
    return reply(Rows, host.queryExecute(source, sql, written(params)));
}

/// What a statement takes and answers.
pub const Prepared = struct {
    /// Types, as PostgreSQL names them.
    parameters: []const Text = &.{},
    columns: []const Column = &.{},
};

/// Checks and describes a statement, without running it.
pub fn queryPrepare(source: Text, sql: Text) Reply(Prepared) {
    return reply(Prepared, host.queryPrepare(source, sql));
}

/// The tables that a statement names, as it writes them.
pub fn queryGetTables(sql: Text) Reply([]const Text) {
    return reply([]const Text, host.queryGetTables(sql));
}

/// The statement with its constants replaced by parameters.
pub fn queryNormalize(sql: Text) Reply(Text) {
    return switch (reply(struct { sql: Text }, host.queryNormalize(sql))) {
        .ok => |answer| .{ .ok = answer.sql },
        .failed => |failure| .{ .failed = failure },
    };
}

// ---- HTTP. ----

pub const Header = json.Map.Entry;

/// What httpFetch asks. Without a time-out, the plugin's limits.wait alone counts.
pub const Request = struct {
    method: Text = "GET",
    url: Text,
    headers: []const Header = &.{},
    body: Text = "",
    timeout_ms: i64 = 0,
};

/// What a server answered.
pub const Response = struct {
    status: i64,
    /// With names in lower case.
    headers: json.Map,
    body: Text,
    from_cache: bool,
};

fn response(answer: host.Bytes) Reply(Response) {
    const Answer = struct {
        status: i64,
        headers: json.Value = .null,
        body: Text = "",
        bodyBase64: ?Text = null,
        fromCache: bool = false,
    };
    const said = switch (reply(Answer, answer)) {
        .ok => |ok| ok,
        .failed => |failure| return .{ .failed = failure },
    };
    const body = if (said.bodyBase64) |text| decoded(text) orelse
        return .{ .failed = failed("the host answered a body that is not base64") } else said.body;
    return .{ .ok = .{ .status = said.status, .headers = texts(said.headers), .body = body, .from_cache = said.fromCache } };
}

fn texts(object: json.Value) json.Map {
    if (object != .object) return .{};
    const entries = memory.allocator.alloc(Header, object.object.count()) catch memory.exhausted();
    for (entries, object.object.keys(), object.object.values()) |*entry, name, value| {
        entry.* = .{ .name = name, .value = if (value == .string) value.string else "" };
    }
    return .{ .entries = entries };
}

/// The bytes of base64; null where it is none.
pub fn decoded(text: Text) ?Text {
    const decoder = std.base64.standard.Decoder;
    const room = memory.allocator.alloc(u8, decoder.calcSizeForSlice(text) catch return null) catch memory.exhausted();
    decoder.decode(room, text) catch return null;
    return room;
}

pub fn httpFetch(request: Request) Reply(Response) {
    var to: json.Writer = .{};
    to.text("method", request.method);
    to.text("url", request.url);
    if (request.headers.len > 0) {
        var headers: json.Writer = .{};
        for (request.headers) |header| headers.text(header.name, header.value);
        to.put(",\"headers\":");
        to.put(headers.end());
    }
    if (request.body.len > 0) to.base64("bodyBase64", request.body);
    if (request.timeout_ms != 0) to.integer("timeoutMs", request.timeout_ms);
    return response(host.httpFetch(to.end()));
}

pub fn httpPost(url: Text, content_type: Text, body: Text) Reply(Response) {
    return response(host.httpPost(url, content_type, body));
}
