//! Calls the host function that its input names, with the arguments behind it (all apart by U+001F), and answers in a
//! JSON string what the SDK made of it.

const std = @import("std");
const hookline = @import("hookline");
pub const panic = hookline.panic;

comptime {
    hookline.rawHook(.custom_hook, probe);
}

fn probe(raw: []const u8) ?[]const u8 {
    var parts = std.mem.splitScalar(u8, raw, 0x1f);
    const function = parts.first();
    var fields: std.ArrayList([]const u8) = .empty;
    while (parts.next()) |part| fields.append(hookline.allocator, part) catch unreachable;
    return hookline.valueText(said(function, fields.items));
}

fn print(comptime format: []const u8, arguments: anytype) []const u8 {
    return std.fmt.allocPrint(hookline.allocator, format, arguments) catch unreachable;
}

fn code(failure: hookline.Error) []const u8 {
    const negative: i32 = switch (failure) {
        error.Memory => -1,
        error.Size => -2,
        error.Denied => -3,
        error.Argument => -4,
        error.Cap => -5,
        error.Unavailable => -6,
    };
    return print("error|{d}", .{negative});
}

fn done(answer: hookline.Error!void) []const u8 {
    answer catch |failure| return code(failure);
    return "ok";
}

fn yes(answer: hookline.Error!bool) []const u8 {
    return if (answer catch |failure| return code(failure)) "true" else "false";
}

fn bytes(answer: hookline.Error!?[]const u8) []const u8 {
    const found = (answer catch |failure| return code(failure)) orelse return "none";
    return print("some|{s}", .{found});
}

fn failed(failure: hookline.Failure) []const u8 {
    return print("failure|{s}|{s}|{s}", .{ failure.cause, failure.message, failure.sqlstate });
}

fn response(answer: hookline.Reply(hookline.Response)) []const u8 {
    return switch (answer) {
        .ok => |ok| print("{d}|{s}|{s}|{}", .{ ok.status, ok.headers.get("content-type") orelse "", ok.body, ok.from_cache }),
        .failed => |failure| failed(failure),
    };
}

fn number(text: []const u8) i64 {
    return std.fmt.parseInt(i64, text, 10) catch unreachable;
}

fn quarters(text: []const u8) f64 {
    return @as(f64, @floatFromInt(number(text))) / 4;
}

fn joined(list: []const []const u8) []const u8 {
    return std.mem.join(hookline.allocator, ",", list) catch unreachable;
}

fn column(columns: []const hookline.Column, comptime field: []const u8) []const u8 {
    const list = hookline.allocator.alloc([]const u8, columns.len) catch unreachable;
    for (list, columns) |*to, each| to.* = @field(each, field);
    return joined(list);
}

fn execute(fields: []const []const u8) []const u8 {
    var params: std.ArrayList(hookline.Param) = .empty;
    for (fields[2..]) |field| {
        const value = field[1..];
        params.append(hookline.allocator, switch (field[0]) {
            'n' => .none,
            'b' => .{ .boolean = std.mem.eql(u8, value, "true") },
            'i' => .{ .integer = number(value) },
            't' => .{ .text = value },
            else => .{ .bytes = value },
        }) catch unreachable;
    }
    const found = switch (hookline.queryExecute(fields[0], fields[1], params.items)) {
        .ok => |rows| rows,
        .failed => |failure| return failed(failure),
    };
    var rows: []const u8 = "";
    for (found.rows) |row| {
        for (row, 0..) |cell, at| rows = print("{s}{s}{s}", .{ rows, if (at > 0) "," else "", cell.string });
        rows = print("{s};", .{rows});
    }
    const columns = found.columns;
    return print("{d}|{s}|{s}|{s}", .{ found.rowCount, column(columns, "name"), column(columns, "type"), rows });
}

fn fetch(fields: []const []const u8) []const u8 {
    const header = [_]hookline.Header{.{ .name = fields[2], .value = fields[3] }};
    return response(hookline.httpFetch(.{
        .method = fields[0],
        .url = fields[1],
        .headers = if (fields[2].len > 0) &header else &.{},
        .body = fields[4],
        .timeout_ms = number(fields[5]),
    }));
}

const Function = enum {
    kv_get,
    kv_set,
    kv_delete,
    sha256_hex,
    log,
    get_time,
    random,
    get_config,
    metric_inc,
    metric_gauge,
    metric_observe,
    hmac_sha256,
    kv_list,
    kv_incr,
    kv_compare_and_set,
    kv_set_ttl,
    query_execute,
    query_prepare,
    query_get_tables,
    query_normalize,
    cache_get,
    cache_exists,
    cache_set,
    cache_delete,
    http_fetch,
    http_post,
};

fn said(name: []const u8, a: []const []const u8) []const u8 {
    switch (std.meta.stringToEnum(Function, name) orelse return "there is no such function") {
        .log => {
            hookline.log(@enumFromInt(number(a[0])), a[1]);
            return "ok";
        },
        .get_time => return print("{d}", .{hookline.getTime()}),
        .random => {
            const out = hookline.allocator.alloc(u8, @intCast(number(a[0]))) catch unreachable;
            hookline.random(out) catch |failure| return code(failure);
            return print("some|{s}", .{out});
        },
        .get_config => return bytes(hookline.getConfig(a[0])),
        .metric_inc => return done(hookline.metricInc(a[0], quarters(a[1]))),
        .metric_gauge => return done(hookline.metricGauge(a[0], quarters(a[1]))),
        .metric_observe => return done(hookline.metricObserve(a[0], quarters(a[1]))),
        .sha256_hex => {
            const hex = hookline.sha256Hex(a[0]) catch |failure| return code(failure);
            return print("some|{s}", .{&hex});
        },
        .hmac_sha256 => {
            const sum = hookline.hmacSha256(a[0], a[1]) catch |failure| return code(failure);
            return print("some|{s}", .{&sum});
        },
        .kv_get => return bytes(hookline.kvGet(a[0])),
        .kv_set => return done(hookline.kvSet(a[0], a[1])),
        .kv_delete => return done(hookline.kvDelete(a[0])),
        .kv_list => return joined(hookline.kvList(a[0]) catch |failure| return code(failure)),
        .kv_incr => return print("{d}", .{hookline.kvIncr(a[0], number(a[1])) catch |failure| return code(failure)}),
        .kv_compare_and_set => {
            const was = if (std.mem.eql(u8, a[1], "-")) null else a[1];
            return yes(hookline.kvCompareAndSet(a[0], was, a[2]));
        },
        .kv_set_ttl => return yes(hookline.kvSetTtl(a[0], number(a[1]))),
        .cache_get => return bytes(hookline.cacheGet(a[0], a[1])),
        .cache_exists => return yes(hookline.cacheExists(a[0], a[1])),
        .cache_set => return done(hookline.cacheSet(a[0], a[1], a[2], number(a[3]))),
        .cache_delete => return yes(hookline.cacheDelete(a[0], a[1])),
        .query_execute => return execute(a),
        .query_prepare => return switch (hookline.queryPrepare(a[0], a[1])) {
            .ok => |ok| print("{s}|{s}", .{ joined(ok.parameters), column(ok.columns, "name") }),
            .failed => |failure| failed(failure),
        },
        .query_get_tables => return switch (hookline.queryGetTables(a[0])) {
            .ok => |tables| joined(tables),
            .failed => |failure| failed(failure),
        },
        .query_normalize => return switch (hookline.queryNormalize(a[0])) {
            .ok => |sql| sql,
            .failed => |failure| failed(failure),
        },
        .http_fetch => return fetch(a),
        .http_post => return response(hookline.httpPost(a[0], a[1], a[2])),
    }
}
